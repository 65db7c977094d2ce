"""What saved models predict on catalogue rows, and what they get right, by subset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.cluster.inference import InferencePlan, predict_samples
from orchestrator.data.reader import BLOCK_ROWS, blocks_of, number_rows
from orchestrator.evaluation.predictions import Predictions
from orchestrator.finetune.validation import save_validation
from orchestrator.records import ModelCard
from orchestrator.stages.context import GroupContext

Correct = NDArray[np.bool_]
BySubset = Mapping[str, Correct]


def answers_of(context: GroupContext, model_path: str, card: ModelCard, rows: pa.Table) -> BySubset:
    """Tell by subset which of these rows a saved model gets right, in their order; unknown classes it never does."""
    is_known = np.isin(np.asarray(rows.column("label").to_pylist(), dtype=object), np.array(card.classes, dtype=object))
    known = number_rows(rows.filter(pa.array(is_known, type=pa.bool_())))
    predictions = _predict(context, model_path, card, known)
    correct = np.zeros(rows.num_rows, dtype=np.bool_)
    correct[is_known] = predictions.correct
    return by_subset(correct, rows.column("subset").to_pylist())


def keep_validation(
    context: GroupContext, model_path: str, card: ModelCard, rows: pa.Table, *, fingerprint: str
) -> Predictions:
    """Predict validation rows with a saved model that knows their classes, and keep that beside it."""
    predictions = _predict(context, model_path, card, number_rows(rows))
    save_validation(context.run_directory.path(model_path), card, predictions, fingerprint=fingerprint)
    return predictions


def by_subset(correct: Correct, subsets: Sequence[str]) -> BySubset:
    """Divide answers [n] by the subsets [n] of their images, in order."""
    names = np.asarray(subsets, dtype=object)
    return {name: correct[names == name] for name in sorted(set(subsets))}


def _predict(context: GroupContext, model_path: str, card: ModelCard, numbered: pa.Table) -> Predictions:
    plan = InferencePlan(
        model_uri=context.run_directory.path(model_path),
        weights_digest=card.weights_digest,
        use_gpu=context.use_gpu,
        stall_timeout_s=context.config.cluster.stall_timeout_s,
    )
    predictions, _ = predict_samples(blocks_of(numbered, BLOCK_ROWS), context.reader, plan, card.classes)
    return predictions
