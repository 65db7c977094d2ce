"""The evaluation stage: every model on its test split, beside control arms trained on the same data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator import fingerprints, storage
from orchestrator.cluster.baselines import BASELINE_VERSION, BaselineJob, control_arms, run_baselines
from orchestrator.cluster.features import compare_features
from orchestrator.cluster.inference import InferencePlan, score_outliers
from orchestrator.cluster.resources import trial_resources
from orchestrator.config import SplitName
from orchestrator.data.reader import BLOCK_ROWS, blocks_of, number_rows
from orchestrator.diversity.feature_sums import DirectionSums
from orchestrator.diversity.transferability import mean_directions, separation
from orchestrator.evaluation.answered_images import AnsweredImages
from orchestrator.evaluation.answers import unpack
from orchestrator.evaluation.episodes import draw_episodes, score_episodes
from orchestrator.evaluation.head_shifts import judge_head_shifts, judge_task_shift
from orchestrator.evaluation.heads import judge_heads
from orchestrator.evaluation.judging import EVALUATION_VERSION, judge, judge_task
from orchestrator.evaluation.outlier_judging import judge_predicted_outliers
from orchestrator.evaluation.predictions import PROBABILITIES, Predictions
from orchestrator.finetune.validation import save_validation, task_folder
from orchestrator.records import (
    BaselineResult,
    EpisodeScores,
    Evaluation,
    FeatureSeparation,
    HeadScores,
    ModelCard,
    OutlierScores,
    ShiftMethod,
    TaskScores,
)
from orchestrator.stages.answers import plan_of
from orchestrator.stages.context import GroupContext
from orchestrator.stages.predicted import PredictedRows, predicted
from orchestrator.stages.sources import unseen_blocks
from orchestrator.stages.train import read_models

_EVALUATION = "evaluation.json"


@dataclass(frozen=True, kw_only=True)
class _Test:
    """Hold a model to test, its control arms and the fingerprint of the result."""

    card: ModelCard
    baselines: list[BaselineJob]
    fingerprint: str


def evaluate(context: GroupContext) -> int:
    """Test every model whose evaluation is not up to date; give the number of models tested."""
    pending = [test for test in _tests(context) if _find_evaluation(context, test) is None]
    if not pending:
        return 0
    blocks = {test.card.group: _blocks(context, test.card.group, "test") for test in pending}
    _train_baselines(context, pending, blocks)
    for test in pending:
        group = test.card.group
        record = _evaluate_model(context, test, blocks[group])
        context.write(group, _EVALUATION, record)
        for folder in ("predictions", "class_means"):
            context.run_directory.prune(f"groups/{group}/{folder}", keep=record.fingerprint)
        accuracy = "no accuracy" if record.accuracy is None else f"accuracy {record.accuracy:.3f}"
        context.say(f"evaluate {group}: {accuracy} on {record.num_images:,} test images")
    return len(pending)


def read_evaluations(context: GroupContext) -> list[Evaluation]:
    """Give the test results. Raises RecordError when the models have to be tested first."""
    return [
        context.require(test.card.group, _EVALUATION, Evaluation, test.fingerprint, stage="evaluate")
        for test in _tests(context)
    ]


def read_answers(context: GroupContext, evaluation: Evaluation) -> Iterator[AnsweredImages]:
    """Read which images a model and its baselines got right in a test, part by part."""
    uri = context.run_directory.path(evaluation.predictions)
    return (AnsweredImages.from_table(part) for part in storage.read_table_parts(uri, without=[PROBABILITIES]))


def read_prediction_parts(context: GroupContext, evaluation: Evaluation) -> Iterator[Predictions]:
    """Read the predictions that a test result was made from part by part, as they were written."""
    uri = context.run_directory.path(evaluation.predictions)
    return (Predictions.from_table(part) for part in storage.read_table_parts(uri))


def _tests(context: GroupContext) -> list[_Test]:
    tests = []
    for card in read_models(context):
        baselines = _baseline_jobs(context, card)
        fingerprint = fingerprints.of_evaluation(
            context.config,
            model=f"{card.fingerprint} {card.weights_digest}",
            baselines=[job.fingerprint for job in baselines],
            data=card.data_fingerprint,
            version=EVALUATION_VERSION,
        )
        tests.append(_Test(card=card, baselines=baselines, fingerprint=fingerprint))
    return tests


def _baseline_jobs(context: GroupContext, card: ModelCard) -> list[BaselineJob]:
    fixed = context.fixed_rule(context.group(card.group))
    arms = control_arms(
        card.hyperparameters,
        fixed,
        context.backbone.num_stages,
        has_source=card.source is not None,
        has_heads=card.heads == "subset" and len(card.tasks) > 1,
    )
    return [
        BaselineJob(
            group=card.group,
            name=name,
            hyperparameters=hyperparameters,
            fingerprint=fingerprints.of_baseline(
                context.config,
                name=name,
                hyperparameters=hyperparameters,
                data=card.data_fingerprint,
                backbone=context.backbone,
                version=BASELINE_VERSION,
            ),
        )
        for name, hyperparameters in arms.items()
    ]


def _blocks(context: GroupContext, group: str, split: SplitName) -> list[pa.Table]:
    return blocks_of(number_rows(context.rows(context.group(group), split)), BLOCK_ROWS)


def _find_evaluation(context: GroupContext, test: _Test) -> Evaluation | None:
    return context.find(test.card.group, _EVALUATION, Evaluation, test.fingerprint)


def _find_baseline(context: GroupContext, job: BaselineJob) -> BaselineResult | None:
    return context.find(job.group, _baseline_file(job.name), BaselineResult, job.fingerprint)


def _baseline_file(name: str) -> str:
    return f"baselines/{name}.json"


def _train_baselines(context: GroupContext, tests: list[_Test], blocks: Mapping[str, list[pa.Table]]) -> None:
    resources = trial_resources(context.config.search, use_gpu=context.use_gpu)
    finished = run_baselines(
        [job for test in tests for job in test.baselines if _find_baseline(context, job) is None],
        {test.card.group: context.samples(context.group(test.card.group)) for test in tests},
        blocks,
        context.workbench,
        context.reader,
        resources,
        context.shape,
        stall_timeout_s=context.config.cluster.stall_timeout_s,
    )
    for result in finished:
        kept = result.model_copy(update={"resources": resources})
        context.write(result.group, _baseline_file(result.name), kept)
        outcome = result.error or f"trained in {result.seconds:.1f} s"
        context.say(f"evaluate {result.group}: baseline {result.name}, {outcome}")


def _episodes(
    context: GroupContext, plan: InferencePlan, card: ModelCard, predictions: PredictedRows
) -> EpisodeScores | None:
    """Judge the features of a model by episodes of its test images, where the experiment asks for them."""
    episodes = context.config.evaluate.episodes
    if episodes is None:
        return None
    drawn = draw_episodes(predictions.truth(), episodes, seed=context.config.seed)
    if not len(drawn.classes):
        return score_episodes(drawn, episodes)
    chosen = np.unique(np.concatenate([drawn.support.ravel(), drawn.queries.ravel()]))
    rows = context.rows(context.group(card.group), "test").take(pa.array(chosen))
    blocks = blocks_of(number_rows(rows), BLOCK_ROWS)
    tuned, pretrained = compare_features(blocks, context.reader, plan, context.workbench)
    drawn = drawn.among(chosen)
    return score_episodes(drawn, episodes, tuned=tuned, pretrained=pretrained)


def _evaluate_model(context: GroupContext, test: _Test, blocks: list[pa.Table]) -> Evaluation:
    card = test.card
    plan = plan_of(context, f"groups/{card.group}/model", card)
    results = [result for job in test.baselines if (result := _find_baseline(context, job))]
    # A byte for each image: that many pairs of answers make an interval, and the table has them beside each other.
    correct: dict[str, NDArray[np.bool_]] = {
        result.name: unpack(result.correct) for result in results if result.correct is not None
    }
    # What is fitted to mend confidence must not have seen the images that tell how well it does.
    with (
        _predicted(context, card, plan, "test", blocks) as ((predictions, *further), directions),
        _predicted(context, card, plan, "val", _blocks(context, card.group, "val")) as ((validation, *known), _),
    ):
        # The name carries the fingerprint: an evaluation that is cut short must not put its table beside an older
        # record.
        name = f"groups/{card.group}/predictions/{test.fingerprint}.parquet"
        _write(context, name, predictions.with_baselines(correct))
        _keep_validation(context, test, [validation, *known])
        evaluation = judge(
            card.group,
            card.classes,
            predictions,
            results,
            validation=validation,
            separation=_separation(context, test, directions),
            episodes=_episodes(context, plan, card, predictions),
            shift_method=None if card.heads == "subset" else _shift_method(context),
            bootstrap_samples=context.config.evaluate.bootstrap_samples,
            seed=context.config.seed,
            predictions_path=name,
            seconds=card.seconds,
            fingerprint=test.fingerprint,
            outliers=_outliers(context, card, predictions, plan),
        )
        heads = _judge_heads(context, card, predictions.with_baselines(correct), validation)
        tasks = _judge_tasks(context, test, further, known)
        return evaluation.model_copy(update={"tasks": tasks, "heads": heads})


def _keep_validation(context: GroupContext, test: _Test, validation: Sequence[PredictedRows]) -> None:
    """Keep the predictions of every task on validation images beside the model; a further one may have none."""
    model = context.path(test.card.group, "model")
    first, *further = validation
    save_validation(model, test.card, first, fingerprint=test.fingerprint)
    for number, found in enumerate(further, start=1):
        folder = task_folder(model, number)
        storage.delete(folder)
        if len(found):
            save_validation(folder, test.card, found, fingerprint=test.fingerprint)


def _shift_method(context: GroupContext) -> ShiftMethod | None:
    method = context.config.evaluate.label_shift
    return None if method == "none" else method


def _predicted(
    context: GroupContext, card: ModelCard, plan: InferencePlan, split: SplitName, blocks: Sequence[pa.Table]
) -> AbstractContextManager[tuple[list[PredictedRows], DirectionSums]]:
    """Predict a group's split; see `predicted`."""
    rows = context.rows(context.group(card.group), split)
    return predicted(rows, blocks, context.reader, plan, card)


