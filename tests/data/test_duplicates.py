from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from builders import ROW_SCHEMA, build_rows, class_image, encode_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from orchestrator.config import DataConfig
from orchestrator.data import duplicates
from orchestrator.data.catalogue import CATALOGUE_SCHEMA, assemble, bad_rows, data_fingerprint, examine, summarise
from orchestrator.data.duplicates import connect, copies_among, deduplicate
from orchestrator.data.identity import assign_split, split_key
from orchestrator.data.sources import list_fragments, read_fragment

Row = dict[str, Any]
Mode = Literal["none", "exact", "near"]
BUSY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
CONFIG = DataConfig(uri="unused", image="image", label="label", subset="subset", id="id")


def a_sample(id: str, picture: str, **fields: Any) -> Row:
    """Make a usable row; its split is by hash unless it is given."""
    row = {"subset": "north", "label": "cat", "together": "", "perceptual": "", **fields}
    split = row.get("split") or assign_split(split_key(id, row["together"]), CONFIG.split.fractions, 0)
    empty = {"file": "f", "row": 0, "ok": True, "reason": "", "copy_of": "", "fragment": 0, "pixel_row": 0, "tasks": []}
    own = {"id": id, "content": f"bytes of {id}", "pixels": picture, "split": split, "split_given": "split" in fields}
    return {**empty, **row, **own}


def looks(*flipped: int) -> str:
    """Give the hash of one picture with some of its bits flipped."""
    return f"{sum(1 << bit for bit in flipped):064x}"


def deduplicated(rows: list[Row], mode: Mode) -> tuple[list[Row], duplicates.CopyCounts]:
    table = assemble([pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA)])
    changed, counts = deduplicate(table, CONFIG.model_copy(update={"deduplicate": mode}), 0)
    assert changed.schema == CATALOGUE_SCHEMA
    return changed.to_pylist(), counts


def staying(rows: list[Row]) -> list[str]:
    return [row["id"] for row in rows if row["ok"]]


def seed_of_split(split: str, prefix: str) -> str:
    """Give an identity that begins so and whose hash is in this split."""
    names = (f"{prefix}{number}" for number in range(1000))
    return next(name for name in names if assign_split(f"id:{name}", CONFIG.split.fractions, 0) == split)


# Counting.


def test_without_deduplication_copies_are_named_and_counted_and_nothing_else_changes() -> None:
    rows = [
        a_sample("a", "p", split="train"),
        a_sample("b", "p", split="test"),
        a_sample("c", "p", subset="south", split="train", label="dog"),
        a_sample("d", "q", split="train"),
        a_sample("e", "q", split="train", ok=False, reason="the label is missing"),
    ]
    found, counts = deduplicated(rows, "none")
    assert [row.pop("copy_of") for row in found] == ["", "a", "a", "", ""]
    assert found == [{name: value for name, value in row.items() if name != "copy_of"} for row in in_order(rows)]
    exact = counts["exact_copies"]
    assert exact is not None and counts["near_copies"] is None
    assert (exact.copies, exact.copies_within_subsets) == (2, 1)
    assert (exact.pictures_across_splits, exact.pictures_of_several_labels) == (1, 1)


def in_order(rows: list[Row]) -> list[Row]:
    in_order: list[Row] = assemble([pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA)]).to_pylist()
    return in_order


def test_without_verification_nothing_is_known_of_copies() -> None:
    table = assemble([pa.Table.from_pylist([a_sample("a", ""), a_sample("b", "")], schema=CATALOGUE_SCHEMA)])
    same, counts = deduplicate(table, CONFIG.model_copy(update={"verify": "none"}), 0)
    assert same.equals(table)
    assert counts == {"exact_copies": None, "near_copies": None}


@pytest.mark.parametrize("mode", ["none", "exact", "near"])
def test_an_empty_table_has_no_copies(mode: Mode) -> None:
    found, counts = deduplicated([], mode)
    assert found == []
    assert counts["exact_copies"] is not None and counts["exact_copies"].copies == 0


# Which copy stays.


def test_of_a_subset_the_smallest_identity_stays_and_another_subset_keeps_its_own() -> None:
    rows = [a_sample("c", "p"), a_sample("a", "p"), a_sample("b", "p"), a_sample("d", "p", subset="south")]
    found, _ = deduplicated(rows, "exact")
    assert staying(found) == ["a", "d"]
    assert [row["reason"] for row in found] == ["", "a copy of a", "a copy of a", ""]
    assert [row["copy_of"] for row in found] == ["", "a", "a", "a"]


