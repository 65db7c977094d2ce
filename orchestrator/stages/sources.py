"""Makes of the source's catalogue what a group is trained together with, and what its scores are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.config import SourceConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.duplicates import copies_among
from orchestrator.data.identity import stable_fraction
from orchestrator.data.reader import BLOCK_ROWS, blocks_of, number_rows
from orchestrator.data.samples import CachedSamples
from orchestrator.data.streamed_source import READ_COLUMNS, StreamedSource
from orchestrator.errors import DataError
from orchestrator.finetune.companions import Companion
from orchestrator.records import Catalogue, SourceUse
from orchestrator.stages.distances import LabelledImages

# The standard error of an area under the curve is below 0.02 with as many.
_MOST_SCORED = 1024


def companion_of(
    source: LabelledImages, config: SourceConfig, classes: Sequence[str], target: SampleTable
) -> Companion:
    """Give the cached training images of the source, labelled by the outputs of a head for a group's classes.

    There is an output for every class of its training images, also of those that are not cached. Copies of the run's
    own images are left out, near ones where the run looks for them: what tests a model must not train it.
    Raises DataError when none is left.
    """
    table = source.samples
    positions = _training_positions(source, target)
    own = _own_classes(table, positions, config, classes)
    known = [*classes, *own] if config.has_task else list(table.classes())
    samples = CachedSamples.of(table, positions, source.reader.pixels_uri, known)
    if len(samples) == 0:
        raise DataError(
            "the source must have training images whose pixels are cached",
            value=0,
            remedy="Check source.classes and source.data: its split, max_cache_bytes, and copies of the run's images.",
        )
    if not config.has_task:
        # What a negative shows is of no account.
        samples = replace(samples, labels=_negatives(len(samples), config, classes))
    return Companion(
        samples=samples,
        num_extra=1 if config.as_negatives == "reject" else len(own),
        keeps_extra=config.as_negatives == "reject",
        batch_share=config.batch_share,
        weight=config.loss_weight,
        penalty=config.penalty,
        penalty_weight=config.penalty_weight,
        is_uniform=config.as_negatives == "outlier_exposure",
    )


def is_source_streamed(source: LabelledImages) -> bool:
    """Tell whether final trainings stream the source: some of its training images are not cached.

    Also where those are copies of the run's own images, which to find may take long.
    """
    table = source.samples
    return not table.are_cached(table.of_classes(table.where(split="train"), source.classes))


def streamed_source(
    source: LabelledImages, config: SourceConfig, classes: Sequence[str], target: SampleTable
) -> StreamedSource:
    """Give what `companion_of` would hold if all of it were cached."""
    table = source.samples
    positions, rows = _streamed_rows(source, target)
    if config.has_task:
        known = [*classes, *_own_classes(table, positions, config, classes)]
        targets = table.class_indices(positions, known)
    else:
        targets = _negatives(len(positions), config, classes)
    return StreamedSource.of(rows, targets, source.reader)


def training_rows(source: LabelledImages, target: SampleTable) -> pa.Table:
    """Give catalogue rows of the source's training images of its classes, but for those with pixels of a target's."""
    return source.samples.table.take(pa.array(_training_positions(source, target)))


def source_use(
    uri: str,
    config: SourceConfig,
    companion: Companion,
    classes: Sequence[str],
    streamed: StreamedSource | None = None,
) -> SourceUse:
    """Describe for a model's card what it was trained together with: the companion, or all that is streamed."""
    labelled, labels = config.has_task, companion.samples.labels if streamed is None else streamed.labels
    found = set(labels.tolist()) if labelled else set()
    return SourceUse(
        uri=uri,
        num_images=len(labels),
        num_searched=None if streamed is None else len(companion.samples),
        shared_classes=[label for index, label in enumerate(classes) if index in found],
        num_other_classes=companion.num_extra if labelled else 0,
        batch_share=config.batch_share,
        weight=config.loss_weight,
        penalty=config.penalty,
        penalty_weight=config.penalty_weight,
        as_negatives=config.as_negatives,
    )


def known_classes(config: SourceConfig, catalogue: Catalogue) -> list[str]:
    """Give the classes of a source that are wanted, by default all. Raises DataError for one that does not occur.

    Where no image needs a label, those without one are of the class with an empty name.
    """
    wanted = config.classes
    unknown = sorted(set(wanted or []) - set(catalogue.labels))
    if unknown:
        raise DataError(
            "source.classes must occur in the source data",
            value=", ".join(unknown),
            remedy=f"It has {', '.join(catalogue.labels[:10])}.",
        )
    unlabelled = [""] if config.labels == "none" else []
    return list(wanted or [*unlabelled, *catalogue.labels])


def unseen_blocks(source: LabelledImages, target: SampleTable, *, seed: int) -> tuple[list[pa.Table], list[str]]:
    """Give `unseen_images`, numbered, in blocks of one fragment each, and what each shares with its kin, in turn."""
    blocks = blocks_of(number_rows(unseen_images(source, target, seed=seed)), BLOCK_ROWS)
    return blocks, [name for block in blocks for name in block.column("together").to_pylist()]


def unseen_images(source: LabelledImages, target: SampleTable, *, seed: int) -> pa.Table:
    """Give catalogue rows of the source's validation and test images, at most 1,024, drawn by their identity."""
    positions = _positions(source.samples, ["val", "test"], source.classes, target)
    rows = source.samples.table.take(pa.array(positions))
    hashes = [stable_fraction(identity, seed) for identity in rows.column("id").to_pylist()]
    return rows.take(pa.array(np.sort(np.argsort(hashes, kind="stable")[:_MOST_SCORED])))


@lru_cache(maxsize=1)
def _streamed_rows(source: LabelledImages, target: SampleTable) -> tuple[NDArray[np.int64], pa.Table]:
    """Give the places of the training images, and of their rows what reading needs: once for all sets of classes."""
    positions = _training_positions(source, target)
    return positions, source.samples.table.select(READ_COLUMNS).take(pa.array(positions))


def _training_positions(source: LabelledImages, target: SampleTable) -> NDArray[np.int64]:
    return _positions(source.samples, ["train"], source.classes, target)


def _positions(
    table: SampleTable, splits: Sequence[str], classes: Sequence[str], target: SampleTable
) -> NDArray[np.int64]:
    positions = table.of_classes(np.sort(np.concatenate([table.where(split=split) for split in splits])), classes)
    chosen: NDArray[np.int64] = positions[~_copied(table, target)[positions]]
    return chosen


def _own_classes(
    table: SampleTable, positions: NDArray[np.int64], config: SourceConfig, classes: Sequence[str]
) -> list[str]:
    """Name the classes of these images that a group has not; of negatives there are none."""
    return sorted(set(table.classes(positions)) - set(classes)) if config.has_task else []


@lru_cache(maxsize=1)
def _copied(source: SampleTable, target: SampleTable) -> NDArray[np.bool_]:
    """Tell which rows of the source show a picture of the run's; near copies take long, and every group asks."""
    # Also what was left out of the target as a copy shows a picture that may be tested.
    return copies_among(source.table, target.table)


def _negatives(count: int, config: SourceConfig, classes: Sequence[str]) -> NDArray[np.int64]:
    """Give the labels of images that are all alike."""
    return np.full(count, len(classes) if config.as_negatives == "reject" else 0, dtype=np.int64)
