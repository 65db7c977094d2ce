"""The second part of the evaluation stage: what the models looked at in a few test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from orchestrator import fingerprints, storage
from orchestrator.cluster.explaining import ExplainedImage, ExplainedImages, ExplanationJob, explain_images
from orchestrator.errors import BackboneError, DataError, OrchestratorError
from orchestrator.evaluation.examples import choose_examples
from orchestrator.records import Evaluation, Explanation, Explanations
from orchestrator.reporting.overlays import draw_pair
from orchestrator.stages.context import GroupContext
from orchestrator.stages.evaluate import read_evaluations, read_prediction_parts

EXPLANATION_VERSION = 1
_EXPLANATIONS = "explanations.json"


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """Hold the images of one group to explain, and the fingerprint of the result."""

    group: str
    fingerprint: str
    examples: list[Explanation]
    job: ExplanationJob


def explain(context: GroupContext) -> int:
    """Explain predictions of every model whose explanations are not up to date; give the number of models.

    Images that cannot be read any more, and models that cannot be explained, are recorded as such. Raises RecordError
    when the models have to be tested first.
    """
    if context.config.evaluate.explanations == 0:
        return 0
    choices = [_choose(context, tested) for tested in read_evaluations(context) if _find(context, tested) is None]
    outcomes = explain_images(
        [choice.job for choice in choices],
        context.reader,
        stall_timeout_s=context.config.cluster.stall_timeout_s,
    )
    for index, outcome in outcomes:
        _keep(context, choices[index], outcome)
    return len(choices)


def read_explanations(context: GroupContext) -> list[Explanations]:
    """Give the explanations of every group that has some, none where they are turned off."""
    if context.config.evaluate.explanations == 0:
        return []
    return [found for tested in read_evaluations(context) if (found := _find(context, tested)) is not None]


def read_pictures(context: GroupContext, explanations: Sequence[Explanations]) -> dict[str, bytes]:
    """Read the pictures that explanations name, as PNG by name; one that is gone is left out."""
    names = [example.picture for found in explanations for example in found.examples if example.picture]
    pictures = {}
    for name in names:
        picture = storage.find_bytes(context.run_directory.path(name))
        if picture is None:
            context.say(f"report: {name} cannot be read and is left out")
        else:
            pictures[name] = picture
    return pictures


def _fingerprint(context: GroupContext, evaluation: Evaluation) -> str:
    return fingerprints.of_explanations(context.config, evaluation=evaluation.fingerprint, version=EXPLANATION_VERSION)


def _find(context: GroupContext, evaluation: Evaluation) -> Explanations | None:
    return context.find(evaluation.group, _EXPLANATIONS, Explanations, _fingerprint(context, evaluation))


def _choose(context: GroupContext, evaluation: Evaluation) -> _Choice:
    parts = read_prediction_parts(context, evaluation)
    chosen, positions = choose_examples(parts, context.config.evaluate.explanations)
    predicted = chosen.predicted.tolist()
    examples = [
        Explanation(
            id=chosen.ids[place],
            subset=chosen.subsets[place],
            label=evaluation.classes[chosen.truth[place]],
            predicted=evaluation.classes[found],
            probability=float(chosen.probabilities[place, found]),
            picture=None,
        )
        for place, found in enumerate(predicted)
    ]
    # Predictions stand in the order of these rows.
    rows = context.rows(context.group(evaluation.group), "test")
    return _Choice(
        group=evaluation.group,
        fingerprint=_fingerprint(context, evaluation),
        examples=examples,
        job=ExplanationJob(
            model_uri=context.path(evaluation.group, "model"),
            rows=rows.take(pa.array(positions, type=pa.int64())),
            classes=predicted,
        ),
    )


def _keep(context: GroupContext, choice: _Choice, outcome: ExplainedImages | OrchestratorError) -> None:
    """Write the pictures of a group, then its record."""
    folder = f"groups/{choice.group}/explanations"
    if isinstance(outcome, OrchestratorError) and not isinstance(outcome, (BackboneError, DataError)):
        # What may pass is tried again by the next run; the report does without.
        context.say(f"evaluate {choice.group}: nothing was explained: {outcome}")
        return
    if isinstance(outcome, OrchestratorError):
        record = Explanations(
            fingerprint=choice.fingerprint, group=choice.group, method=None, examples=[], error=str(outcome)
        )
    else:
        shown = zip(choice.examples, outcome.images, strict=True)
        record = Explanations(
            fingerprint=choice.fingerprint,
            group=choice.group,
            method=outcome.method,
            examples=[
                _keep_picture(context, example, image, f"{folder}/{choice.fingerprint}/{number}.png")
                for number, (example, image) in enumerate(shown, start=1)
            ],
        )
    context.write(choice.group, _EXPLANATIONS, record)
    context.run_directory.prune(folder, keep=choice.fingerprint)
    num_drawn = sum(example.picture is not None for example in record.examples)
    context.say(f"evaluate {choice.group}: {record.error or f'{num_drawn} test images explained'}")


def _keep_picture(context: GroupContext, example: Explanation, image: ExplainedImage | str, name: str) -> Explanation:
    if isinstance(image, str):
        return example.model_copy(update={"error": image})
    storage.write_bytes(context.run_directory.path(name), draw_pair(image.pixels, image.heat_map))
    return example.model_copy(update={"picture": name})
