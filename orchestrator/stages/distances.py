"""Measures how far subsets lie from each other, and they and groups from sources, in features of the run's backbone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orchestrator import storage
from orchestrator.cluster.ranking import shuffled_features
from orchestrator.cluster.workers import Workbench
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.multi_label import NO_LABEL
from orchestrator.data.reader import PixelReader
from orchestrator.diversity.distances import Source, measure_distances
from orchestrator.diversity.group_distances import SubsetRows, measure_group_distances
from orchestrator.diversity.source_features import SourceFeatures
from orchestrator.diversity.vendi import unit_directions
from orchestrator.records import Catalogue, Distances, GroupDistances, Groups, SourceKind
from orchestrator.runs import RunDirectory

DISTANCES_VERSION = 2
GROUP_DISTANCES_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """Hold a catalogue with what reads its samples; `classes` are those that a task has of its labels."""

    catalogue: Catalogue
    samples: SampleTable
    reader: PixelReader
    classes: Sequence[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownSource:
    """Hold what is known of a source without its images: features of some, and the classes of its task, if any.

    `uri` is its data, `path` where the features are below the run directory.
    """

    kind: SourceKind
    uri: str
    path: str
    features: NDArray[np.float32]
    classes: Sequence[str]

    @classmethod
    def read(
        cls, run_directory: RunDirectory, *, kind: SourceKind, uri: str, path: str, classes: Sequence[str]
    ) -> Self:
        """Read the features from below the run directory. Raises WeightsError when they are damaged."""
        return cls(kind=kind, uri=uri, path=path, features=_read(run_directory, path).features, classes=classes)


def distances_of(
    images: LabelledImages,
    sources: Sequence[KnownSource],
    workbench: Workbench,
    *,
    min_images: int,
    stall_timeout_s: float,
) -> tuple[Distances, SourceFeatures]:
    """Measure the distances of subsets on a bounded sample of their training images.

    Also gives the features of the sample, with subsets in the place of labels.
    """
    # Of any number of labels an image has none that could leave it out.
    classes = [] if images.samples.multi_label else images.classes
    rows, features = shuffled_features(
        images.samples, images.reader, workbench, classes=classes, stall_timeout_s=stall_timeout_s
    )
    sample = SourceFeatures(features=features, labels=rows.column("subset").to_pylist())
    found = measure_distances(
        _directions_by_name(sample),
        _classes_of(images.samples),
        sources=[
            Source(
                kind=source.kind,
                uri=source.uri,
                features=source.path,
                directions=unit_directions(source.features),
                classes=source.classes,
            )
            for source in sources
        ],
        min_images=min_images,
        seed=workbench.seed,
    )
    return found, sample


def group_distances_of(
    run_directory: RunDirectory, distances: Distances, groups: Groups, images: LabelledImages, *, seed: int
) -> GroupDistances:
    """Measure the distances of groups from every source, on the features that those of subsets were measured on."""
    if distances.features is None:
        return GroupDistances(sources=[])
    classes, counts = _classes_of(images.samples), {found.subset: found.train for found in images.catalogue.subsets}
    subsets = {
        name: SubsetRows(directions=rows, num_images=counts[name], classes=classes[name])
        for name, rows in _directions_by_name(_read(run_directory, distances.features)).items()
    }
    members = {group.name: group.subsets for group in groups.groups}
    return GroupDistances(
        sources=[
            measure_group_distances(
                members, subsets, source, unit_directions(_read(run_directory, source.features).features), seed=seed
            )
            for source in distances.sources
        ]
    )


def _read(run_directory: RunDirectory, path: str) -> SourceFeatures:
    uri = run_directory.path(path)
    return SourceFeatures.from_bytes(storage.read_bytes(uri), source=uri)


def _directions_by_name(sample: SourceFeatures) -> dict[str, NDArray[np.float64]]:
    names, directions = np.asarray(sample.labels, dtype=str), unit_directions(sample.features)
    return {name: directions[names == name] for name in np.unique(names).tolist()}


def _classes_of(samples: SampleTable) -> dict[str, list[str]]:
    """Give the classes that occur in the training images of every subset."""
    rows = samples.occurrences(samples.where(split="train"))
    classes: dict[str, list[str]] = defaultdict(list)
    for pair in rows.group_by(["subset", "label"]).aggregate([]).to_pylist():
        known = classes[pair["subset"]]
        if not samples.multi_label or pair["label"] != NO_LABEL:
            known.append(pair["label"])
    return {name: sorted(found) for name, found in classes.items()}
