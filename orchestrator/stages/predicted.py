"""What a model predicts on the rows of a group's split, kept on disk and given part by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.cluster.inference import InferencePlan, predict_rows
from orchestrator.data.multi_label import label_indicators
from orchestrator.data.reader import PixelReader
from orchestrator.data.scratch import ScratchRows, scratch_rows
from orchestrator.diversity.feature_sums import DirectionSums
from orchestrator.errors import DataError
from orchestrator.evaluation.answered_images import places_by
from orchestrator.evaluation.parts import PART_ROWS
from orchestrator.evaluation.predictions import Predictions
from orchestrator.records import ModelCard


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictedRows:
    """Give the predictions of one task on catalogue rows, in the catalogue's order, part by part.

    `rows` are those that have a label for the task, `labels` [n] their labels, `places` [n] their places among the rows
    that were predicted, None where these are all. The task's probabilities are the columns from `first` on of what was
    predicted, one for each of its `classes`. `baselines` says which rows a baseline got right [n]. `outlier_scores` are
    None where the model has none. With `is_multi_label` a label names any number of the classes.
    """

    rows: pa.Table
    labels: pa.ChunkedArray
    places: NDArray[np.int64] | None
    first: int
    classes: Sequence[str]
    probabilities: ScratchRows
    outlier_scores: ScratchRows | None = None
    baselines: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    is_multi_label: bool = False

    def __len__(self) -> int:
        """Count the images."""
        return int(self.rows.num_rows)

    @property
    def num_classes(self) -> int:
        """Count the classes K."""
        return len(self.classes)

    @property
    def subset_names(self) -> list[str]:
        """List the subsets that have images, sorted."""
        return sorted(pc.unique(self.rows.column("subset")).to_pylist())

    @property
    def num_units(self) -> int:
        """Count what a bootstrap draws as one: an image, or images that are kin."""
        num_alone, kin = self._kin(None)
        return num_alone + int(pc.count_distinct(kin).as_py())

    def has_kin(self, subset: str | None = None) -> bool:
        """Tell whether some images, or some of a subset, are drawn as one."""
        _, kin = self._kin(subset)
        return int(pc.count_distinct(kin).as_py()) < len(kin)

    def truth(self) -> NDArray[np.int32]:
        """Give the true class index of every image [n], in 4 bytes each."""
        return np.asarray(self._found(self.labels)).astype(np.int32, copy=False)

    def parts(self, subset: str | None = None) -> Iterator[Predictions]:
        """Iterate over the predictions, or those of a subset, at most 65,536 at a time."""
        for chosen in self._chosen(subset):
            rows = self.rows.take(pa.array(chosen))
            scores = self.outlier_scores
            yield Predictions(
                ids=rows.column("id").to_pylist(),
                subsets=rows.column("subset").to_pylist(),
                together=rows.column("together").to_pylist(),
                truth=self._truth(self.labels.take(pa.array(chosen))),
                probabilities=self._probabilities(chosen),
                baselines={name: correct[chosen] for name, correct in self.baselines.items()},
                outlier_scores=None if scores is None else scores.take(self._place(chosen))[:, 0].astype(np.float64),
            )

    def scored(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Iterate over probabilities [n, K] and true class indices [n] alone."""
        for chosen in self._chosen(None):
            yield self._probabilities(chosen), self._indices(self.labels.take(pa.array(chosen)))

    def with_baselines(self, correct: Mapping[str, NDArray[np.bool_]]) -> Self:
        """Add baselines: by name, which of these images [n], in this order, each got right."""
        return replace(self, baselines={**self.baselines, **correct})

    def _chosen(self, subset: str | None) -> Iterator[NDArray[np.int64]]:
        """Iterate over the numbers of rows, ascending; there is always an array, which may be empty."""
        if subset is None:
            for start in range(0, max(1, len(self)), PART_ROWS):
                yield np.arange(start, min(start + PART_ROWS, len(self)), dtype=np.int64)
            return
        members = self._members(subset)
        for start in range(0, max(1, len(members)), PART_ROWS):
            yield members[start : start + PART_ROWS]

    def _members(self, subset: str) -> NDArray[np.int64]:
        """Give the numbers of the rows of a subset, ascending."""
        return self._by_subset.get(subset, np.zeros(0, dtype=np.int64))

    @cached_property
    def _by_subset(self) -> dict[str, NDArray[np.int64]]:
        """Order the numbers of rows by subset once: with thousands of subsets every scan for one would tell."""
        return places_by(self.rows.column("subset"))

    def _kin(self, subset: str | None) -> tuple[int, pa.ChunkedArray]:
        """Count the images that are alone, and give the names that the others share with their kin."""
        names = self.rows.column("together")
        if subset is not None:
            names = names.take(pa.array(self._members(subset)))
        kin = names.filter(pc.not_equal(names, ""))
        return len(names) - len(kin), kin

    def _truth(self, labels: pa.ChunkedArray) -> NDArray[np.int64] | NDArray[np.bool_]:
        if not self.is_multi_label:
            return self._indices(labels)
        has: NDArray[np.bool_] = label_indicators(labels.to_pylist(), self.classes) > 0
        return has

    def _indices(self, labels: pa.ChunkedArray) -> NDArray[np.int64]:
        return np.asarray(self._found(labels)).astype(np.int64)

    def _found(self, labels: pa.ChunkedArray) -> pa.ChunkedArray:
        """Look up the class indices, of 32 bits."""
        found = pc.index_in(labels, value_set=pa.array(self.classes, pa.string()))
        if found.null_count:
            raise DataError(
                "every label must be one of the classes that are predicted",
                value=labels.filter(pc.is_null(found))[0].as_py(),
            )
        return found

    def _probabilities(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        kept = self.probabilities.take(self._place(chosen))
        return np.ascontiguousarray(kept[:, self.first : self.first + len(self.classes)], dtype=np.float32)

    def _place(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        return chosen if self.places is None else self.places[chosen]


@contextmanager
def predicted(
    rows: pa.Table,
    blocks: Sequence[pa.Table],
    reader: PixelReader,
    plan: InferencePlan,
    card: ModelCard,
) -> Iterator[tuple[list[PredictedRows], DirectionSums]]:
    """Predict catalogue rows, numbered and in blocks, and give the predictions of each of the model's tasks.

    Of a further task there are predictions for the rows alone that it labels. With them come the sums of unit features
    by the first task's classes. What was predicted lies on this machine's disk, 4 bytes an image and class, until the
    context ends: in memory an image is but its catalogue row.
    """
    classes, tells_outliers = card.predicted_classes, card.negatives != "none"
    with (
        scratch_rows(rows.num_rows, sum(map(len, classes)), np.float32) as probabilities,
        scratch_rows(rows.num_rows if tells_outliers else 0, 1, np.float64) as scores,
    ):

        def keep(places: NDArray[np.int64], found: NDArray[np.float32], outlying: NDArray[np.float64] | None) -> None:
            probabilities.put(places, found)
            if tells_outliers and outlying is not None:
                scores.put(places, outlying[:, None])

        directions = predict_rows(blocks, reader, plan, keep)
        told = scores if tells_outliers else None
        yield tasks_of(rows, probabilities, classes, told, is_multi_label=card.is_multi_label), directions


def tasks_of(
    rows: pa.Table,
    probabilities: ScratchRows,
    classes: Sequence[Sequence[str]],
    outlier_scores: ScratchRows | None = None,
    *,
    is_multi_label: bool = False,
) -> list[PredictedRows]:
    """Part the probabilities [n, K_1 + ... + K_T] of catalogue rows [n] by task, given the classes of each."""
    label = PredictedRows(
        rows=rows,
        labels=rows.column("label"),
        places=None,
        first=0,
        classes=classes[0],
        probabilities=probabilities,
        outlier_scores=outlier_scores,
        is_multi_label=is_multi_label,
    )
    return [label, *(_further(label, classes, number) for number in range(1, len(classes)))]


def _further(label: PredictedRows, classes: Sequence[Sequence[str]], number: int) -> PredictedRows:
    """Give the predictions of a further task on the rows that have a label for it."""
    of_task = pc.list_element(label.rows.column("tasks"), number - 1)
    places = np.flatnonzero(np.asarray(pc.is_valid(of_task)))
    return replace(
        label,
        rows=label.rows.take(pa.array(places)),
        labels=of_task.take(pa.array(places)),
        places=places.astype(np.int64),
        first=sum(map(len, classes[:number])),
        classes=classes[number],
        outlier_scores=None,
    )
