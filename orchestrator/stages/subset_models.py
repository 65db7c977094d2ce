"""The models of single subsets, where `train.scope` asks for them: trained by the group's recipe, tested beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from orchestrator import fingerprints, storage
from orchestrator.cluster.subset_training import PackingPlan, PredictionJob, predict_packed, train_packed
from orchestrator.cluster.training import TRAIN_VERSION, TrainingJob, TrainingPlan, train_groups
from orchestrator.data.reader import BLOCK_ROWS, blocks_of, number_rows, streamed_blocks
from orchestrator.errors import DivergedError, OrchestratorError
from orchestrator.evaluation.predictions import Predictions, predictions_of_tasks
from orchestrator.evaluation.subset_comparisons import SUBSET_EVALUATION_VERSION, judge_subsets
from orchestrator.finetune.validation import save_validation
from orchestrator.records import (
    Group,
    ModelCard,
    Recipe,
    SubsetEvaluation,
    SubsetModel,
    SubsetModels,
    SubsetResult,
)
from orchestrator.runs import folder_name
from orchestrator.search.sharing import reason_to_share
from orchestrator.stages.context import GroupContext
from orchestrator.stages.evaluate import read_evaluations, read_predictions
from orchestrator.stages.train import read_models

_MODELS = "subsets/models.json"
_EVALUATION = "subsets/evaluation.json"


@dataclass(frozen=True, kw_only=True)
class _Member:
    """Hold a subset of a group, alone in a group of its own, and why it gets no model, if it gets none.

    `fingerprint` is that of its model.
    """

    group: Group
    alone: Group
    recipe: Recipe
    reason: str
    fingerprint: str
    num_train: int
    num_validation: int

    @property
    def subset(self) -> str:
        return self.alone.subsets[0]

    @property
    def folder(self) -> str:
        """Give the folder of the subset below its group's."""
        return f"subsets/{folder_name(self.subset)}"


def train_subsets(context: GroupContext) -> int:
    """Train the models of subsets that are not up to date; give their number, 0 where the scope is another.

    A training that diverges leaves its subset the group's model, and is recorded as the reason. Every training has
    ended, and the finished models are kept, before one's error is raised.
    """
    if context.config.train.scope != "subset":
        return 0
    groups = [members for members in _members(context) if _find_models(context, members) is None]
    pending = [
        member for members in groups for member in members if not member.reason and _find_card(context, member) is None
    ]
    failures: dict[str, OrchestratorError] = {}
    for member, outcome in _train(context, pending):
        if isinstance(outcome, OrchestratorError):
            context.say(f"train {member.alone.name}: {outcome}")
            failures[member.alone.name] = outcome
            continue
        best = outcome.history[outcome.best_epoch - 1]
        context.say(
            f"train {member.alone.name}: epoch {outcome.best_epoch} of {len(outcome.history)} kept, validation "
            f"accuracy {best.val_accuracy:.3f}, {outcome.seconds:.1f} s"
        )
    for error in failures.values():
        if not isinstance(error, DivergedError):
            raise error
    for members in groups:
        _write_models(context, members, failures)
    return len(pending) or len(groups)


def evaluate_subsets(context: GroupContext) -> int:
    """Test the models of subsets beside their group's where that is not up to date; give the number of groups."""
    if context.config.train.scope != "subset":
        return 0
    num_tested = 0
    for test in _tests(context):
        if _find_evaluation(context, test) is not None:
            continue
        record = _evaluate(context, test)
        context.write(test.group, _EVALUATION, record)
        num_tested += 1
        own = sum(found.model is not None for found in record.subsets)
        accuracy = "no accuracy" if record.accuracy is None else f"accuracy {record.accuracy:.3f}"
        context.say(f"evaluate {test.group}: {own} of {len(record.subsets)} subsets by their own models, {accuracy}")
    return num_tested


def read_subset_evaluations(context: GroupContext) -> list[SubsetEvaluation]:
    """Give the tests of the models of subsets; none where the scope is another. Raises RecordError before they ran."""
    if context.config.train.scope != "subset":
        return []
    return [
        context.require(test.group, _EVALUATION, SubsetEvaluation, test.fingerprint, stage="evaluate")
        for test in _tests(context)
    ]


# Training.


def _members(context: GroupContext) -> list[list[_Member]]:
    """Give the subsets of every group."""
    recipes = {recipe.group: recipe for recipe in context.recipes()}
    return [
        [_member(context, group, subset, recipes[group.name]) for subset in group.subsets]
        for group in context.groups.groups
    ]


