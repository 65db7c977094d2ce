"""Extracts the features of a bounded sample of training images in parallel, one backbone at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from orchestrator.cluster.passes import PassPlan, run_pass
from orchestrator.cluster.workers import Workbench
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.identity import stable_fraction
from orchestrator.data.reader import PixelReader, blocks_of, number_rows
from orchestrator.data.sampling import lowest_hashes
from orchestrator.diversity.source_features import SourceFeatures
from orchestrator.finetune.classifier import extract_features

MOST_IMAGES = 4096
MOST_PER_SUBSET = 256
MOST_SUBSETS = 64
SOURCE_IMAGES = 1024
"""The most images of a source, which has no subsets: it must give several samples of as many images as a subset has."""

_MAX_ROWS = 128


def sample_training_images(samples: SampleTable, *, seed: int, most_per_subset: int = MOST_PER_SUBSET) -> pa.Table:
    """Take the rows of a uniform sample of each subset's training images, in the catalogue's order.

    At most `most_per_subset` of each, and at most 4,096 of the 64 largest subsets: those whose identity hashes lowest.
    """
    positions = samples.where(split="train")
    subsets = np.asarray(samples.table.column("subset").take(pa.array(positions)).to_pylist(), dtype=str)
    names, counts = np.unique(subsets, return_counts=True)
    largest = names[np.argsort(-counts, kind="stable")[:MOST_SUBSETS]]
    most = min(most_per_subset, MOST_IMAGES // max(1, len(largest)))
    kept = lowest_hashes(samples.table, positions[np.isin(subsets, largest)], most, seed=seed)
    return samples.table.take(pa.array(kept))


def features_of(
    rows: pa.Table, reader: PixelReader, workbench: Workbench, *, stall_timeout_s: float
) -> NDArray[np.float32]:
    """Give the features [n, d] of catalogue rows under the workbench's backbone, in the order of the rows."""
    blocks = blocks_of(number_rows(rows), _MAX_ROWS)
    extract = _Extract(reader, workbench)
    run = PassPlan(what="the extraction of features", stall_timeout_s=stall_timeout_s)
    features = np.zeros((rows.num_rows, workbench.backbone.feature_dim), dtype=np.float32)
    for block, found in zip(blocks, run_pass(blocks, extract, run), strict=True):
        features[np.asarray(block.column("position"))] = found
    return features


def shuffled_features(
    samples: SampleTable,
    reader: PixelReader,
    workbench: Workbench,
    *,
    classes: Sequence[str],
    most_per_subset: int = MOST_PER_SUBSET,
    stall_timeout_s: float,
) -> tuple[pa.Table, NDArray[np.float32]]:
    """Give sampled training rows of some classes in random order, and their features [n, d]; of all without classes."""
    table = samples.table
    if classes:
        # Before sampling: of a source of many classes few images may be of the task's.
        table = table.filter(pc.is_in(table.column("label"), value_set=pa.array(classes, pa.string())))
    rows = sample_training_images(SampleTable(table), seed=workbench.seed, most_per_subset=most_per_subset)
    hashes = [stable_fraction(identity, workbench.seed) for identity in rows.column("id").to_pylist()]
    rows = rows.take(pa.array(np.argsort(hashes, kind="stable")))
    return rows, features_of(rows, reader, workbench, stall_timeout_s=stall_timeout_s)


def source_features(
    table: pa.Table, reader: PixelReader, workbench: Workbench, *, classes: Sequence[str], stall_timeout_s: float
) -> SourceFeatures:
    """Give the features of at most 1,024 training images of a source's catalogue table, with their labels.

    They are a uniform sample: a source is one domain, whatever subsets it has of its own.
    """
    whole = pa.array([""] * table.num_rows, pa.string())
    rows, features = shuffled_features(
        SampleTable(table.set_column(table.column_names.index("subset"), "subset", whole)),
        reader,
        workbench,
        classes=classes,
        most_per_subset=SOURCE_IMAGES,
        stall_timeout_s=stall_timeout_s,
    )
    return SourceFeatures(features=features.astype(np.float32), labels=rows.column("label").to_pylist())


@dataclass(frozen=True)
class _Extract:
    """Extract the features of one block of catalogue rows in a worker."""

    reader: PixelReader
    workbench: Workbench

    def __call__(self, block: pa.Table) -> NDArray[np.float32]:
        pixels, spec = self.reader.read(block), self.workbench.backbone.spec
        return extract_features(self.workbench.feature_extractor(), spec, pixels, device="cpu")
