"""The table of a model's predictions on test images, beside what its baselines got right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.errors import DataError, RecordError
from orchestrator.evaluation.metrics import predict_classes, predict_labels

PROBABILITIES = "probabilities"
_ANSWER_COLUMNS = ("id", "subset", "together", "label", "predicted")
_BASELINE_PREFIX = "correct_"
OUTLIER_COLUMN = "out_of_distribution"


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Hold the predictions on n test images over K classes.

    `ids`, `subsets` and `together` have n entries; the last is what an image shares with its kin, empty where it has
    none. `truth` [n] int64 are indices into the classes, or booleans [n, K] where an image has any number of them;
    `probabilities` [n, K] float32. `baselines` maps a baseline's name to booleans [n]: which images it got right.
    `outlier_scores` [n] in [0, 1] say how little an image is one of the classes, None where the model does not tell.
    Raises DataError when the lengths differ.
    """

    ids: Sequence[str]
    subsets: Sequence[str]
    together: Sequence[str]
    truth: NDArray[np.int64] | NDArray[np.bool_]
    probabilities: NDArray[np.float32]
    baselines: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    outlier_scores: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Refuse columns of unequal length."""
        columns: dict[str, Sized] = {
            "ids": self.ids,
            "subsets": self.subsets,
            "together": self.together,
            "truth": self.truth,
            "probabilities": self.probabilities,
            **{f"baseline {name}": correct for name, correct in self.baselines.items()},
            **({} if self.outlier_scores is None else {"outlier_scores": self.outlier_scores}),
        }
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError("predictions must have one entry for each image in every column", value=lengths)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.ids)

    @property
    def is_multi_label(self) -> bool:
        """Tell whether images have any number of the classes."""
        return self.truth.ndim == 2

    @property
    def indices(self) -> NDArray[np.int64]:
        """Give the index [n] of each image's class; images must have one each."""
        return self.truth.astype(np.int64, copy=False)

    @property
    def label_sets(self) -> NDArray[np.bool_]:
        """Tell which classes each image has [n, K]; images must be of any number of them."""
        return self.truth.astype(np.bool_, copy=False)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Give the index [n] of the most probable class, the first of equals."""
        return predict_classes(self.probabilities)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Tell for every image [n] whether its class is the most probable one, or all its labels are right at 0.5."""
        if self.is_multi_label:
            right: NDArray[np.bool_] = (predict_labels(self.probabilities) == self.truth).all(axis=1)
            return right
        found: NDArray[np.bool_] = self.predicted == self.truth
        return found

    @property
    def num_classes(self) -> int:
        """Count the classes K."""
        return int(self.probabilities.shape[1])

    @property
    def subset_names(self) -> list[str]:
        """List the subsets that have images, sorted."""
        return sorted(set(self.subsets))

    @property
    def num_units(self) -> int:
        """Count what a bootstrap draws as one: an image, or images that are kin."""
        units = self.units
        return len(self) if units is None else int(units.max()) + 1

    def has_kin(self, subset: str | None = None) -> bool:
        """Tell whether some images, or some of a subset, are drawn as one."""
        return next(self.parts(subset)).units is not None

    def parts(self, subset: str | None = None) -> Iterator[Self]:
        """Give the predictions, or those of a subset, as one part."""
        yield self if subset is None else self.for_subset(subset)

    def scored(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Give the probabilities [n, K] and the true class indices [n], as one part."""
        yield self.probabilities, self.indices

    @property
    def units(self) -> NDArray[np.int64] | None:
        """Number what a bootstrap draws as one [n]; None where every image is alone."""
        return number_units(self.together)

    def for_subset(self, name: str) -> Self:
        """Select the images of one subset, in order; none for a subset that does not occur."""
        return self.at(np.flatnonzero(np.asarray(self.subsets, dtype=object) == name))

    def at(self, rows: NDArray[np.int64]) -> Self:
        """Select the images at positions [m], in that order."""
        places = rows.tolist()
        return replace(
            self,
            ids=[self.ids[row] for row in places],
            subsets=[self.subsets[row] for row in places],
            together=[self.together[row] for row in places],
            truth=self.truth[rows],
            probabilities=self.probabilities[rows],
            baselines={baseline: correct[rows] for baseline, correct in self.baselines.items()},
            outlier_scores=None if self.outlier_scores is None else self.outlier_scores[rows],
        )

    def with_baselines(self, correct: Mapping[str, Sequence[bool] | NDArray[np.bool_]]) -> Self:
        """Add baselines: by name, which of these images [n], in this order, each got right. Raises DataError."""
        added = {name: np.asarray(column, dtype=bool) for name, column in correct.items()}
        return replace(self, baselines={**self.baselines, **added})

    def to_table(self) -> pa.Table:
        """Make a table with a row for each image.

        Columns: id, subset, together (strings), label and predicted (int64, indices into the classes), probabilities (a
        list of K float32 for each image), a boolean `correct_<baseline>` for each baseline, and `out_of_distribution`
        where the model tells outliers. Where images have any number of labels, label and predicted (at 0.5) are lists
        of K booleans.
        """
        probabilities = pa.array(np.ascontiguousarray(self.probabilities, dtype=np.float32).ravel())
        table = pa.table(
            {
                "id": pa.array(self.ids, type=pa.string()),
                "subset": pa.array(self.subsets, type=pa.string()),
                "together": pa.array(self.together, type=pa.string()),
                "label": _lists(self.label_sets) if self.is_multi_label else pa.array(self.truth, type=pa.int64()),
                "predicted": (
                    _lists(predict_labels(self.probabilities))
                    if self.is_multi_label
                    else pa.array(self.predicted, type=pa.int64())
                ),
                "probabilities": pa.FixedSizeListArray.from_arrays(probabilities, self.probabilities.shape[1]),
            }
        )
        for name, correct in self.baselines.items():
            table = table.append_column(_BASELINE_PREFIX + name, pa.array(correct, type=pa.bool_()))
        if self.outlier_scores is not None:
            table = table.append_column(OUTLIER_COLUMN, pa.array(self.outlier_scores, type=pa.float64()))
        return table

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Read what `to_table` made. Raises RecordError for a table of another form."""
        _check(table)
        return cls(
            ids=table.column("id").to_pylist(),
            subsets=table.column("subset").to_pylist(),
            together=table.column("together").to_pylist(),
            truth=_truth(table.column("label").combine_chunks()),
            probabilities=_matrix(table.column("probabilities").combine_chunks()),
            baselines=baselines_of_table(table),
            outlier_scores=(
                np.asarray(table.column(OUTLIER_COLUMN), dtype=np.float64)
                if OUTLIER_COLUMN in table.column_names
                else None
            ),
        )


def number_units(together: Sequence[str]) -> NDArray[np.int64] | None:
    """Number what a bootstrap draws as one [n], from 0: images with the same `together`, or an image where it is empty.

    None where every image is alone.
    """
    names = np.asarray(together, dtype=object)
    has_kin = np.array([bool(name) for name in together], dtype=bool)
    kin, numbers = np.unique(names[has_kin], return_inverse=True)
    if len(kin) == len(numbers):
        return None
    units = np.empty(len(names), dtype=np.int64)
    units[has_kin] = numbers
    units[~has_kin] = len(kin) + np.arange(np.count_nonzero(~has_kin))
    return units


def answers_of_table(table: pa.Table) -> NDArray[np.bool_]:
    """Tell which images [n] of a table of predictions the model got right; it may lack probabilities.

    Raises RecordError for a table of another form.
    """
    _require_columns(table, _ANSWER_COLUMNS)
    truth, predicted = (_truth(table.column(name).combine_chunks()) for name in ("label", "predicted"))
    # An image with any number of labels is right where all of them are.
    found: NDArray[np.bool_] = np.all(truth == predicted, axis=tuple(range(1, truth.ndim)))
    return found


def baselines_of_table(table: pa.Table) -> dict[str, NDArray[np.bool_]]:
    """Tell which images [n] of a table of predictions each of the baselines, by name, got right."""
    names = [name for name in table.column_names if name.startswith(_BASELINE_PREFIX)]
    return {name.removeprefix(_BASELINE_PREFIX): np.asarray(table.column(name), dtype=bool) for name in names}


def _require_columns(table: pa.Table, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise _damaged(f"no column {', '.join(missing)}")


def _check(table: pa.Table) -> None:
    _require_columns(table, [*_ANSWER_COLUMNS, PROBABILITIES])
    kind = table.schema.field("probabilities").type
    if not pa.types.is_fixed_size_list(kind):
        raise _damaged(f"probabilities of type {kind}")


def _matrix(lists: pa.FixedSizeListArray) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.asarray(lists.flatten(), dtype=np.float32)
    return values.reshape(len(lists), lists.type.list_size)


def _truth(column: pa.Array) -> NDArray[np.int64] | NDArray[np.bool_]:
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column, dtype=np.int64)
    values: NDArray[np.bool_] = np.asarray(column.flatten(), dtype=np.bool_)
    return values.reshape(len(column), column.type.list_size)


def _lists(sets: NDArray[np.bool_]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(sets.ravel()), sets.shape[1])


def _damaged(value: str) -> RecordError:
    return RecordError(
        "a table of predictions must be as it was written", value=value, remedy="Run the evaluation again."
    )
