"""A trial is judged on the split as it is, or by its mean over folds of which each is trained on without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from distributed_search import some_samples
from finetune_examples import a_spec
from workbenches import random_workbench

from orchestrator.cluster.group_samples import GroupSamples, KeptDepth
from orchestrator.cluster.trials import describe_outcome, run_heads, run_trial
from orchestrator.cluster.workers import Workbench
from orchestrator.config import AugmentConfig
from orchestrator.data.activations import ActivationStore, StoredActivations
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import Classifier, new_classifier
from orchestrator.finetune.contracts import Layout
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.prefix import layouts, prefix_rows
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import EpochMetrics, Hyperparameters, RaceRun, Trial
from orchestrator.search.assignments import Assignment, Member
from orchestrator.search.stopping import StoppingRule

NUM_FOLDS = 3


@pytest.fixture
def bench() -> Workbench:
    return random_workbench(a_spec(image_size=32))


@pytest.fixture
def samples(tmp_path: Path) -> GroupSamples:
    """Ninety images for training and thirty for validation, of which always four in a row belong together."""
    found = some_samples(tmp_path / "pixels")
    return replace(found, units=(np.arange(120) // 4).astype(np.uint64))


def a_recipe(freeze_depth: int = 1, epochs: int = 3) -> Hyperparameters:
    return Hyperparameters(
        freeze_depth=freeze_depth, learning_rate=3e-3, epochs=epochs, batch_size=16, optimizer="adam", weight_decay=0.0
    )


def assignment(*recipes: Hyperparameters, kind: str = "trial", race: RaceRun | None = None) -> Assignment:
    members = tuple(Member(name=f"only-{n}", number=n, hyperparameters=recipe) for n, recipe in enumerate(recipes))
    return Assignment(kind="heads" if kind == "heads" else "trial", group="only", members=members, seconds=1, race=race)


def a_trial(bench: Workbench, data: GroupSamples, recipe: Hyperparameters) -> tuple[Trial, list[EpochMetrics]]:
    told: list[EpochMetrics] = []
    return run_trial(assignment(recipe), data, bench, "cpu", on_epoch=told.append), told


def alone(bench: Workbench, part: GroupSamples, recipe: Hyperparameters) -> list[EpochMetrics]:
    return fine_tune(
        bench.classifier(len(part.classes)),
        bench.backbone.spec,
        part.train,
        part.validation,
        recipe,
        bench.settings("cpu"),
        activations=part.activations(recipe.freeze_depth),
    ).history


def with_kept(bench: Workbench, data: GroupSamples, directory: Path, depth: int) -> GroupSamples:
    """Store what the frozen stages give for all samples, one entry for both splits."""
    spec, settings = bench.backbone.spec, bench.settings("cpu")
    stages = bench.pretrained().stages
    pixels = np.concatenate([part.take(np.arange(len(part))) for part in (data.train, data.validation)])
    rows = prefix_rows(stages, pixels, [depth], spec, settings, {depth: "fp32"})[depth]
    store = ActivationStore(uri=str(directory), max_bytes=2**30)
    store.write("0" * 32, rows)
    layout: Layout = layouts(stages, spec, settings, [depth])[depth]

    def stored(start: int, stop: int) -> StoredActivations:
        places = np.arange(start, stop, dtype=np.int32)
        return StoredActivations(
            store=store,
            entries=(("0" * 32,),),
            shards=np.zeros_like(places),
            rows=places,
            width=rows.shape[1],
            dtype="float32",
        )

    kept = KeptDepth(layout=layout, dtype="fp32", train=stored(0, 90), validation=stored(90, 120), pool=stored(0, 120))
    return replace(data, kept={depth: kept})


def test_folds_cover_the_pool_once_and_train_on_nothing_of_a_unit_that_they_judge(samples: GroupSamples) -> None:
    parts = samples.with_folds(NUM_FOLDS, seed=0).parts()
    assert len(parts) == NUM_FOLDS
    assert sorted(np.concatenate([part.validation.keys for part in parts]).tolist()) == list(range(120))
    for part in parts:
        assert sorted([*part.train.keys.tolist(), *part.validation.keys.tolist()]) == list(range(120))
        assert not set((part.train.keys // 4).tolist()) & set((part.validation.keys // 4).tolist())
        # Keys are the rows of the pixel cache here, and tell the classes: all that was selected went along.
        np.testing.assert_array_equal(part.train.labels, part.train.keys % 3)
        np.testing.assert_array_equal(part.validation.pixels.rows, part.validation.keys)
        assert len(part.folds) == 0 and len(part.units) == 120


def test_the_same_seed_gives_the_same_folds(samples: GroupSamples) -> None:
    first, again, other = (samples.with_folds(NUM_FOLDS, seed=seed).folds for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_value_and_its_standard_error_are_those_of_separate_trainings(
    bench: Workbench, samples: GroupSamples
) -> None:
    data, recipe = samples.with_folds(NUM_FOLDS, seed=0), a_recipe()
    trial, told = a_trial(bench, data, recipe)
    found = np.array([[m.val_accuracy for m in alone(bench, part, recipe)] for part in data.parts()])
    means = found.mean(axis=0)
    assert [metrics.val_accuracy for metrics in trial.history] == pytest.approx(means, abs=1e-15)
    assert trial.value == pytest.approx(means.max(), abs=1e-15)
    losses = [metrics.val_loss for metrics in trial.history]
    best = max(range(len(means)), key=lambda epoch: (trial.history[epoch].val_accuracy, -losses[epoch]))
    assert trial.standard_error == pytest.approx(found[:, best].std(ddof=1) / np.sqrt(NUM_FOLDS))
    # The driver is told of every epoch but the last, by its mean.
    assert told == trial.history[:-1]
    (line,) = describe_outcome(assignment(recipe), [trial], "val_accuracy")
    assert f"(standard error {trial.standard_error:.3f})" in line


def test_one_fold_is_the_split_as_it_is_bitwise(bench: Workbench, samples: GroupSamples) -> None:
    one = samples.with_folds(1, seed=0)
    assert one.parts() == [one]
    trial, _ = a_trial(bench, one, a_recipe())
    assert trial.history == alone(bench, samples, a_recipe())
    assert trial.standard_error is None


def test_re_splits_never_judge_by_images_whose_labels_the_weights_have_learnt(samples: GroupSamples) -> None:
    learnt = replace(samples, is_learnt=True)
    first, again, other = (learnt.resplit(number, seed=0) for number in (1, 1, 2))
    for found in (first, other):
        np.testing.assert_array_equal(found.validation.keys, samples.validation.keys)
        np.testing.assert_array_equal(found.validation.labels, samples.validation.labels)
        assert set(found.train.keys) < set(samples.train.keys)
        # A quarter of all is for validation: a quarter of training is left out, by units of four.
        assert len(found.train) == pytest.approx(68, abs=4) and len(found.units) == len(found.train) + 30
    np.testing.assert_array_equal(first.train.keys, again.train.keys)
    assert set(first.train.keys) != set(other.train.keys)


def test_a_race_is_run_on_its_re_split_and_not_on_folds(bench: Workbench, samples: GroupSamples) -> None:
    run = RaceRun(group="only", recipe="any", hyperparameters=a_recipe(), resplit=2)
    raced = assignment(a_recipe(), race=run)
    # Samples are divided by the seed of splits, and by no other.
    bench = replace(bench, split_seed=7)
    plain, folded = (
        run_trial(raced, data, bench, "cpu", on_epoch=lambda metrics: None)
        for data in (samples, samples.with_folds(NUM_FOLDS, seed=0))
    )
    assert folded.history == plain.history == alone(bench, samples.resplit(2, seed=7), a_recipe())
    assert plain.history != alone(bench, samples.resplit(2, seed=0), a_recipe())
    assert folded.standard_error is None


class Elsewhere(Workbench):
    """A workbench whose classifiers start with other weights than the pretrained ones."""

    def classifier(self, class_counts: int | Sequence[int], *, from_scratch: bool = False) -> Classifier:
        backbone, _ = load_pretrained("none", self.backbone.spec, seed=5)
        return new_classifier(backbone, class_counts, seed=self.seed)


@pytest.mark.parametrize("folds", [1, NUM_FOLDS])
def test_a_trial_is_pulled_to_the_weights_that_its_process_holds(
    bench: Workbench, samples: GroupSamples, folds: int
) -> None:
    other, data = Elsewhere(**vars(bench)), samples.with_folds(folds, seed=0)
    pulled = a_recipe(epochs=2).model_copy(update={"regularizer": "l2_sp", "regularizer_weight": 1.0})
    trial, _ = a_trial(other, data, pulled)

    def mean_losses(source: Backbone | None) -> list[float]:
        found = [
            fine_tune(
                other.classifier(len(part.classes)),
                other.backbone.spec,
                part.train,
                part.validation,
                pulled,
                other.settings("cpu"),
                source=source,
            ).history
            for part in data.parts()
        ]
        return [float(np.mean([metrics.val_loss for metrics in epoch])) for epoch in zip(*found, strict=True)]

    losses = [metrics.val_loss for metrics in trial.history]
    assert losses == pytest.approx(mean_losses(other.pretrained()), abs=1e-9)
    assert losses != pytest.approx(mean_losses(None), abs=1e-4)


def test_every_fold_uses_what_is_kept_and_finds_the_same(
    bench: Workbench, samples: GroupSamples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = samples.with_folds(NUM_FOLDS, seed=0)
    plain, _ = a_trial(bench, data, a_recipe(freeze_depth=2))
    kept = with_kept(bench, data, tmp_path / "cache", 2)
    monkeypatch.setattr("orchestrator.data.pixels.PixelCache.take", lambda *_: pytest.fail("pixels were read"))
    trial, _ = a_trial(bench, kept, a_recipe(freeze_depth=2))
    assert trial.error is None and (trial.inputs, plain.inputs) == ("activations", "memory")
    for one, other in zip(trial.history, plain.history, strict=True):
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-6)
        assert one.val_accuracy == pytest.approx(other.val_accuracy, abs=1e-9)


@pytest.mark.parametrize(("flip", "inputs"), [(True, "pixels"), (False, "activations")])
def test_a_race_and_folds_hear_what_a_recipe_varies(
    bench: Workbench, samples: GroupSamples, tmp_path: Path, flip: bool, inputs: str
) -> None:
    bench, recipe = replace(bench, augment=AugmentConfig(views=0)), a_recipe(2).model_copy(update={"flip": flip})
    as_section = replace(bench, augment=AugmentConfig(views=0, flip=flip))
    race = RaceRun(group="only", recipe="r", hyperparameters=recipe, resplit=1)
    kept = with_kept(bench, samples, tmp_path / "cache", 2)
    for data, run in ((kept.with_folds(NUM_FOLDS, seed=0), None), (kept, race)):
        found = run_trial(assignment(recipe, race=run), data, bench, "cpu", on_epoch=lambda _: None)
        plain = run_trial(assignment(a_recipe(2), race=run), data, as_section, "cpu", on_epoch=lambda _: None)
        assert (found.inputs, found.error) == (inputs, None)
        assert found.history == plain.history


@pytest.mark.parametrize("is_kept", [True, False])
def test_each_fold_is_one_stack_of_all_heads(
    bench: Workbench, samples: GroupSamples, tmp_path: Path, is_kept: bool
) -> None:
    data, recipes = samples.with_folds(NUM_FOLDS, seed=0), [a_recipe(3, epochs) for epochs in (2, 4)]
    if is_kept:
        data = with_kept(bench, data, tmp_path / "cache", 3)
    heads = run_heads(assignment(*recipes, kind="heads"), data, bench, None, "cpu")
    for head, recipe in zip(heads, recipes, strict=True):
        trial, _ = a_trial(bench, data, recipe)
        assert head.inputs == trial.inputs == ("activations" if is_kept else "memory")
        assert head.value == pytest.approx(trial.value)
        assert head.standard_error == pytest.approx(trial.standard_error)
        assert [m.val_loss for m in head.history] == pytest.approx([m.val_loss for m in trial.history], abs=1e-5)


def test_a_head_that_lags_by_its_mean_is_stopped(bench: Workbench, samples: GroupSamples) -> None:
    rule = StoppingRule(rungs=(0.5,), keep=(0.5,), least_seen=2)
    waiting = replace(assignment(a_recipe(3, 4), kind="heads"), seen={0.5: (1.1, 1.1)})
    (head,) = run_heads(waiting, samples.with_folds(NUM_FOLDS, seed=0), bench, rule, "cpu")
    assert head.status == "stopped" and len(head.history) == 2 and head.standard_error is not None


def test_a_fold_that_diverges_fails_the_trial(bench: Workbench, samples: GroupSamples) -> None:
    wild = a_recipe().model_copy(update={"optimizer": "sgd", "learning_rate": 1e30})
    trial, _ = a_trial(bench, samples.with_folds(NUM_FOLDS, seed=0), wild)
    assert trial.status == "failed" and "DivergedError" in (trial.error or "")
    assert trial.value is None and trial.standard_error is None
