"""Measures how far subsets lie from each other and from the source task, in features of the run's backbone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.cluster.ranking import shuffled_features
from orchestrator.cluster.workers import Workbench
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.multi_label import NO_LABEL
from orchestrator.data.reader import PixelReader
from orchestrator.diversity.distances import measure_distances
from orchestrator.diversity.vendi import unit_directions
from orchestrator.records import Catalogue, Distances

DISTANCES_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """Hold a catalogue with what reads its samples; `classes` are those that a task has of its labels."""

    catalogue: Catalogue
    samples: SampleTable
    reader: PixelReader
    classes: Sequence[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownSource:
    """Hold what is known of the source task without its images: features [n, d] of some, and the classes learnt."""

    features: NDArray[np.float32]
    classes: Sequence[str]


def distances_of(
    images: LabelledImages,
    source: KnownSource | None,
    workbench: Workbench,
    *,
    min_images: int,
    stall_timeout_s: float,
) -> Distances:
    """Measure the distances of subsets on a bounded sample of their training images."""
    # Of any number of labels an image has none that could leave it out.
    classes = [] if images.samples.multi_label else images.classes
    rows, features = shuffled_features(
        images.samples, images.reader, workbench, classes=classes, stall_timeout_s=stall_timeout_s
    )
    subsets, directions = np.asarray(rows.column("subset").to_pylist(), dtype=str), unit_directions(features)
    return measure_distances(
        {name: directions[subsets == name] for name in np.unique(subsets).tolist()},
        _classes_of(images.samples),
        source=None if source is None else unit_directions(source.features),
        source_classes=[] if source is None else source.classes,
        min_images=min_images,
        seed=workbench.seed,
    )


def _classes_of(samples: SampleTable) -> dict[str, list[str]]:
    """Give the classes that occur in the training images of every subset."""
    rows = samples.occurrences(samples.where(split="train"))
    classes: dict[str, list[str]] = defaultdict(list)
    for pair in rows.group_by(["subset", "label"]).aggregate([]).to_pylist():
        if samples.multi_label and pair["label"] == NO_LABEL:
            continue
        classes[pair["subset"]].append(pair["label"])
    return {name: sorted(found) for name, found in classes.items()}
