"""What the models of single subsets predict, subset after subset, kept on disk while it is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from orchestrator.cluster.resources import ClusterShape
from orchestrator.cluster.subset_training import PackedPrediction, PackingPlan, PredictionJob, predict_packed
from orchestrator.data.reader import BLOCK_ROWS, PixelReader, blocks_of, number_rows
from orchestrator.data.scratch import ScratchRows, scratch_rows
from orchestrator.evaluation.parts import PART_ROWS
from orchestrator.stages.predicted import PredictedRows


@dataclass(frozen=True, kw_only=True, eq=False)
class SubsetImages:
    """Name a subset's own model, its classes, and the catalogue rows of the subset that it is to predict.

    `tells_outliers` says that the model scores how little an image looks like its classes.
    """

    subset: str
    model_uri: str
    classes: list[str]
    validation: pa.Table
    test: pa.Table
    tells_outliers: bool = False

    @property
    def num_rows(self) -> int:
        """Count the rows of both splits."""
        return int(self.validation.num_rows + self.test.num_rows)

    def jobs(self) -> list[PredictionJob]:
        """Cut the rows, numbered, validation first, into jobs of at most 65,536 rows."""
        rows = number_rows(pa.concat_tables([self.validation, self.test]))
        jobs: list[list[pa.Table]] = [[]]
        num_rows = 0
        for block in blocks_of(rows, BLOCK_ROWS):
            num_rows += block.num_rows
            if jobs[-1] and num_rows > PART_ROWS:
                jobs.append([])
                num_rows = block.num_rows
            jobs[-1].append(block)
        return [PredictionJob(model_uri=self.model_uri, blocks=tuple(blocks)) for blocks in jobs]

    def predictions(self, probabilities: ScratchRows, outlier_scores: ScratchRows | None = None) -> SubsetPredictions:
        """Part what was predicted by split."""
        splits, first = [], 0
        for rows in (self.validation, self.test):
            splits.append(
                PredictedRows(
                    rows=rows,
                    labels=rows.column("label"),
                    places=np.arange(first, first + rows.num_rows),
                    first=0,
                    classes=self.classes,
                    probabilities=probabilities,
                    outlier_scores=outlier_scores,
                )
            )
            first += rows.num_rows
        return SubsetPredictions(validation=splits[0], test=splits[1])


@dataclass(frozen=True, kw_only=True)
class SubsetPredictions:
    """Hold what a subset's own model predicts on its validation and its test images, in the catalogue's order."""

    validation: PredictedRows
    test: PredictedRows


@dataclass(kw_only=True)
class _Pending:
    """Hold what has been predicted of a subset, from the first of its jobs that ends to the last."""

    images: SubsetImages
    num_jobs: int
    kept: ExitStack = field(default_factory=ExitStack)
    probabilities: ScratchRows | None = None
    outlier_scores: ScratchRows | None = None

    def take(self, job: PredictionJob, found: PackedPrediction) -> ScratchRows:
        """Put away what a job has found; give the probabilities of all jobs so far."""
        if self.probabilities is None:
            self.probabilities = self._rows(len(self.images.classes), np.float32)
            self.outlier_scores = self._rows(1, np.float64) if self.images.tells_outliers else None
        self.probabilities.put(job.places, found.probabilities)
        if self.outlier_scores is not None and found.outlier_scores is not None:
            self.outlier_scores.put(job.places, found.outlier_scores[:, None])
        self.num_jobs -= 1
        return self.probabilities

    def _rows(self, width: int, dtype: type[np.floating]) -> ScratchRows:
        return self.kept.enter_context(scratch_rows(self.images.num_rows, width, dtype))


def predict_subsets(
    subsets: Sequence[SubsetImages], reader: PixelReader, plan: PackingPlan, shape: ClusterShape
) -> Iterator[tuple[str, SubsetPredictions]]:
    """Predict with the own model of every subset, which has images, and give each subset when it is done.

    What was predicted lies on this machine's disk, 4 bytes an image and class and 8 an outlier score, until the next
    subset is asked for.
    Raises what the first task that fails ends with.
    """
    jobs = [(images, job) for images in subsets for job in images.jobs()]
    num_jobs = Counter(images.subset for images, _ in jobs)
    pending = {images.subset: _Pending(images=images, num_jobs=num_jobs[images.subset]) for images in subsets}
    try:
        for index, found in predict_packed([job for _, job in jobs], reader, plan, shape):
            images, job = jobs[index]
            subset = pending[images.subset]
            probabilities = subset.take(job, found)
            if subset.num_jobs == 0:
                yield images.subset, images.predictions(probabilities, subset.outlier_scores)
                pending.pop(images.subset).kept.close()
    finally:
        for subset in pending.values():
            subset.kept.close()
