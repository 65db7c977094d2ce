"""What saved models get right on catalogue rows, by subset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.cluster.inference import InferencePlan, predict_rows
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
    is_known = np.asarray(pc.is_in(rows.column("label"), value_set=pa.array(card.classes, pa.string())))
    known = number_rows(rows.filter(pa.array(is_known, type=pa.bool_())))
    truth = np.asarray(pc.index_in(known.column("label"), value_set=pa.array(card.classes, pa.string())))
    # A byte for each image, because verdicts compare several models image by image.
    right = np.zeros(known.num_rows, dtype=np.bool_)

    def keep(places: NDArray[np.int64], probabilities: NDArray[np.float32], _: object) -> None:
        # Of several tasks the first is compared.
        right[places] = probabilities[:, : len(card.classes)].argmax(axis=1) == truth[places]

    predict_rows(blocks_of(known, BLOCK_ROWS), context.reader, plan, keep)
    correct = np.zeros(rows.num_rows, dtype=np.bool_)
    correct[is_known] = right
    return by_subset(correct, rows.column("subset").to_pylist())


def by_subset(correct: Correct, subsets: Sequence[str]) -> BySubset:
    """Divide answers [n] by the subsets [n] of their images, in order."""
    names = np.asarray(subsets, dtype=object)
    return {name: correct[names == name] for name in sorted(set(subsets))}