def _separation(context: GroupContext, test: _Test, directions: DirectionSums) -> FeatureSeparation | None:
    """Say how classes lie apart in the tuned features, and keep their means; None without test images."""
    if not directions.num_images:
        return None
    name = f"groups/{test.card.group}/class_means/{test.fingerprint}.parquet"
    storage.write_table(context.run_directory.path(name), mean_directions(directions))
    return separation(directions).model_copy(update={"class_means": name})


def _write(context: GroupContext, name: str, predictions: PredictedRows) -> None:
    parts = (part.to_table() for part in predictions.parts())
    storage.write_table_parts(context.run_directory.path(name), parts)


def _outliers(context: GroupContext, card: ModelCard, rows: PredictedRows, plan: InferencePlan) -> OutlierScores | None:
    """Test how a model that tells outliers scores images of the source that it never saw."""
    if context.source is None or rows.outlier_scores is None:
        return None
    blocks, together = unseen_blocks(context.source, context.table, seed=context.config.seed)
    return judge_predicted_outliers(
        rows,
        score_outliers(blocks, context.source.reader, plan),
        card.negatives,
        source_together=together,
        bootstrap_samples=context.config.evaluate.bootstrap_samples,
        seed=context.config.seed,
    )


def _judge_heads(
    context: GroupContext, card: ModelCard, predictions: PredictedRows, validation: PredictedRows
) -> list[HeadScores]:
    if card.heads == "column":
        return []
    samples, seed = context.config.evaluate.bootstrap_samples, context.config.seed
    scores = judge_heads(predictions, card.tasks, bootstrap_samples=samples, seed=seed)
    shifts = judge_head_shifts(
        card.tasks,
        predictions,
        validation,
        card.classes,
        _shift_method(context),
        bootstrap_samples=samples,
        seed=seed,
    )
    return [found.model_copy(update={"label_shift": shifts.get(found.subset)}) for found in scores]


def _judge_tasks(
    context: GroupContext, test: _Test, predictions: Sequence[PredictedRows], validation: Sequence[PredictedRows]
) -> list[TaskScores]:
    """Keep the predictions of further tasks, and score them; a group may have no label at all for one."""
    samples, seed = context.config.evaluate.bootstrap_samples, context.config.seed
    scores = []
    of_tasks = zip(test.card.further_tasks, predictions, validation, strict=True)
    for number, (task, found, known) in enumerate(of_tasks, start=1):
        if not task.classes:
            continue
        name = f"groups/{test.card.group}/predictions/{test.fingerprint}.task-{number}.parquet"
        _write(context, name, found)
        score = judge_task(task, found, bootstrap_samples=samples, seed=seed, predictions_path=name)
        shift = judge_task_shift(task, found, known, _shift_method(context), bootstrap_samples=samples, seed=seed)
        scores.append(score.model_copy(update={"label_shift": shift}))
    return scores
