"""What samples are learnt by: one class, one for each of several tasks, one for its subset's head, or any number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.config import HeadsBy
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.head_labels import head_labels
from orchestrator.records import TaskClasses


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Say what the samples of a group are learnt by, in whatever parts of the catalogue they come.

    `classes` are those of the group, `tasks` all tasks where there are several, or the heads of subsets where `heads`
    is subset; `is_multi_label` says that a sample has any number of the classes.
    """

    classes: Sequence[str]
    tasks: Sequence[TaskClasses] = ()
    heads: HeadsBy = "column"
    is_multi_label: bool = False

    def of_rows(self, rows: pa.Table) -> NDArray[np.int64] | NDArray[np.float32]:
        """Give what `of` does for all rows of a part of the catalogue."""
        return self.of(SampleTable(rows, multi_label=self.is_multi_label), np.arange(rows.num_rows))

    def of(self, samples: SampleTable, positions: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.float32]:
        """Give class indices int64 [n], or [n, T] with -1 where there is none, or float32 [n, K] of 0 and 1.

        Raises DataError for a label that is none of the classes.
        """
        if self.heads == "subset" and self.tasks:
            return head_labels(samples, positions, self.tasks)
        further = self.tasks[1:]
        if not further:
            return samples.targets(positions, self.classes)
        columns = [samples.task_indices(positions, task, found.classes) for task, found in enumerate(further)]
        labels: NDArray[np.int64] = np.stack([samples.class_indices(positions, self.classes), *columns], axis=1)
        return labels