def test_equal_pixels_of_several_labels_are_all_bad_rows() -> None:
    rows = [a_sample("a", "p"), a_sample("b", "p", label="dog"), a_sample("c", "p"), a_sample("d", "q")]
    found, _ = deduplicated(rows, "exact")
    assert staying(found) == ["d"]
    assert {row["reason"] for row in found if not row["ok"]} == {"the same picture has several labels: cat, dog"}
    table = pa.Table.from_pylist(found, schema=CATALOGUE_SCHEMA)
    assert bad_rows(table).num_rows == summarise(table)["num_quarantined"] == 3


def test_an_image_without_a_label_does_not_contradict_one_that_has_one() -> None:
    rows = [
        a_sample("a", "p"),
        a_sample("b", "p", label=""),
        a_sample("c", "q", label=""),
        a_sample("d", "q", label=""),
    ]
    found, counts = deduplicated(rows, "exact")
    assert staying(found) == ["a", "b", "c"]
    assert len({row["split"] for row in found if row["id"] in "ab"}) == 1
    assert counts["exact_copies"] is not None and counts["exact_copies"].pictures_of_several_labels == 0


def test_near_looks_of_several_labels_stay_once_for_each_label_on_one_side() -> None:
    train, test = seed_of_split("train", "a"), seed_of_split("test", "b")
    rows = [
        a_sample(train, "p", perceptual=looks()),
        a_sample(test, "q", perceptual=looks(1), label="dog"),
        a_sample("c", "r", perceptual=looks(1, 2), label="dog"),
    ]
    found, counts = deduplicated(rows, "near")
    assert staying(found) == [train, test]
    assert [row["split"] for row in found if row["ok"]] == ["train", "train"]
    assert counts["exact_copies"] is not None and counts["exact_copies"].copies == 0
    assert counts["near_copies"] is not None and counts["near_copies"].copies == 2


def test_plain_pictures_are_told_by_their_pixels_alone() -> None:
    rows = [
        a_sample("a", "white"),
        a_sample("b", "black"),
        a_sample("c", "white"),
        a_sample("d", "p", perceptual=looks()),
    ]
    found, counts = deduplicated([*rows, a_sample("e", "q", perceptual=looks(3))], "near")
    assert staying(found) == ["a", "b", "d"]
    assert {row["id"]: row["copy_of"] for row in found} == {"a": "", "b": "", "c": "a", "d": "", "e": "d"}
    assert counts["near_copies"] is not None and counts["near_copies"].copies == 2
    alone, _ = deduplicated(rows[:3], "near")
    assert staying(alone) == ["a", "b"]


def test_chains_of_near_looks_are_one_picture_and_farther_ones_are_not() -> None:
    chain = [a_sample(name, name, perceptual=looks(*range(12 * place))) for place, name in enumerate("abc")]
    found, _ = deduplicated([*chain, a_sample("d", "d", perceptual=looks(*range(100)))], "near")
    assert staying(found) == ["a", "d"]


def test_copies_that_were_left_out_are_no_bad_rows_and_are_counted_by_subset() -> None:
    rows = [a_sample("a", "p"), a_sample("b", "p"), a_sample("c", "q", ok=False, reason="the label is missing")]
    found, _ = deduplicated(rows, "exact")
    table = pa.Table.from_pylist(found, schema=CATALOGUE_SCHEMA)
    summary = summarise(table)
    assert (summary["num_images"], summary["num_copies_left_out"], summary["num_quarantined"]) == (1, 1, 1)
    assert summary["quarantine_reasons"] == {"the label is missing": 1}
    assert [(found.copies_left_out, found.quarantined) for found in summary["subsets"]] == [(1, 1)]


# On which side.


def test_splits_that_the_data_names_stand_and_copies_of_what_is_held_out_go() -> None:
    rows = [
        a_sample("a", "p", split="train"),
        a_sample("b", "p", split="test"),
        a_sample("c", "p", split="val", subset="south"),
        a_sample("d", "q", split="train"),
        a_sample("e", "q", split="val"),
        a_sample("f", "r", split="train"),
        a_sample("g", "r", split="train", subset="south"),
    ]
    found, _ = deduplicated(rows, "exact")
    assert staying(found) == ["b", "e", "f", "g"]
    assert [row["split"] for row in found] == [row["split"] for row in rows]
    assert [row["copy_of"] for row in found] == ["b", "", "b", "e", "", "", "f"]


def test_what_is_kept_together_with_a_copy_goes_along() -> None:
    first = seed_of_split("train", "a")
    second = next(
        name for name in map(str, range(99)) if assign_split(f"together:{name}", CONFIG.split.fractions, 0) == "test"
    )
    rows = [
        a_sample(first, "p"),
        a_sample("b", "p", subset="south", together=second),
        a_sample("c", "q", together=second),
        a_sample("d", "r", together="another"),
    ]
    found, _ = deduplicated(rows, "exact")
    splits = {row["id"]: row["split"] for row in found}
    assert splits[first] == splits["b"] == splits["c"] == "train"
    assert len({split_key(row["id"], row["together"]) for row in found[:3]}) == 1
    assert found[3] == rows[3]


