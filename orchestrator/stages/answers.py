"""What saved models predict on catalogue rows, and what they get right, by subset."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.cluster.inference import InferencePlan, predict_rows
from orchestrator.data.reader import BLOCK_ROWS, blocks_of, number_rows
from orchestrator.evaluation.answered_images import places_by
from orchestrator.evaluation.paired_answers import Correct
from orchestrator.finetune.validation import save_validation
from orchestrator.records import ModelCard
from orchestrator.stages.context import GroupContext
from orchestrator.stages.predicted import predicted

BySubset = Mapping[str, Correct]


def answers_of(context: GroupContext, model_path: str, card: ModelCard, rows: pa.Table) -> BySubset:
    """Tell by subset which of these rows a saved model gets right, in their order; unknown classes it never does."""
    is_known = np.asarray(pc.is_in(rows.column("label"), value_set=pa.array(card.classes, pa.string())))
    known = number_rows(rows.filter(pa.array(is_known, type=pa.bool_())))
    truth = np.asarray(pc.index_in(known.column("label"), value_set=pa.array(card.classes, pa.string())))
    # A byte for each image, because verdicts compare several models image by image.
    right = np.zeros(known.num_rows, dtype=np.bool_)

    def keep(places: NDArray[np.int64], probabilities: NDArray[np.float32], _: object) -> None:
        # Of several tasks the first is compared.
        right[places] = probabilities[:, : len(card.classes)].argmax(axis=1) == truth[places]

    predict_rows(blocks_of(known, BLOCK_ROWS), context.reader, plan_of(context, model_path, card), keep)
    correct = np.zeros(rows.num_rows, dtype=np.bool_)
    correct[is_known] = right
    return by_subset(correct, rows)


def keep_validation(
    context: GroupContext, model_path: str, card: ModelCard, rows: pa.Table, *, fingerprint: str
) -> BySubset:
    """Predict validation rows with a saved model that knows their classes, and keep that beside it.

    Gives by subset which of them it gets right, in their order.
    """
    plan, numbered = plan_of(context, model_path, card), number_rows(rows)
    blocks = blocks_of(numbered, BLOCK_ROWS)
    with predicted(numbered, blocks, context.reader, plan, card) as ((validation,), _):
        save_validation(plan.model_uri, card, validation, fingerprint=fingerprint)
        correct = np.concatenate([part.correct for part in validation.parts()])
    return by_subset(correct, rows)


def by_subset(correct: Correct, rows: pa.Table) -> BySubset:
    """Divide answers [n] by the subsets of their images, which are catalogue rows [n], in order."""
    return {name: correct[places] for name, places in places_by(rows.column("subset")).items()}


def kin_by_subset(rows: pa.Table) -> Mapping[str, pa.Array]:
    """Give by subset what each image of catalogue rows shares with its kin, in their order."""
    together = rows.column("together").combine_chunks()
    return {name: together.take(pa.array(places)) for name, places in places_by(rows.column("subset")).items()}


def plan_of(context: GroupContext, model_path: str, card: ModelCard) -> InferencePlan:
    """Plan to predict with the model at a path below the run directory."""
    return InferencePlan(
        model_uri=context.run_directory.path(model_path),
        weights_digest=card.weights_digest,
        use_gpu=context.use_gpu,
        stall_timeout_s=context.config.cluster.stall_timeout_s,
    )
