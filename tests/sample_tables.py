"""Assembled tables of samples, without files behind them."""

from __future__ import annotations

import pyarrow as pa

from orchestrator.data.catalogue import CATALOGUE_SCHEMA, SampleTable, assemble


def a_table(
    labels: list[str], *, pixels: str = "source", splits: tuple[str, ...] = ("train",), looks: tuple[int, ...] = ()
) -> SampleTable:
    """Make a sample of each label, each with pixels of its own, whose splits come in turns; `looks` are hashes."""
    plain = {"subset": "all", "file": "a", "reason": "", "copy_of": "", "content": "", "perceptual": "", "together": ""}
    rows = [
        {
            **plain,
            "id": f"{number:05}",
            "label": label,
            "split": splits[number % len(splits)],
            "split_given": False,
            "row": number,
            "ok": True,
            "pixels": f"{pixels}/{number}",
            "perceptual": f"{looks[number]:064x}" if looks else "",
            "fragment": 0,
            "pixel_row": number,
        }
        for number, label in enumerate(labels)
    ]
    return SampleTable(assemble([pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA)]))


def partly_cached(samples: SampleTable, *uncached: int) -> SampleTable:
    """Take some rows out of the cache of pixels."""
    table = samples.table
    rows = [-1 if number in uncached else row for number, row in enumerate(table.column("pixel_row").to_pylist())]
    return SampleTable(
        table.set_column(table.schema.get_field_index("pixel_row"), "pixel_row", pa.array(rows, pa.int32()))
    )