def test_the_fingerprint_of_the_data_follows_what_stays_and_where() -> None:
    rows = [a_sample("a", "p"), a_sample("b", "p"), a_sample("c", "q"), a_sample("d", "q", subset="south")]
    tables = [pa.Table.from_pylist(deduplicated(rows, mode)[0], schema=CATALOGUE_SCHEMA) for mode in ("none", "exact")]
    linked = pa.Table.from_pylist(deduplicated(rows[2:], "exact")[0], schema=CATALOGUE_SCHEMA)
    alone = pa.Table.from_pylist(deduplicated(rows[2:], "none")[0], schema=CATALOGUE_SCHEMA)
    assert data_fingerprint(tables[0]) != data_fingerprint(tables[1])
    assert data_fingerprint(linked) != data_fingerprint(alone)


ANY_SAMPLES = st.lists(
    st.fixed_dictionaries(
        {
            "picture": st.sampled_from("pqrs"),
            "subset": st.sampled_from(["north", "south", "west"]),
            "label": st.sampled_from(["cat", "cat", "cat", "dog"]),
            "together": st.sampled_from(["", "", "s1", "s2", "s3"]),
            "bits": st.lists(st.integers(0, 255), max_size=20, unique=True),
        }
    ),
    max_size=14,
)
SPLITS = st.none() | st.lists(st.sampled_from(["train", "val", "test"]), min_size=14, max_size=14)


def generated(samples: list[dict[str, Any]], splits: list[str] | None) -> list[Row]:
    """Make rows; those of equal pixels look the same, others may be near."""
    bits = {sample["picture"]: sample["bits"] for sample in samples}
    return [
        a_sample(
            f"{place:02}", sample["picture"], subset=sample["subset"], label=sample["label"],
            together=sample["together"], perceptual=looks(*bits[sample["picture"]]),
            **({} if splits is None else {"split": splits[place]}),
        )
        for place, sample in enumerate(samples)
    ]  # fmt: skip


@given(ANY_SAMPLES, SPLITS, st.sampled_from(["exact", "near"]), st.randoms())
@settings(BUSY_MACHINE, max_examples=80)
def test_one_of_each_picture_stays_on_one_side_whatever_the_order(
    samples: list[dict[str, Any]], splits: list[str] | None, mode: Mode, order: random.Random
) -> None:
    rows = generated(samples, splits)
    found, _ = deduplicated(rows, mode)
    assert [row["id"] for row in found] == [row["id"] for row in rows]

    labels = defaultdict(set)
    for row in rows:
        labels[row["pixels"]].add(row["label"])
    kept = [row for row in found if row["ok"]]
    for picture, of_picture in labels.items():
        same = [row for row in kept if row["pixels"] == picture]
        assert not same or len(of_picture) == 1
        assert len({row["subset"] for row in same}) == len(same)
        assert len({row["split"] for row in same}) <= 1
        # A near picture may stand for it, an exact one is never lost.
        assert len(of_picture) > 1 or same or mode == "near"
    ids = {row["id"] for row in kept}
    for row in found:
        assert row["ok"] or row["copy_of"] in ids or len(labels[row["pixels"]]) > 1
    if splits is not None:
        assert [row["split"] for row in found] == splits[: len(found)]
    else:
        units = defaultdict(set)
        for before, after in zip(rows, found, strict=True):
            if after["ok"] and before["together"]:
                units[before["together"]].add(after["split"])
        assert all(len(sides) == 1 for sides in units.values())

    shuffled = order.sample(rows, len(rows))
    resharded = [{**row, "file": f"other-{place % 3}", "row": place} for place, row in enumerate(shuffled)]
    again, _ = deduplicated(resharded, mode)
    places = ("file", "row")
    assert [without(row, places) for row in again] == [without(row, places) for row in found]


def without(row: Row, names: tuple[str, ...]) -> Row:
    return {name: value for name, value in row.items() if name not in names}


# Components.

EDGES = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20)


def pieces(edges: list[tuple[int, int]], size: int) -> list[duplicates.Pairs]:
    arrays = [np.array(edges[i : i + size], dtype=np.int64).reshape(-1, 2) for i in range(0, len(edges), size)]
    return [(array[:, 0], array[:, 1]) for array in arrays]


def sets_of(labels: list[int]) -> set[frozenset[int]]:
    return {frozenset(i for i, label in enumerate(labels) if label == one) for one in labels}


