"""Moves subsets to where they fare best, and trains the groups concerned again, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.cluster.training import TrainingPlan, train_groups
from orchestrator.errors import DataError, DivergedError, OrchestratorError
from orchestrator.evaluation.transfer import gain_over
from orchestrator.finetune.models import is_saved
from orchestrator.records import (
    Group,
    ModelCard,
    RegroupedModel,
    Regrouping,
    SubsetGain,
    SubsetTransfer,
)
from orchestrator.search.regrouping import KnownGroup, PlannedGroup, RegroupingPlan, plan_regrouping
from orchestrator.stages.answers import BySubset, answers_of, keep_validation
from orchestrator.stages.context import GroupContext
from orchestrator.stages.places import find_moves
from orchestrator.stages.search import budget_left_s
from orchestrator.stages.settling import is_no_worse, reason_of, settle
from orchestrator.stages.subjects import BySplit, Subject
from orchestrator.stages.train import read_models, training_job

REGROUPED = "regrouped"


@dataclass(frozen=True, kw_only=True)
class _Retrained:
    """Hold a group that was trained again, and what its model gets right by split and subset."""

    planned: PlannedGroup
    card: ModelCard
    path: str
    answers: Mapping[str, BySubset]

    def of_subset(self, subset: str) -> BySplit:
        return {split: found.get(subset, np.zeros(0, dtype=np.bool_)) for split, found in self.answers.items()}


def regroup(
    context: GroupContext, subjects: Sequence[Subject], judged: Sequence[SubsetTransfer]
) -> tuple[list[SubsetTransfer], Regrouping]:
    """Move every subset whose validation images another place serves better beyond its interval, within the budget.

    `find_moves` says what the places are. The groups concerned are trained again by their recipes, together with the
    source where their place has it. Their new models are kept where, over all validation images of these groups, they
    are no worse than the old ones. What cannot be trained is undone, and recorded as the reason. Raises any other error
    of a training.
    """
    budget_s = budget_left_s(context)
    known = _known_groups(context)
    moves = find_moves(context.config, subjects, _answers_elsewhere(context))
    plan = plan_regrouping(moves, known, budget_left_s=budget_s)
    failure = ""
    try:
        retrained = _train(context, plan)
    except (DataError, DivergedError) as error:
        # It would end so again: a group is left without images, or its recipe does not suit it.
        retrained, failure = [], str(error)
    gains = _gains(context, subjects, retrained)
    is_kept = bool(retrained) and is_no_worse(gains, subjects)
    regrouping = Regrouping(
        moves=list(plan.moves),
        left_out=list(plan.left_out),
        models=[
            RegroupedModel(
                group=found.planned.name,
                subsets=list(found.planned.subsets),
                recipe_of=found.planned.recipe_of,
                without_source=found.planned.without_source,
                predicted_s=found.planned.predicted_s,
                seconds=found.card.seconds,
                num_workers=found.card.num_workers,
                worker_resources=found.card.worker_resources,
                model=found.path,
                weights_digest=found.card.weights_digest,
            )
            for found in retrained
        ],
        budget_left_s=budget_s,
        gains=list(gains.values()),
        is_kept=is_kept,
        reason=reason_of(plan, is_kept=is_kept, failure=failure),
    )
    context.say(f"evaluate: regrouping: {regrouping.reason}")
    answers = {subset: found.of_subset(subset)["test"] for found in retrained for subset in found.planned.subsets}
    settled = [settle(found, regrouping, gains.get(found.subset), answers.get(found.subset)) for found in judged]
    return settled, regrouping


def _answers_elsewhere(context: GroupContext) -> dict[str, BySubset]:
    """Tell what every group's model gets right on the validation images of the other groups' subsets."""
    found = {}
    for card in read_models(context):
        others = [subset for group in context.groups.groups if group.name != card.group for subset in group.subsets]
        if others:
            rows = context.rows(Group.put_together(card.group, others), "val")
            found[card.group] = answers_of(context, f"groups/{card.group}/model", card, rows)
    return found


def _known_groups(context: GroupContext) -> list[KnownGroup]:
    groups = []
    for card in read_models(context):
        group = context.group(card.group)
        counts = Counter(context.rows(group, "train").column("subset").to_pylist())
        num_train = {subset: counts[subset] for subset in group.subsets}
        groups.append(KnownGroup(name=group.name, num_train=num_train, seconds=card.seconds))
    return groups


def _train(context: GroupContext, plan: RegroupingPlan) -> list[_Retrained]:
    """Train the planned groups that an interrupted run has not trained yet."""
    if not plan.groups:
        return []
    recipes = {recipe.group: recipe for recipe in context.recipes()}
    contexts = _changed(context, plan)
    of_groups = {name: changed.samples(changed.group(name)) for name, changed in contexts.items()}
    jobs = [
        training_job(
            contexts[found.name],
            recipes[found.recipe_of].model_copy(update={"group": found.name}),
            of_groups[found.name],
            folder=REGROUPED,
        )
        for found in plan.groups
    ]
    cards = {job.group: _find(context, job.group, job.fingerprint) for job in jobs}
    pending = [job for job in jobs if cards[job.group] is None]
    errors: list[OrchestratorError] = []
    if pending:
        training = TrainingPlan.of(context.config, pending, context.shape)
        samples = {job.run_name: of_groups[job.group] for job in pending}
        for job, outcome in train_groups(pending, samples, context.workbench, training, context.shape):
            if isinstance(outcome, OrchestratorError):
                errors.append(outcome)
                continue
            cards[job.group] = outcome
            context.say(f"evaluate: group {job.group} was trained again in {outcome.seconds:.1f} s")
    if errors:
        raise next((error for error in errors if not isinstance(error, DivergedError)), errors[0])
    return [
        _retrained(contexts[planned.name], planned, card) for planned in plan.groups if (card := cards[planned.name])
    ]


def _changed(context: GroupContext, plan: RegroupingPlan) -> dict[str, GroupContext]:
    """Give the context of every planned group: that of the run with the changed groups, for some without its source."""
    groups = [Group.put_together(found.name, found.subsets) for found in plan.groups]
    # Digests of samples are kept by the group's name: the changed groups need a context of their own.
    changed = replace(context, groups=context.groups.model_copy(update={"groups": groups}))
    alone = replace(changed, config=changed.config.model_copy(update={"source": None}), source=None)
    return {found.name: alone if found.without_source else changed for found in plan.groups}


def _find(context: GroupContext, group: str, fingerprint: str) -> ModelCard | None:
    path = f"{REGROUPED}/{group}/model"
    card = context.run_directory.find(f"{path}/model.json", ModelCard, fingerprint)
    return card if card is not None and is_saved(context.run_directory.path(path), card.weights_digest) else None


def _retrained(changed: GroupContext, planned: PlannedGroup, card: ModelCard) -> _Retrained:
    path, group = f"{REGROUPED}/{planned.name}/model", changed.group(planned.name)
    answers = {
        "val": keep_validation(changed, path, card, changed.rows(group, "val"), fingerprint=card.fingerprint),
        "test": answers_of(changed, path, card, changed.rows(group, "test")),
    }
    return _Retrained(planned=planned, card=card, path=path, answers=answers)


def _gains(
    context: GroupContext, subjects: Sequence[Subject], retrained: Sequence[_Retrained]
) -> dict[str, SubsetGain]:
    by_subset = {subject.subset: subject for subject in subjects}
    return {
        subset: gain_over(
            subset,
            found.of_subset(subset),
            by_subset[subset].own,
            by_subset[subset].together,
            bootstrap_samples=context.config.evaluate.bootstrap_samples,
            seed=context.config.seed,
        )
        for found in retrained
        for subset in found.planned.subsets
    }
