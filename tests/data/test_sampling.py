"""Some of each subset's samples are taken by their identity alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.identity import stable_fraction
from orchestrator.data.sampling import lowest_hashes

SUBSETS = st.lists(st.sampled_from(["north", "south", "west"]), max_size=40)


def a_table(subsets: list[str]) -> pa.Table:
    return pa.table(
        {"id": [f"image {number}" for number in range(len(subsets))], "subset": pa.array(subsets, pa.string())}
    )


@given(SUBSETS, st.integers(1, 12), st.integers(0, 3))
def test_each_subset_keeps_those_whose_identities_hash_lowest(subsets: list[str], most: int, seed: int) -> None:
    table, positions = a_table(subsets), np.arange(len(subsets))[::-1]
    kept = lowest_hashes(table, positions, most, seed=seed)
    assert kept.tolist() == [place for place in positions.tolist() if place in set(kept.tolist())]
    for name in set(subsets):
        members = [place for place in range(len(subsets)) if subsets[place] == name]
        by_hash = sorted(members, key=lambda place: stable_fraction(f"image {place}", seed))
        assert set(by_hash[:most]) == {place for place in kept.tolist() if subsets[place] == name}


def test_subsets_that_come_or_go_change_nothing_for_the_others() -> None:
    alone = lowest_hashes(a_table(["north"] * 20), np.arange(20), 5, seed=0)
    together = lowest_hashes(a_table(["north"] * 20 + ["south"] * 30), np.arange(50), 5, seed=0)
    assert [place for place in together.tolist() if place < 20] == alone.tolist()
