"""What a trial is predicted to take counts every training in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finetune_examples import some_hyperparameters

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.data.pixels import PixelCache
from orchestrator.data.samples import CachedSamples
from orchestrator.search.costs import DepthPlan
from orchestrator.stages.shared_inputs import SharedInputs

PLAN = DepthPlan(depth=0, source="pixels", epoch_s=8.0, uncached_epoch_s=8.0, build_s=0.0, stored_bytes=0, saving_s=0.0)


def some_group(directory: Path, name: str, num_train: int, num_validation: int) -> GroupSamples:
    def samples(count: int) -> CachedSamples:
        rows = np.zeros(count, dtype=np.int32)
        pixels = PixelCache.open(str(directory), rows, rows)
        return CachedSamples(labels=rows.astype(np.int64), keys=rows.astype(np.uint64), pixels=pixels)

    return GroupSamples(group=name, classes=("a",), train=samples(num_train), validation=samples(num_validation))


def test_a_trial_is_predicted_to_take_a_training_on_each_fold_and_a_run_of_a_race_one(tmp_path: Path) -> None:
    groups = {"low": some_group(tmp_path, "low", 20, 10), "high": some_group(tmp_path, "high", 60, 30)}
    inputs = SharedInputs(samples=groups, plans=[PLAN], index=None, probe_seconds=0.0, heads_fit=True)
    recipe = some_hyperparameters(freeze_depth=0, epochs=5)
    assert inputs.predict("low", recipe) == inputs.predict_run("low", recipe) == pytest.approx(5 * 8.0 / 4)
    folded = replace(inputs, folds={"low": 3})
    assert folded.predict("low", recipe) == pytest.approx(3 * inputs.predict("low", recipe))
    assert folded.predict_run("low", recipe) == inputs.predict_run("low", recipe)


def test_a_trial_with_a_source_beside_it_is_predicted_to_take_as_much_more_as_its_batches_are_larger(
    tmp_path: Path,
) -> None:
    groups = {"low": some_group(tmp_path, "low", 20, 10)}
    inputs = SharedInputs(samples=groups, plans=[PLAN], index=None, probe_seconds=0.0, heads_fit=True)
    recipe = some_hyperparameters(freeze_depth=0, epochs=5)
    assert replace(inputs, batch_growth=4 / 3).predict("low", recipe) == pytest.approx(5 * 8.0 * 4 / 3)
