"""The models of single subsets, where `train.scope` asks for them: trained by the group's recipe, tested beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from orchestrator import fingerprints, storage
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.subset_training import PackingPlan, train_packed
from orchestrator.cluster.training import TRAIN_VERSION, TrainingJob, TrainingPlan, train_groups
from orchestrator.data.reader import streamed_blocks
from orchestrator.errors import DivergedError, OrchestratorError
from orchestrator.evaluation.answered_images import in_order, right_by_subset
from orchestrator.evaluation.paired_answers import Correct, PairedAnswers
from orchestrator.evaluation.subset_comparisons import (
    SUBSET_EVALUATION_VERSION,
    compare_subsets,
    judge_shared,
    judge_subset,
)
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
from orchestrator.stages.answers import kin_by_subset
from orchestrator.stages.context import GroupContext
from orchestrator.stages.evaluate import read_answers, read_evaluations
from orchestrator.stages.subset_outliers import SourceScores, score_source
from orchestrator.stages.subset_predictions import SubsetImages, SubsetPredictions, predict_subsets
from orchestrator.stages.train import joint_source, model_fingerprint, read_models

_MODELS = "subsets/models.json"
_EVALUATION = "subsets/evaluation.json"
_NONE = np.zeros(0, dtype=np.bool_)
_NO_KIN = pa.array([], pa.string())


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
        fingerprint=model_fingerprint(context, recipe, alone),
        num_train=num_train,
        num_validation=len(validation),
    )


def _train(context: GroupContext, members: list[_Member]) -> Iterator[tuple[_Member, ModelCard | OrchestratorError]]:
    """Train where it is cheapest: in packed tasks, or where a model has several workers or a stream, as groups are."""
    found = [context.samples(member.alone) for member in members]
    jobs = [_job(context, member, own) for member, own in zip(members, found, strict=True)]
    by_run = {job.run_name: member for job, member in zip(jobs, members, strict=True)}
    samples = {job.run_name: own for job, own in zip(jobs, found, strict=True)}
    packed = [job for job in jobs if context.config.train.num_workers == 1 and not job.is_streaming]
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


def _job(context: GroupContext, member: _Member, samples: GroupSamples) -> TrainingJob:
    source = joint_source(context, member.recipe, samples, member.alone)
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
        source=source.use,
        source_stream=source.stream,
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
    rows = context.rows(context.group(test.group), "test", ["id", "subset", "together"])
    of_group = right_by_subset(in_order(read_answers(context, evaluation), rows["id"]))
    together = kin_by_subset(rows)
    judged = {
        model.subset: judge_shared(model, of_group.get(model.subset, _NONE), together.get(model.subset, _NO_KIN))
        for model in test.models.models
        if model.model is None
    }
    tables: dict[str, str] = {}
    images = [_images(context, test, subset) for subset in test.cards]
    telling = {found.subset: found.model_uri for found in images if found.tells_outliers}
    outlying = score_source(context, telling, _packing(context))
    for subset, found in predict_subsets(images, context.reader, _packing(context), context.shape):
        tables[subset] = _keep(context, test, subset, found)
        judged[subset] = _judge(context, test, subset, found, of_group.get(subset, _NONE), outlying)
    record = compare_subsets(
        [judged[model.subset] for model in test.models.models],
        bootstrap_samples=context.config.evaluate.bootstrap_samples,
        seed=context.config.seed,
    )
    update = {
        "fingerprint": test.fingerprint,
        "group": test.group,
        "predictions": {subset: tables[subset] for subset in test.cards},
        "subsets": [_with_cost(found, test.cards.get(found.subset)) for found in record.subsets],
    }
    return record.model_copy(update=update)


def _images(context: GroupContext, test: _Test, subset: str) -> SubsetImages:
    member = test.members[subset]
    return SubsetImages(
        subset=subset,
        model_uri=context.path(test.group, member.folder, "model"),
        classes=test.cards[subset].classes,
        validation=context.rows(member.alone, "val"),
        test=context.rows(member.alone, "test"),
        tells_outliers=test.cards[subset].negatives != "none",
    )


def _keep(context: GroupContext, test: _Test, subset: str, found: SubsetPredictions) -> str:
    """Write what a subset's model predicts, on validation images beside it; give the path of the other table."""
    member = test.members[subset]
    model = context.path(test.group, member.folder, "model")
    save_validation(model, test.cards[subset], found.validation, fingerprint=test.fingerprint)
    folder = f"groups/{test.group}/{member.folder}/predictions"
    name = f"{folder}/{test.fingerprint}.parquet"
    parts = (part.to_table() for part in found.test.parts())
    storage.write_table_parts(context.run_directory.path(name), parts)
    context.run_directory.prune(folder, keep=test.fingerprint)
    return name


def _judge(
    context: GroupContext,
    test: _Test,
    subset: str,
    found: SubsetPredictions,
    of_group: Correct,
    outlying: SourceScores,
) -> tuple[SubsetResult, PairedAnswers]:
    card, samples, seed = test.cards[subset], context.config.evaluate.bootstrap_samples, context.config.seed
    result, answers = judge_subset(
        next(model for model in test.models.models if model.subset == subset),
        found.test,
        of_group,
        classes=card.classes,
        seconds=card.seconds,
        bootstrap_samples=samples,
        seed=seed,
    )
    told = outlying.judge(subset, found.test, card.negatives, bootstrap_samples=samples, seed=seed)
    return result.model_copy(update={"outliers": told}), answers


def _with_cost(found: SubsetResult, card: ModelCard | None) -> SubsetResult:
    """Say what the training of a subset's own model held."""
    if card is None:
        return found
    return found.model_copy(update={"num_workers": card.num_workers, "worker_resources": card.worker_resources})
