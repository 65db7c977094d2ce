"""Keeps how the subsets and groups of a run lie to each other and to its sources, made anew where an input changed."""

from __future__ import annotations

from orchestrator import storage
from orchestrator.cluster.ranking import source_features
from orchestrator.cluster.workers import Workbench
from orchestrator.records import Distances, GroupDistances
from orchestrator.stages.distances import KnownSource, LabelledImages, distances_of, group_distances_of
from orchestrator.stages.inputs import RunInputs
from orchestrator.stages.sources import training_rows

_SOURCE_FOLDER = "source/features"
_SAMPLE_FOLDER = "profile/features"


def relate_subsets(inputs: RunInputs) -> bool:
    """Measure the distances of subsets from each other and from the run's sources; tell whether they had to be."""
    run_directory, fingerprint = inputs.run_directory, inputs.distances_fingerprint
    if _found(inputs) is not None:
        return False
    workbench = Workbench.of(inputs.config, inputs.backbone, run_directory.uri)
    sources = [found for found in (inputs.known_source, _labelled_source(inputs, workbench)) if found is not None]
    found, sample = distances_of(
        _run_images(inputs),
        sources,
        workbench,
        min_images=inputs.config.grouping.min_images,
        stall_timeout_s=inputs.config.cluster.stall_timeout_s,
    )
    kept = f"{_SAMPLE_FOLDER}/{fingerprint}.safetensors" if found.sources else None
    if kept is not None:
        storage.write_bytes(run_directory.path(kept), sample.to_bytes())
    run_directory.write("distances.json", found.model_copy(update={"fingerprint": fingerprint, "features": kept}))
    for folder in (_SOURCE_FOLDER, _SAMPLE_FOLDER):
        run_directory.prune(folder, keep=fingerprint)
    return True


def relate_groups(inputs: RunInputs) -> bool:
    """Measure the distances of groups from the run's sources; tell whether they had to be.

    Raises RecordError when those of subsets must be measured first.
    """
    run_directory, fingerprint = inputs.run_directory, inputs.group_distances_fingerprint
    if run_directory.find("group_distances.json", GroupDistances, fingerprint):
        return False
    distances = run_directory.require("distances.json", Distances, inputs.distances_fingerprint, stage="profile")
    if not distances.sources:
        # What an earlier configuration has left would be taken for this one's.
        storage.delete(run_directory.path("group_distances.json"))
        return False
    seed = inputs.config.seed_of("trial")
    found = group_distances_of(run_directory, distances, inputs.groups, _run_images(inputs), seed=seed)
    run_directory.write("group_distances.json", found.model_copy(update={"fingerprint": fingerprint}))
    return True


def _found(inputs: RunInputs) -> Distances | None:
    """Give the distances of subsets, when they are up to date and the features that groups need are there."""
    run_directory = inputs.run_directory
    found = run_directory.find("distances.json", Distances, inputs.distances_fingerprint)
    if found is None or found.features is None:
        return found
    kept = [found.features, *(source.features for source in found.sources)]
    return found if all(storage.exists(run_directory.path(path)) for path in kept) else None


def _labelled_source(inputs: RunInputs, workbench: Workbench) -> KnownSource | None:
    """Keep the features of what groups are trained together with, where there is anything, and give what is known."""
    source, plan, config = inputs.companion_images, inputs.companion, inputs.config.source
    if source is None or plan is None or config is None:
        return None
    # Among them are no copies of the run's own images.
    found = source_features(
        training_rows(source, inputs.samples),
        source.reader,
        workbench,
        classes=source.classes,
        stall_timeout_s=inputs.config.cluster.stall_timeout_s,
    )
    path = f"{_SOURCE_FOLDER}/{inputs.distances_fingerprint}.safetensors"
    storage.write_bytes(inputs.run_directory.path(path), found.to_bytes())
    return KnownSource(
        kind="joint training",
        uri=plan.data.uri,
        path=path,
        features=found.features,
        classes=source.classes if config.has_task else [],
    )


def _run_images(inputs: RunInputs) -> LabelledImages:
    return LabelledImages(
        catalogue=inputs.catalogue, samples=inputs.samples, reader=inputs.reader, classes=inputs.catalogue.labels
    )
