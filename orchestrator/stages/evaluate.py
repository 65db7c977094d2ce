"""The evaluation stage: every model on its test split, beside control arms trained on the same data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from orchestrator import fingerprints, storage
from orchestrator.cluster.baselines import BASELINE_VERSION, BaselineJob, control_arms, run_baselines
from orchestrator.cluster.features import compare_features
from orchestrator.cluster.inference import InferencePlan, predict_tasks, score_outliers
from orchestrator.cluster.resources import trial_resources
from orchestrator.config import SplitName
from orchestrator.data.reader import BLOCK_ROWS, blocks_of, number_rows
from orchestrator.diversity.transferability import separation
from orchestrator.evaluation.episodes import draw_episodes, score_episodes
from orchestrator.evaluation.judging import EVALUATION_VERSION, judge, judge_task
from orchestrator.evaluation.outliers import judge_outliers
from orchestrator.evaluation.predictions import Predictions, number_units
from orchestrator.finetune.validation import save_validation
from orchestrator.records import BaselineResult, EpisodeScores, Evaluation, ModelCard, OutlierScores, TaskScores
from orchestrator.stages.context import GroupContext
from orchestrator.stages.sources import unseen_images
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
        context.run_directory.prune(f"groups/{group}/predictions", keep=record.fingerprint)
        accuracy = "no accuracy" if record.accuracy is None else f"accuracy {record.accuracy:.3f}"
        context.say(f"evaluate {group}: {accuracy} on {record.num_images:,} test images")
    return len(pending)


def read_evaluations(context: GroupContext) -> list[Evaluation]:
    """Give the test results. Raises RecordError when the models have to be tested first."""
    return [
        context.require(test.card.group, _EVALUATION, Evaluation, test.fingerprint, stage="evaluate")
        for test in _tests(context)
    ]


def read_predictions(context: GroupContext, evaluation: Evaluation) -> Predictions:
    """Read the predictions that a test result was made from."""
    return Predictions.from_table(storage.read_table(context.run_directory.path(evaluation.predictions)))


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
    arms = control_arms(card.hyperparameters, fixed, context.backbone.num_stages, has_source=card.source is not None)
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
    context: GroupContext, plan: InferencePlan, card: ModelCard, predictions: Predictions
) -> EpisodeScores | None:
    """Judge the features of a model by episodes of its test images, where the experiment asks for them."""
    episodes = context.config.evaluate.episodes
    if episodes is None:
        return None
    drawn = draw_episodes(predictions.indices, episodes, seed=context.config.seed)
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
    plan = InferencePlan(
        model_uri=context.path(card.group, "model"),
        weights_digest=card.weights_digest,
        use_gpu=context.use_gpu,
        stall_timeout_s=context.config.cluster.stall_timeout_s,
        multi_label=card.is_multi_label,
    )
    results = [result for job in test.baselines if (result := _find_baseline(context, job))]
    classes = [found.classes for found in card.tasks] or [card.classes]
    (predictions, *further), directions = predict_tasks(blocks, context.reader, plan, classes)
    predictions = predictions.with_baselines(
        {result.name: result.correct for result in results if result.correct is not None}
    )
    # What is fitted to mend confidence must not have seen the images that tell how well it does.
    (validation, *_), _ = predict_tasks(_blocks(context, card.group, "val"), context.reader, plan, classes)
    # The name carries the fingerprint: an evaluation that is cut short must not put its table beside an older record.
    name = f"groups/{card.group}/predictions/{test.fingerprint}.parquet"
    storage.write_table(context.run_directory.path(name), predictions.to_table())
    save_validation(context.path(card.group, "model"), card, validation, fingerprint=test.fingerprint)
    method = context.config.evaluate.label_shift
    evaluation = judge(
        card.group,
        card.classes,
        predictions,
        results,
        validation=validation,
        separation=separation(directions) if directions.num_images else None,
        episodes=_episodes(context, plan, card, predictions),
        shift_method=None if method == "none" else method,
        bootstrap_samples=context.config.evaluate.bootstrap_samples,
        seed=context.config.seed,
        predictions_path=name,
        seconds=card.seconds,
        fingerprint=test.fingerprint,
        outliers=_outliers(context, card, predictions, plan),
    )
    return evaluation.model_copy(update={"tasks": _judge_tasks(context, test, further)})


def _outliers(
    context: GroupContext, card: ModelCard, predictions: Predictions, plan: InferencePlan
) -> OutlierScores | None:
    """Test how a model that tells outliers scores images of the source that it never saw."""
    if context.source is None or predictions.outlier_scores is None:
        return None
    rows = number_rows(unseen_images(context.source, context.table, seed=context.config.seed))
    blocks = blocks_of(rows, BLOCK_ROWS)
    found = score_outliers(blocks, context.source.reader, plan)
    together = [name for block in blocks for name in block.column("together").to_pylist()]
    return judge_outliers(
        predictions.outlier_scores,
        found,
        card.negatives,
        bootstrap_samples=context.config.evaluate.bootstrap_samples,
        seed=context.config.seed,
        units=predictions.units,
        source_units=number_units(together),
    )


def _judge_tasks(context: GroupContext, test: _Test, predictions: Sequence[Predictions]) -> list[TaskScores]:
    """Keep the predictions of further tasks, and score them; a group may have no label at all for one."""
    scores = []
    for number, (task, found) in enumerate(zip(test.card.tasks[1:], predictions, strict=True), start=1):
        if not task.classes:
            continue
        name = f"groups/{test.card.group}/predictions/{test.fingerprint}.task-{number}.parquet"
        storage.write_table(context.run_directory.path(name), found.to_table())
        scores.append(
            judge_task(
                task,
                found,
                bootstrap_samples=context.config.evaluate.bootstrap_samples,
                seed=context.config.seed,
                predictions_path=name,
            )
        )
    return scores
