"""Backbones are measured on a bounded, seeded sample of training images that no resharding changes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from orchestrator.cluster.ranking import MOST_IMAGES, MOST_PER_SUBSET, MOST_SUBSETS, sample_training_images
from orchestrator.data.catalogue import CATALOGUE_SCHEMA, SampleTable


def table_of(sizes: dict[str, int], *, fragments: int = 1) -> SampleTable:
    """Make a catalogue whose subsets have these many training images, and one for validation each."""
    rows = []
    for subset, size in sizes.items():
        for number in range(size + 1):
            texts = dict.fromkeys(("file", "reason", "content", "together"), "")
            rows.append(
                {
                    **texts,
                    "id": f"{subset}/{number}",
                    "subset": subset,
                    "label": "cat",
                    "split": "train" if number else "val",
                    "row": number,
                    "ok": number != 1,
                    "fragment": number % fragments,
                    "pixel_row": number,
                }
            )
    return SampleTable(pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA))


def counts_of(rows: pa.Table) -> dict[str, int]:
    names, counts = np.unique(rows.column("subset").to_pylist(), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def test_usable_training_images_alone_are_taken_and_no_more_than_the_bound() -> None:
    rows = sample_training_images(table_of({"large": 900, "small": 20}), seed=0)
    assert counts_of(rows) == {"large": MOST_PER_SUBSET, "small": 19}
    assert set(rows.column("split").to_pylist()) == {"train"} and all(rows.column("ok").to_pylist())


def test_many_subsets_share_the_bound_and_the_largest_come_first() -> None:
    sizes = {f"camera {number:03}": 60 + number for number in range(80)}
    counts = counts_of(sample_training_images(table_of(sizes), seed=0))
    assert list(counts) == sorted(sizes, key=lambda name: sizes[name])[-MOST_SUBSETS:]
    assert sum(counts.values()) <= MOST_IMAGES


def test_the_sample_depends_on_the_seed_and_not_on_the_sharding() -> None:
    one, other, reseeded = (
        sample_training_images(table_of({"large": 900}, fragments=fragments), seed=seed).column("id").to_pylist()
        for fragments, seed in ((1, 0), (7, 0), (1, 1))
    )
    assert one == other and set(one) != set(reseeded)


def test_data_without_training_images_gives_an_empty_sample() -> None:
    assert sample_training_images(table_of({}), seed=0).num_rows == 0
