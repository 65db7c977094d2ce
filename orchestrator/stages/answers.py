"""What saved models get right on catalogue rows, by subset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.cluster.inference import InferencePlan, predict_samples
from orchestrator.data.reader import BLOCK_ROWS, blocks_of, number_rows
from orchestrator.records import ModelCard
from orchestrator.stages.context import GroupContext

Correct = NDArray[np.bool_]
BySubset = Mapping[str, Correct]


def answers_of(context: GroupContext, model_path: str, card: ModelCard, rows: pa.Table) -> BySubset:
    """Tell by subset which of these rows a saved model gets right, in their order; unknown classes it never does."""
    plan = InferencePlan(
        model_uri=context.run_directory.path(model_path),
        weights_digest=card.weights_digest,
        use_gpu=context.use_gpu,
        stall_timeout_s=context.config.cluster.stall_timeout_s,
    )
    is_known = np.isin(np.asarray(rows.column("label").to_pylist(), dtype=object), np.array(card.classes, dtype=object))
    known = number_rows(rows.filter(pa.array(is_known, type=pa.bool_())))
    predictions, _ = predict_samples(blocks_of(known, BLOCK_ROWS), context.reader, plan, card.classes)
    correct = np.zeros(rows.num_rows, dtype=np.bool_)
    correct[is_known] = predictions.correct
    return by_subset(correct, rows.column("subset").to_pylist())


def by_subset(correct: Correct, subsets: Sequence[str]) -> BySubset:
    """Divide answers [n] by the subsets [n] of their images, in order."""
    names = np.asarray(subsets, dtype=object)
    return {name: correct[names == name] for name in sorted(set(subsets))}
