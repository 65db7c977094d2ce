"""What a trial is predicted to take counts every training in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finetune_examples import some_hyperparameters

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.config import AugmentConfig
from orchestrator.data.pixels import PixelCache
from orchestrator.data.samples import CachedSamples
from orchestrator.finetune.companions import Companion
from orchestrator.records import CostFigures, EpochMetrics, Trial
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


FIGURES = CostFigures(
    decode_s=0.0,
    read_pixels_s=1e-3,
    forward_s=(0.5,),
    train_s=(0.1, 0.01),
    validate_s=(0.1, 0.01),
    activation_bytes=(0, 1000),
    read_bytes_per_s=1e9,
    write_bytes_per_s=1e9,
)


def test_what_a_source_adds_to_a_trial_is_its_steps_and_its_own_pass_through_the_frozen_stages(tmp_path: Path) -> None:
    low = some_group(tmp_path, "low", 20, 10)
    plans = [PLAN, replace(PLAN, depth=1)]
    alone = SharedInputs(
        samples={"low": low}, plans=plans, index=None, probe_seconds=0, heads_fit=True, figures=FIGURES
    )
    companion = Companion(samples=some_group(tmp_path, "source", 30, 0).train, batch_share=0.25)
    joint = replace(alone, samples={"low": replace(low, companion=companion)})
    for depth, once in ((0, 0.0), (1, 30 * 0.5)):
        recipe = some_hyperparameters(freeze_depth=depth, epochs=12)
        # A third as many source images as 12 x 20 target images, of which there are 30.
        added = 80 * FIGURES.train_s[depth] + (30 if depth else 80) * 1e-3 + once
        assert joint.predict("low", recipe) - alone.predict("low", recipe) == pytest.approx(added)
    idle = replace(low, companion=replace(companion, weight=0.0))
    assert replace(alone, samples={"low": idle}).predict("low", recipe) == alone.predict("low", recipe)


def test_prototypes_alone_look_at_each_source_image_once_however_long_the_recipe_is(tmp_path: Path) -> None:
    low = some_group(tmp_path, "low", 20, 10)
    companion = Companion(samples=some_group(tmp_path, "source", 30, 0).train, batch_share=0.9)
    alone = SharedInputs(
        samples={"low": low},
        plans=[PLAN, replace(PLAN, depth=1)],
        index=None,
        probe_seconds=0,
        heads_fit=True,
        figures=FIGURES,
    )
    joint = replace(alone, samples={"low": replace(low, companion=companion)})
    recipe = some_hyperparameters(freeze_depth=1, epochs=12, head="prototype")
    added = joint.predict("low", recipe) - alone.predict("low", recipe)
    assert added == pytest.approx(30 * (FIGURES.train_s[1] + 1e-3 + 0.5))


def test_a_source_that_does_not_fit_beside_the_target_passes_the_frozen_stages_at_every_draw(tmp_path: Path) -> None:
    low = some_group(tmp_path, "low", 20, 10)
    companion = Companion(samples=some_group(tmp_path, "source", 30, 0).train, batch_share=0.5)
    # Of 2 GiB the target's 30 images take 1.5.
    figures = FIGURES.model_copy(update={"activation_bytes": (0, 2**29 // 10)})
    inputs = SharedInputs(
        samples={"low": replace(low, companion=companion)},
        plans=[PLAN, replace(PLAN, depth=1)],
        index=None,
        probe_seconds=0.0,
        heads_fit=True,
        figures=figures,
    )
    recipe = some_hyperparameters(freeze_depth=1, epochs=5)
    assert inputs.predict("low", recipe) == pytest.approx(5 * 8.0 + 100 * (0.01 + 1e-3 + 0.5))


def test_a_recipe_that_varies_samples_anew_is_predicted_to_compute_its_frozen_stages(tmp_path: Path) -> None:
    kept = replace(PLAN, source="activations", epoch_s=2.0)
    inputs = SharedInputs(
        samples={"low": some_group(tmp_path, "low", 20, 10)}, plans=[kept], index=None, probe_seconds=0, heads_fit=True
    )
    inputs = replace(inputs, augment=AugmentConfig(views=0))
    for chosen, epoch_s in (({}, 2.0), ({"flip": False, "crop": 0.0}, 2.0), ({"flip": True}, 8.0)):
        recipe = some_hyperparameters(freeze_depth=0, epochs=5, **chosen)
        assert inputs.predict("low", recipe) == pytest.approx(5 * epoch_s)


def test_what_activations_are_kept_for_is_measured_by_the_trials_that_use_them(tmp_path: Path) -> None:
    kept = replace(PLAN, source="activations", epoch_s=1.0)
    inputs = SharedInputs(
        samples={"low": some_group(tmp_path, "low", 20, 10)}, plans=[kept], index=None, probe_seconds=0, heads_fit=True
    )
    inputs = replace(inputs, augment=AugmentConfig(views=0))
    trials = [
        Trial(
            trial_id=f"low-{number}",
            hyperparameters=some_hyperparameters(freeze_depth=0, flip=flip),
            status="complete",
            value=0.5,
            history=[EpochMetrics(epoch=1, train_loss=1.0, val_loss=1.0, val_accuracy=0.5)] * 5,
            seconds=seconds,
        )
        for number, (flip, seconds) in enumerate([(False, 5.0), (True, 50.0)])
    ]
    assert inputs.spent({"low": trials}) == {0: (5.0, 5.0)}
    uncached = replace(inputs, plans=[PLAN])
    assert uncached.spent({"low": trials}) == {0: (55.0, 10.0)}


def test_a_source_that_is_varied_anew_passes_the_frozen_stages_at_every_draw(tmp_path: Path) -> None:
    low = some_group(tmp_path, "low", 20, 10)
    companion = Companion(samples=some_group(tmp_path, "source", 30, 0).train, batch_share=0.5)
    alone = SharedInputs(
        samples={"low": low},
        plans=[PLAN, replace(PLAN, depth=1)],
        index=None,
        probe_seconds=0,
        heads_fit=True,
        figures=FIGURES,
        augment=AugmentConfig(views=0),
    )
    joint = replace(alone, samples={"low": replace(low, companion=companion)})
    recipe = some_hyperparameters(freeze_depth=1, epochs=12, erasing=0.5)
    added = 240 * (FIGURES.train_s[1] + 1e-3 + 0.5)
    assert joint.predict("low", recipe) - alone.predict("low", recipe) == pytest.approx(added)
