"""Holds decoded images of a PACS domain: fixed ones to judge by, and draws of the others to train on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.config import SplitFractions
from orchestrator.data.decoding import decode_image, resize_image
from orchestrator.data.identity import assign_split, sample_keys

IMAGE_SIZE = 96
# Halves of a domain: photo, the smallest, has 1,670 images.
_FRACTIONS = SplitFractions(val=0.15, test=0.35)


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySamples:
    """Hold decoded samples in memory; `labels` are class indices [n], or indicators of any number of labels [n, K]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | NDArray[np.float32]
    keys: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Give the pixels at positions."""
        return self.pixels[positions]

    def chosen(self, positions: NDArray[np.int64]) -> ArraySamples:
        """Give a part of the samples."""
        return ArraySamples(pixels=self.pixels[positions], labels=self.labels[positions], keys=self.keys[positions])

    def drawn(self, most: int, seed: int) -> ArraySamples:
        """Draw at most `most` samples."""
        return self.chosen(np.random.default_rng(seed).permutation(len(self))[:most])

    def drawn_per_class(self, count: int, seed: int) -> ArraySamples:
        """Draw `count` samples of every class."""
        order = np.random.default_rng(seed).permutation(len(self))
        of_class = [order[self.labels[order] == label][:count] for label in np.unique(self.labels)]
        return self.chosen(np.concatenate(of_class))


@dataclass(frozen=True, kw_only=True, eq=False)
class Domain:
    """Hold a domain: `pool` is what trainings draw from."""

    classes: tuple[str, ...]
    pool: ArraySamples
    validation: ArraySamples
    test: ArraySamples


def read_domain(data: Path, name: str, *, validation: int, test: int, image_size: int = IMAGE_SIZE) -> Domain:
    """Decode the shards of a domain; at most so many images judge."""
    shards = sorted(data.glob(f"{name}-*.parquet"))
    if not shards:
        raise SystemExit(f"there are no shards {name}-*.parquet in {data}")
    table = pa.concat_tables([pq.read_table(shard, columns=["image", "label", "path"]) for shard in shards])
    # The shards are sorted by class.
    rows = table.take(pa.array(np.random.default_rng(0).permutation(table.num_rows))).to_pylist()
    classes = tuple(sorted({row["label"] for row in rows}))
    splits = np.array([assign_split(row["path"], _FRACTIONS, 0) for row in rows])
    places = {split: np.flatnonzero(splits == split) for split in ("train", "val", "test")}
    places |= {"val": places["val"][:validation], "test": places["test"][:test]}
    pool, judge, held_out = (_decoded([rows[i] for i in found], classes, image_size) for found in places.values())
    return Domain(classes=classes, pool=pool, validation=judge, test=held_out)


def _decoded(rows: list[dict[str, object]], classes: tuple[str, ...], image_size: int) -> ArraySamples:
    return ArraySamples(
        pixels=np.stack([resize_image(decode_image(row["image"]), image_size, "crop") for row in rows]),
        labels=np.array([classes.index(row["label"]) for row in rows], dtype=np.int64),
        keys=sample_keys([row["path"] for row in rows]),
    )
