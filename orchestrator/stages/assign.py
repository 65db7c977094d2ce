"""Assigns subsets that arrive after a run to its groups, beside the run's own records."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from orchestrator import fingerprints, storage
from orchestrator.cluster.ingest import IngestPlan, make_catalogue, pixel_reader, read_samples
from orchestrator.cluster.profiling import PROFILE_VERSION, ProfilePlan, make_profile
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.reader import PixelReader
from orchestrator.diversity.assignment import assign_subsets
from orchestrator.records import Assignment, Assignments, Catalogue, Hyperparameters, ModelCard, Profile, Recipe
from orchestrator.stages.context import GroupContext
from orchestrator.stages.train import MODEL_CARD, model_fingerprint

ASSIGNMENTS_VERSION = 1


def assign(context: GroupContext, plan: IngestPlan, profile_plan: ProfilePlan, *, fingerprint: str) -> Assignments:
    """Read and measure new data as the run's was, and assign its subsets to the run's groups.

    `profile_plan` is the run's, `fingerprint` that of the data's catalogue. What is found goes to a folder named by it
    below the plan's folder; a second call finds the catalogue and the profile there. Raises what the catalogue and
    profile stages raise.
    """
    catalogue = _catalogue(context, plan, fingerprint)
    samples = read_samples(context.run_directory.uri, catalogue)
    folder = f"{plan.folder}/{fingerprint}"
    profile = _profile(context, catalogue, samples, pixel_reader(plan, catalogue), profile_plan, folder=folder)
    found = assign_subsets(profile, context.groups, min_images=context.config.grouping.min_images)
    offers = {group.name: _offer(context, group.name) for group in context.groups.groups}
    measured = {assignment.subset for assignment in found}
    record = Assignments(
        fingerprint=storage.digest("assignments", ASSIGNMENTS_VERSION, profile.fingerprint, context.groups.fingerprint),
        uri=plan.data.uri,
        assignments=[_with_offer(assignment, offers[assignment.group], samples) for assignment in found],
        unmeasured=[subset.subset for subset in catalogue.subsets if subset.subset not in measured],
        num_quarantined=catalogue.num_quarantined,
    )
    context.run_directory.write(f"{folder}/assignments.json", record)
    return record


@dataclass(frozen=True, kw_only=True)
class _Offer:
    """Hold what a group has for a subset that joins it; None for what is not made yet."""

    classes: Collection[str]
    recipe: Hyperparameters | None = None
    model: str | None = None


def _offer(context: GroupContext, name: str) -> _Offer:
    group = context.group(name)
    recipe = context.find(name, "recipe.json", Recipe, context.search_fingerprint(group))
    if recipe is None:
        return _Offer(classes=context.classes(group))
    card = context.find(name, MODEL_CARD, ModelCard, model_fingerprint(context, recipe))
    return _Offer(
        classes=context.classes(group),
        recipe=recipe.hyperparameters,
        model=f"groups/{name}/model" if card else None,
    )


def _with_offer(assignment: Assignment, offer: _Offer, samples: SampleTable) -> Assignment:
    unknown = sorted(_labels(samples, [assignment.subset]).difference(offer.classes))
    return assignment.model_copy(update={"unknown_classes": unknown, "recipe": offer.recipe, "model": offer.model})


def _labels(samples: SampleTable, subsets: Sequence[str] | None = None) -> set[str]:
    """Give the labels that occur in any split; None takes all subsets."""
    return set(samples.classes(samples.where(subsets=subsets)))


def _catalogue(context: GroupContext, plan: IngestPlan, fingerprint: str) -> Catalogue:
    name = f"{plan.folder}/{fingerprint}/catalogue.json"
    record = context.run_directory.find(name, Catalogue, fingerprint)
    if record is None:
        context.say(f"assign: reading {plan.data.uri}")
        record = make_catalogue(plan, fingerprint=fingerprint, say=context.say)
        context.run_directory.write(name, record)
    return record


def _profile(
    context: GroupContext,
    catalogue: Catalogue,
    samples: SampleTable,
    reader: PixelReader,
    plan: ProfilePlan,
    *,
    folder: str,
) -> Profile:
    """Measure what the groups stand on, feature diversity at the number of images of the run's own profile."""
    measures = context.groups.measures
    has_features = "feature_diversity" in measures
    name = f"{folder}/profile.json"
    fingerprint = fingerprints.of_later_profile(
        context.config,
        data=catalogue.data_fingerprint,
        files=catalogue.fingerprint,
        backbone=context.backbone if has_features else None,
        groups=context.groups.fingerprint,
        version=PROFILE_VERSION,
    )
    record = context.run_directory.find(name, Profile, fingerprint)
    if record is None:
        context.say(f"assign: measuring {', '.join(measures)} of {len(catalogue.subsets)} subsets")
        settings = replace(
            plan.settings,
            measures=measures,
            attributes=(),
            num_labels=len(_labels(context.table) | _labels(samples)),
            rarefied_to=context.profile.rarefied_to,
        )
        workbench = context.workbench if has_features else None
        alike = replace(plan, settings=settings, partials_uri=None)
        record = make_profile(samples, reader, workbench, alike, fingerprint=fingerprint, say=context.say)
        context.run_directory.write(name, record)
    return record
