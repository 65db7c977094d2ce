"""Counts of subsets come sorted, whatever order they were counted in."""

from __future__ import annotations

from collections import Counter

from diversity_examples import label_table
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.diversity.subset_counts import SubsetCounts

LABELS = st.lists(st.sampled_from(["cat", "dog", "Ünder", "fox"]), min_size=1, max_size=9)


@given(st.dictionaries(st.sampled_from(["b", "a", "é", "aa"]), LABELS))
def test_subsets_and_their_categories_are_sorted(labels: dict[str, list[str]]) -> None:
    found = SubsetCounts.of(label_table(**labels), ["label"])
    assert found.subsets == sorted(labels)
    assert [list(counts.items()) for counts in found.by_subset()] == [
        sorted(Counter(labels[subset]).items()) for subset in found.subsets
    ]
    assert found.num_categories == len({label for names in labels.values() for label in names})


def test_combinations_of_columns_are_counted_without_their_names() -> None:
    counts = label_table(b=["cat", "dog", "cat"], a=["fox"])
    both = SubsetCounts.of(counts.append_column("again", counts.column("label")), ["label", "again"])
    assert (both.subsets, both.rows.counts.tolist(), both.rows.starts.tolist()) == (["a", "b"], [1, 2, 1], [0, 1])
    assert both.categories == []
