"""Measures how far subsets lie from each other and from the source task, in features of the run's backbone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from orchestrator.cluster.ranking import MOST_PER_SUBSET, features_of, sample_training_images
from orchestrator.cluster.workers import Workbench
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.identity import stable_fraction
from orchestrator.data.reader import PixelReader
from orchestrator.diversity.distances import measure_distances
from orchestrator.diversity.vendi import unit_directions
from orchestrator.records import Catalogue, Distances

DISTANCES_VERSION = 1

# The source has no subsets: it must give several samples of as many images as a subset has.
_OF_SOURCE = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """Hold a catalogue with what reads its samples; `classes` are those that a task has of its labels."""

    catalogue: Catalogue
    samples: SampleTable
    reader: PixelReader
    classes: Sequence[str]


def distances_of(
    images: LabelledImages,
    source: LabelledImages | None,
    workbench: Workbench,
    *,
    min_images: int,
    stall_timeout_s: float,
) -> Distances:
    """Measure the distances of subsets on a bounded sample of their training images."""
    seed = workbench.seed
    rows, directions = _directions(images, workbench, stall_timeout_s)
    subsets = np.asarray(rows.column("subset").to_pylist(), dtype=str)
    return measure_distances(
        {name: directions[subsets == name] for name in np.unique(subsets).tolist()},
        _classes_of(images.samples),
        source=None if source is None else _directions(source, workbench, stall_timeout_s, _OF_SOURCE)[1],
        source_classes=[] if source is None else source.classes,
        min_images=min_images,
        seed=seed,
    )


def _classes_of(samples: SampleTable) -> dict[str, list[str]]:
    """Give the classes that occur in the training images of every subset."""
    rows = samples.table.take(pa.array(samples.where(split="train")))
    classes: dict[str, list[str]] = defaultdict(list)
    for pair in rows.group_by(["subset", "label"]).aggregate([]).to_pylist():
        classes[pair["subset"]].append(pair["label"])
    return {name: sorted(found) for name, found in classes.items()}


def _directions(
    images: LabelledImages, workbench: Workbench, stall_timeout_s: float, most_per_subset: int = MOST_PER_SUBSET
) -> tuple[pa.Table, NDArray[np.float64]]:
    """Give sampled rows in random order, and the directions [n, d + 1] of their features."""
    table = images.samples.table
    # Before sampling: of a source of many classes few images may be of the task's.
    of_task = table.filter(pc.is_in(table.column("label"), value_set=pa.array(images.classes, pa.string())))
    rows = sample_training_images(SampleTable(of_task), seed=workbench.seed, most_per_subset=most_per_subset)
    hashes = [stable_fraction(identity, workbench.seed) for identity in rows.column("id").to_pylist()]
    rows = rows.take(pa.array(np.argsort(hashes, kind="stable")))
    return rows, unit_directions(features_of(rows, images.reader, workbench, stall_timeout_s=stall_timeout_s))