@given(EDGES, st.integers(1, 20), st.randoms())
@BUSY_MACHINE
def test_components_do_not_depend_on_the_order_of_edges_and_hold_every_node(
    edges: list[tuple[int, int]], size: int, order: random.Random
) -> None:
    expected = list(range(12))
    for a, b in edges:
        expected = [expected[a] if label == expected[b] else label for label in expected]
    for shuffled in (edges, order.sample(edges, len(edges))):
        assert sets_of(connect(12, pieces(shuffled, size)).tolist()) == sets_of(expected)


def test_components_are_the_same_when_the_pairs_do_not_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = [(0, 1), (4, 5), (1, 2), (6, 7), (5, 6), (2, 0)]
    whole = connect(9, pieces(edges, 1)).tolist()
    monkeypatch.setattr(duplicates, "_MOST_PAIRS", 1)
    assert sets_of(connect(9, pieces(edges, 1)).tolist()) == sets_of(whole) == {
        frozenset({0, 1, 2}), frozenset({3}), frozenset({4, 5, 6, 7}), frozenset({8}),
    }  # fmt: skip


# From images.


def test_a_picture_in_another_lossless_format_is_an_exact_copy_and_a_mirrored_one_is_none(
    tmp_path: Path, parquet_config: Callable[..., DataConfig], make_catalogue: Callable[..., pa.Table]
) -> None:
    picture = class_image("cat", np.random.default_rng(0), 32)
    images = {"a": encode_image(picture), "b": encode_image(picture, "BMP"), "c": encode_image(picture[:, ::-1])}
    rows = [{"image": image, "label": "cat", "subset": "north", "id": id} for id, image in images.items()]
    pq.write_table(pa.Table.from_pylist(rows, schema=ROW_SCHEMA), tmp_path / "a.parquet")
    config = parquet_config(tmp_path, deduplicate="near")
    table, counts = deduplicate(make_catalogue(config), config, 0)
    assert staying(table.to_pylist()) == ["a", "c"]
    assert counts["exact_copies"] == counts["near_copies"]


def test_looks_are_hashed_only_where_near_copies_are_looked_for(
    tmp_path: Path, parquet_config: Callable[..., DataConfig], make_catalogue: Callable[..., pa.Table]
) -> None:
    rows = build_rows(subsets={"north": {"cat": 3}}, image_px=8)
    pq.write_table(pa.Table.from_pylist(rows, schema=ROW_SCHEMA), tmp_path / "a.parquet")
    for mode, length in (("none", 0), ("exact", 0), ("near", 64)):
        hashes = make_catalogue(parquet_config(tmp_path, deduplicate=mode)).column("perceptual").to_pylist()
        assert {len(text) for text in hashes} == {length}


def test_looks_are_hashed_for_others_too(tmp_path: Path, parquet_config: Callable[..., DataConfig]) -> None:
    rows = build_rows(subsets={"north": {"cat": 3}}, image_px=8)
    pq.write_table(pa.Table.from_pylist(rows, schema=ROW_SCHEMA), tmp_path / "a.parquet")
    config = parquet_config(tmp_path)
    [fragment] = list_fragments(config)
    table = read_fragment(fragment, config, with_image=True)
    found, _ = examine(table, config, 0, 8, "crop", 0, 0.0, with_looks=True)
    assert {len(text) for text in found.column("perceptual").to_pylist()} == {64}


# Copies in other data.


def rows_of(*samples: Row) -> pa.Table:
    return assemble([pa.Table.from_pylist(list(samples), schema=CATALOGUE_SCHEMA)])


def test_what_looks_like_an_image_of_other_data_is_a_copy_of_it() -> None:
    others = rows_of(a_sample("a", "p", perceptual=looks()), a_sample("b", "white"), a_sample("bad", ""))
    table = rows_of(
        a_sample("0 never opened", ""),
        a_sample("1", "p", perceptual=looks()),
        a_sample("2", "q", perceptual=looks(*range(10))),
        a_sample("3 of a chain", "r", perceptual=looks(*range(20))),
        a_sample("4", "s", perceptual=looks(*range(100))),
        a_sample("5", "white"),
        a_sample("6", "black"),
        a_sample("7 never opened", ""),
    )
    assert copies_among(table, others).tolist() == [False, True, True, True, False, True, False, False]


def test_without_looks_on_one_side_copies_have_the_same_pixels() -> None:
    hashed = rows_of(a_sample("a", "p", perceptual=looks()), a_sample("b", "q", perceptual=looks(200)))
    plain = rows_of(a_sample("1", "p"), a_sample("2", "r"), a_sample("3", ""))
    assert copies_among(plain, hashed).tolist() == [True, False, False]
    assert copies_among(hashed, plain).tolist() == [True, False]
