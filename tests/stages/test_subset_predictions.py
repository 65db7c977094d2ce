"""What is asked of subsets' models, and how their answers are parted: without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.data.scratch import scratch_rows
from orchestrator.evaluation.parts import whole
from orchestrator.stages import subset_predictions
from orchestrator.stages.subset_predictions import SubsetImages


def some_rows(first: int, count: int) -> pa.Table:
    """Give rows of two files in turn."""
    numbers = range(first, first + count)
    return pa.table(
        {
            "id": [f"image {number}" for number in numbers],
            "subset": ["north"] * count,
            "together": [""] * count,
            "label": [("cat", "dog")[number % 2] for number in numbers],
            "fragment": [number % 2 for number in numbers],
            "row": list(numbers),
        }
    )


def some_images() -> SubsetImages:
    return SubsetImages(
        subset="north",
        model_uri="/model",
        classes=["cat", "dog"],
        validation=some_rows(0, 5),
        test=some_rows(5, 7),
    )


@pytest.mark.parametrize(("most", "num_jobs"), [(100, 1), (6, 2), (7, 2), (4, 2)])
def test_jobs_hold_all_rows_once_and_no_more_than_they_may(
    most: int, num_jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subset_predictions, "PART_ROWS", most)
    jobs = some_images().jobs()
    assert len(jobs) == num_jobs and {job.model_uri for job in jobs} == {"/model"}
    rows = [pa.concat_tables(job.blocks) for job in jobs]
    # A block is never cut.
    assert all(found.num_rows <= max(most, 6) for found in rows)
    every = pa.concat_tables(rows).sort_by("position")
    assert every["position"].to_pylist() == list(range(12)) == every["row"].to_pylist()


def test_outlier_scores_are_parted_as_the_answers_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scores = np.random.default_rng(1).random(12)
    with scratch_rows(12, 2, np.float32) as kept, scratch_rows(12, 1, np.float64) as outlying:
        outlying.put(np.arange(12), scores[:, None])
        found = some_images().predictions(kept, outlying)
        parts = [whole(split).outlier_scores for split in (found.validation, found.test)]
        assert whole(some_images().predictions(kept).test).outlier_scores is None
    np.testing.assert_array_equal(np.concatenate([part for part in parts if part is not None]), scores)


def test_answers_are_parted_by_split_in_the_catalogues_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(subset_predictions, "PART_ROWS", 6)
    outputs = np.random.default_rng(0).random((12, 2)).astype(np.float32)
    with scratch_rows(12, 2, np.float32) as kept:
        # Jobs may end in any order.
        for job in reversed(some_images().jobs()):
            rows = pa.concat_tables(job.blocks)["row"].to_numpy()
            kept.put(job.places, outputs[rows])
        found = some_images().predictions(kept)
        validation, test = whole(found.validation), whole(found.test)
    assert list(validation.ids) + list(test.ids) == [f"image {number}" for number in range(12)]
    np.testing.assert_array_equal(validation.probabilities, outputs[:5])
    np.testing.assert_array_equal(test.probabilities, outputs[5:])
    assert test.truth.tolist() == [1, 0, 1, 0, 1, 0, 1]