def _member(context: GroupContext, group: Group, subset: str, recipe: Recipe) -> _Member:
    alone = Group.put_together(f"{group.name}/{subset}", [subset])
    train, validation = (context.cached_positions(alone, split) for split in ("train", "val"))
    labels = context.table.table.column("label").take(pa.array(train))
    # What is not cached is streamed, beside cached samples that choose the epoch.
    num_train = context.rows(alone, "train").num_rows if len(train) else 0
    reason = reason_to_share(
        num_subsets=len(group.subsets),
        num_train=num_train,
        num_validation=len(validation),
        num_classes=len(labels.unique()),
        min_images=context.config.grouping.min_images,
    )
    return _Member(
        group=group,
        alone=alone,
        recipe=recipe,
        reason=reason or "",
        fingerprint=fingerprints.of_model(
            context.config,
            hyperparameters=recipe.hyperparameters,
            data=context.data_fingerprint(alone),
            backbone=context.backbone,
            version=TRAIN_VERSION,
        ),
        num_train=num_train,
        num_validation=len(validation),
    )


def _train(context: GroupContext, members: list[_Member]) -> Iterator[tuple[_Member, ModelCard | OrchestratorError]]:
    """Train where it is cheapest: in packed tasks, or where a model has several workers or a stream, as groups are."""
    jobs = [_job(context, member) for member in members]
    by_run = {job.run_name: member for job, member in zip(jobs, members, strict=True)}
    samples = {run_name: context.samples(member.alone) for run_name, member in by_run.items()}
    packed = [job for job in jobs if context.config.train.num_workers == 1 and job.stream is None]
    others = [job for job in jobs if job not in packed]
    for job, outcome in train_packed(packed, samples, context.workbench, _packing(context), context.shape):
        yield by_run[job.run_name], outcome
    if others:
        plan = TrainingPlan.of(context.config, others, context.shape)
        for job, outcome in train_groups(others, samples, context.workbench, plan, context.shape):
            yield by_run[job.run_name], outcome


def _packing(context: GroupContext) -> PackingPlan:
    return PackingPlan.of(
        context.config.train, use_gpu=context.use_gpu, stall_timeout_s=context.config.cluster.stall_timeout_s
    )


def _job(context: GroupContext, member: _Member) -> TrainingJob:
    return TrainingJob(
        group=member.group.name,
        subsets=(member.subset,),
        hyperparameters=member.recipe.hyperparameters,
        fingerprint=member.fingerprint,
        data_fingerprint=context.data_fingerprint(member.alone),
        run_name=f"{member.group.name}-{folder_name(member.subset)}-{member.fingerprint}",
        model_uri=context.path(member.group.name, member.folder, "model"),
        storage_uri=context.run_directory.path("ray_train"),
        stream=streamed_blocks(context.rows(member.alone, "train")),
        reader=context.reader,
    )


def _find_card(context: GroupContext, member: _Member) -> ModelCard | None:
    return context.find(member.group.name, f"{member.folder}/model/model.json", ModelCard, member.fingerprint)


def _models_fingerprint(members: list[_Member]) -> str:
    decisions = {member.subset: member.reason or member.fingerprint for member in members}
    return fingerprints.of_subset_models(decisions=decisions, version=TRAIN_VERSION)


def _find_models(context: GroupContext, members: list[_Member]) -> SubsetModels | None:
    """Give the record of a group's models; None when it, or a model that it names, is not up to date."""
    found = context.find(members[0].group.name, _MODELS, SubsetModels, _models_fingerprint(members))
    if found is None:
        return None
    by_subset = {member.subset: member for member in members}
    named = [by_subset[model.subset] for model in found.models if model.model is not None]
    return found if all(_find_card(context, member) for member in named) else None


def _write_models(context: GroupContext, members: list[_Member], failures: Mapping[str, OrchestratorError]) -> None:
    name = members[0].group.name
    models = [_describe(member, failures.get(member.alone.name)) for member in members]
    for model in models:
        if model.reason:
            context.say(f"train {name}/{model.subset}: the group's model serves it, {model.reason}")
    record = SubsetModels(fingerprint=_models_fingerprint(members), group=name, models=models)
    context.write(name, _MODELS, record)


def _describe(member: _Member, failure: OrchestratorError | None) -> SubsetModel:
    reason = member.reason or (f"its training failed: {failure}" if failure is not None else "")
    return SubsetModel(
        subset=member.subset,
        model=None if reason else f"groups/{member.group.name}/{member.folder}/model",
        reason=reason,
        num_train=member.num_train,
        num_validation=member.num_validation,
    )


