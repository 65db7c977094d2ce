"""The evaluation stage: every model on its test split, beside control arms trained on the same data."""

from __future__ import annotations

import pyarrow as pa

from orchestrator import fingerprints, storage
from orchestrator.cluster.baselines import BASELINE_VERSION, BaselineJob, control_arms, run_baselines
from orchestrator.cluster.inference import InferencePlan, predict_samples
from orchestrator.cluster.resources import trial_resources
from orchestrator.data.reader import blocks_of, number_rows
from orchestrator.evaluation.judging import EVALUATION_VERSION, judge
from orchestrator.evaluation.predictions import Predictions
from orchestrator.records import BaselineResult, Evaluation, Group, ModelCard
from orchestrator.stages.context import GroupContext
from orchestrator.stages.train import read_models

_EVALUATION = "evaluation.json"
_BLOCK_ROWS = 256


def evaluate(context: GroupContext) -> int:
    """Test every model whose evaluation is not up to date; give the number of models tested."""
    pending = [
        card
        for card in read_models(context)
        if context.find(card.group, _EVALUATION, Evaluation, _fingerprint(context, card)) is None
    ]
    if not pending:
        return 0
    _train_baselines(context, pending)
    for card in pending:
        record = _test(context, card)
        context.write(card.group, _EVALUATION, record)
        context.run_directory.prune(f"groups/{card.group}/predictions", keep=record.fingerprint)
        accuracy = "no accuracy" if record.accuracy is None else f"accuracy {record.accuracy:.3f}"
        context.say(f"evaluate {card.group}: {accuracy} on {record.num_images:,} test images")
    return len(pending)


def read_evaluations(context: GroupContext) -> list[Evaluation]:
    """Give the test results. Raises RecordError when the models have to be tested first."""
    return [
        context.require(card.group, _EVALUATION, Evaluation, _fingerprint(context, card), stage="evaluate")
        for card in read_models(context)
    ]


def read_predictions(context: GroupContext, evaluation: Evaluation) -> Predictions:
    """Read the predictions that a test result was made from."""
    return Predictions.from_table(storage.read_table(context.run_directory.path(evaluation.predictions)))


def _fingerprint(context: GroupContext, card: ModelCard) -> str:
    return fingerprints.of_evaluation(
        context.config,
        model=f"{card.fingerprint} {card.weights_digest}",
        baselines=[job.fingerprint for job in _baseline_jobs(context, card)],
        data=card.data_fingerprint,
        version=EVALUATION_VERSION,
    )


def _train_baselines(context: GroupContext, cards: list[ModelCard]) -> None:
    jobs = [job for card in cards for job in _baseline_jobs(context, card) if _find(context, job) is None]
    finished = run_baselines(
        jobs,
        {card.group: context.samples(context.group(card.group)) for card in cards},
        context.workbench,
        context.reader,
        trial_resources(context.config.search, use_gpu=context.use_gpu),
        context.shape,
        stall_timeout_s=context.config.cluster.stall_timeout_s,
    )
    for result in finished:
        context.write(result.group, _baseline_name(result.name), result)
        outcome = result.error or f"trained in {result.seconds:.1f} s"
        context.say(f"evaluate {result.group}: baseline {result.name}, {outcome}")


def _baseline_jobs(context: GroupContext, card: ModelCard) -> list[BaselineJob]:
    group = context.group(card.group)
    arms = control_arms(card.hyperparameters, context.fixed_rule(group), context.backbone.num_stages)
    return [
        BaselineJob(
            group=group.name,
            name=name,
            hyperparameters=hyperparameters,
            test=tuple(_test_blocks(context, group)),
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


def _find(context: GroupContext, job: BaselineJob) -> BaselineResult | None:
    return context.find(job.group, _baseline_name(job.name), BaselineResult, job.fingerprint)


def _baseline_name(name: str) -> str:
    return f"baselines/{name}.json"


def _test(context: GroupContext, card: ModelCard) -> Evaluation:
    plan = InferencePlan(
        model_uri=context.path(card.group, "model"),
        weights_digest=card.weights_digest,
        use_gpu=context.use_gpu,
        stall_timeout_s=context.config.cluster.stall_timeout_s,
    )
    blocks = _test_blocks(context, context.group(card.group))
    results = [result for job in _baseline_jobs(context, card) if (result := _find(context, job))]
    predictions = predict_samples(blocks, context.reader, plan, card.classes).with_baselines(
        {result.name: result.correct for result in results if result.correct is not None}
    )
    fingerprint = _fingerprint(context, card)
    # The name carries the fingerprint: an evaluation that is cut short must not put its table beside an older record.
    name = f"groups/{card.group}/predictions/{fingerprint}.parquet"
    storage.write_table(context.run_directory.path(name), predictions.to_table())
    return judge(
        card.group,
        card.classes,
        predictions,
        results,
        bootstrap_samples=context.config.evaluate.bootstrap_samples,
        seed=context.config.seed,
        predictions_path=name,
        seconds=card.seconds,
        fingerprint=fingerprint,
    )


def _test_blocks(context: GroupContext, group: Group) -> list[pa.Table]:
    return blocks_of(number_rows(context.rows(group, "test")), _BLOCK_ROWS)