# Testing.


@dataclass(frozen=True, kw_only=True)
class _Test:
    """Hold what serves the subsets of a group, the cards of their own models, and the fingerprint of their test."""

    group: str
    members: dict[str, _Member]
    models: SubsetModels
    cards: dict[str, ModelCard]
    fingerprint: str


def _tests(context: GroupContext) -> list[_Test]:
    cards = {card.group: card for card in read_models(context)}
    return [_test(context, members, cards[members[0].group.name]) for members in _members(context)]


def _test(context: GroupContext, members: list[_Member], of_group: ModelCard) -> _Test:
    group, by_subset = members[0].group.name, {member.subset: member for member in members}
    models = context.require(group, _MODELS, SubsetModels, _models_fingerprint(members), stage="train")
    cards = {
        found.subset: context.require(
            group,
            f"{by_subset[found.subset].folder}/model/model.json",
            ModelCard,
            by_subset[found.subset].fingerprint,
            stage="train",
        )
        for found in models.models
        if found.model is not None
    }
    fingerprint = fingerprints.of_subset_evaluation(
        context.config,
        model=f"{of_group.fingerprint} {of_group.weights_digest}",
        models=models.fingerprint,
        weights={subset: card.weights_digest for subset, card in cards.items()},
        version=SUBSET_EVALUATION_VERSION,
    )
    return _Test(group=group, members=by_subset, models=models, cards=cards, fingerprint=fingerprint)


def _find_evaluation(context: GroupContext, test: _Test) -> SubsetEvaluation | None:
    return context.find(test.group, _EVALUATION, SubsetEvaluation, test.fingerprint)


def _evaluate(context: GroupContext, test: _Test) -> SubsetEvaluation:
    evaluation = next(found for found in read_evaluations(context) if found.group == test.group)
    validation, own = _predict(context, test)
    for subset, predictions in validation.items():
        model = context.path(test.group, test.members[subset].folder, "model")
        save_validation(model, test.cards[subset], predictions, fingerprint=test.fingerprint)
    tables = {}
    for subset, predictions in own.items():
        folder = f"groups/{test.group}/{test.members[subset].folder}/predictions"
        tables[subset] = f"{folder}/{test.fingerprint}.parquet"
        storage.write_table(context.run_directory.path(tables[subset]), predictions.to_table())
        context.run_directory.prune(folder, keep=test.fingerprint)
    judged = judge_subsets(
        read_predictions(context, evaluation),
        own,
        test.models.models,
        classes={subset: card.classes for subset, card in test.cards.items()},
        seconds={subset: card.seconds for subset, card in test.cards.items()},
        bootstrap_samples=context.config.evaluate.bootstrap_samples,
        seed=context.config.seed,
    )
    update = {
        "fingerprint": test.fingerprint,
        "group": test.group,
        "predictions": tables,
        "subsets": [_with_cost(found, test.cards.get(found.subset)) for found in judged.subsets],
    }
    return judged.model_copy(update=update)


def _with_cost(found: SubsetResult, card: ModelCard | None) -> SubsetResult:
    """Say what the training of a subset's own model held."""
    if card is None:
        return found
    return found.model_copy(update={"num_workers": card.num_workers, "worker_resources": card.worker_resources})


def _predict(context: GroupContext, test: _Test) -> tuple[dict[str, Predictions], dict[str, Predictions]]:
    """Predict the validation and the test images of every subset that has a model of its own, by that."""
    subsets = list(test.cards)
    parts = {
        subset: [context.rows(test.members[subset].alone, split) for split in ("val", "test")] for subset in subsets
    }
    rows = {subset: number_rows(pa.concat_tables(found)) for subset, found in parts.items()}
    jobs = [
        PredictionJob(
            model_uri=context.path(test.group, test.members[subset].folder, "model"),
            blocks=tuple(blocks_of(rows[subset], BLOCK_ROWS)),
        )
        for subset in subsets
    ]
    found = dict(predict_packed(jobs, context.reader, _packing(context), context.shape))
    both = {
        subset: predictions_of_tasks(rows[subset].to_pylist(), found[index], [test.cards[subset].classes])[0]
        for index, subset in enumerate(subsets)
    }
    num_validation = {subset: validation.num_rows for subset, (validation, _) in parts.items()}
    return (
        {subset: predicted.at(np.arange(num_validation[subset])) for subset, predicted in both.items()},
        {subset: predicted.at(np.arange(num_validation[subset], len(predicted))) for subset, predicted in both.items()},
    )
