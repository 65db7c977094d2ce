"""What trainings get where each subset has a head: through a trial, a baseline and a saved model, without Ray."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from builders import write_parquet_shards
from finetune_examples import a_spec, some_hyperparameters
from group_contexts import a_context, train_and_save, write_catalogue
from tiny_experiments import experiment_dict
from workbenches import random_workbench

from orchestrator.cluster.baselines import right_answers
from orchestrator.cluster.trials import run_trial
from orchestrator.data.reader import number_rows
from orchestrator.errors import ConfigError
from orchestrator.evaluation.heads import by_own_heads
from orchestrator.experiment_file import validate_experiment
from orchestrator.finetune.classifier import predict_probabilities
from orchestrator.finetune.models import load_model
from orchestrator.records import Group, TaskClasses
from orchestrator.search.assignments import Assignment, Member
from orchestrator.stages.context import GroupContext
from orchestrator.stages.search_checks import require_known_heads
from orchestrator.stages.train import headless

SUBSETS = {"a": {"circle": 24, "stripe": 24}, "b": {"circle": 12, "noise": 20}, "late": {"noise": 3, "cross": 2}}
GROUP = Group(name="low", subsets=["late", "b", "a"], num_images=85, score_range=(0.0, 1.0))
HEADS = (
    TaskClasses(task="a", classes=["circle", "stripe"]),
    TaskClasses(task="b", classes=["circle", "noise"]),
)
SPEC = a_spec(image_size=32)


@pytest.fixture
def context(tmp_path: Path) -> GroupContext:
    """Three subsets, of which one has no image to train on."""
    data = write_parquet_shards(tmp_path / "data", subsets=SUBSETS)
    changes = {"train": {"scope": "multitask", "heads": "subset"}}
    config = validate_experiment(experiment_dict(data, tmp_path / "runs", **changes))
    table = write_catalogue(config, tmp_path / "pixels")
    subset, split = (table.table.column(name).to_pylist() for name in ("subset", "split"))
    later = ["val" if name == "late" and of == "train" else of for name, of in zip(subset, split, strict=True)]
    place = table.table.schema.get_field_index("split")
    table.table = table.table.set_column(place, "split", pa.array(later))
    return a_context(config, table, tmp_path / "pixels", SPEC, GROUP)


def expected_labels(rows: list[dict[str, str]]) -> list[list[int]]:
    return [[h.classes.index(row["label"]) if h.task == row["subset"] else -1 for h in HEADS] for row in rows]


def test_a_group_has_a_head_for_each_subset_that_can_teach_one_over_its_own_classes(context: GroupContext) -> None:
    samples = context.samples(GROUP)
    assert samples.tasks == HEADS and samples.class_counts == (2, 2)
    assert samples.classes == ("circle", "cross", "noise", "stripe")
    for split, found in (("train", samples.train), ("val", samples.validation)):
        assert found.labels.tolist() == expected_labels(context.rows(GROUP, split).to_pylist())
    assert (samples.validation.labels == -1).all(axis=1).any()
    assert headless(GROUP.subsets, samples) == ["late"]


def test_a_group_of_one_subset_has_one_head_and_labels_for_it(context: GroupContext) -> None:
    group = Group(name="only", subsets=["b", "late"], num_images=37, score_range=(0.0, 1.0))
    samples = context.samples(group)
    assert samples.tasks == (TaskClasses(task="b", classes=["circle", "cross", "noise"]),)
    assert samples.train.labels.ndim == 1 and samples.validation.labels.min() >= 0


def test_heads_are_other_data_than_one_head(context: GroupContext) -> None:
    config = context.config
    plain = config.model_copy(update={"train": config.train.model_copy(update={"scope": "group", "heads": "column"})})
    assert replace(context, config=plain).data_fingerprint(GROUP) != context.data_fingerprint(GROUP)


def test_images_are_few_where_the_median_class_of_a_head_has_few(context: GroupContext) -> None:
    rows = context.rows(GROUP, "train").to_pylist()
    of_heads, of_classes = Counter((row["subset"], row["label"]) for row in rows), Counter(row["label"] for row in rows)
    by_head, by_class = (float(np.median(list(counts.values()))) for counts in (of_heads, of_classes))
    assert by_head < by_class
    config = context.config
    for threshold in (int(by_head), int(by_head) + 1):
        search = config.search.model_copy(update={"few_shot_threshold": threshold})
        tuning = replace(context, config=config.model_copy(update={"search": search})).tuning(GROUP)
        assert (tuning.few_shot is not None) == (threshold > by_head)
    assert tuning.few_shot is not None and tuning.few_shot.images_per_class == by_head
    # The space of the experiment file names depth and rate.
    assert tuning.few_shot.changed == ["folds", "weight_decay"] and tuning.search.space.head is None


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_trial_learns_every_head_also_on_folds_and_resplits(context: GroupContext, folds: int, depth: int) -> None:
    samples = context.samples(GROUP).with_folds(folds, seed=0)
    recipe = some_hyperparameters(freeze_depth=depth, task_weighting="uncertainty")
    member = Member(name="low-0", number=0, hyperparameters=recipe)
    assignment = Assignment(kind="trial", group="low", members=(member,), seconds=1.0)
    trial = run_trial(assignment, samples, random_workbench(SPEC), "cpu", on_epoch=lambda metrics: None)
    assert trial.error is None and len(trial.history) == recipe.epochs
    for part in [samples.resplit(1, seed=0), *samples.parts()]:
        assert (part.train.labels >= 0).any(axis=0).all() and (part.validation.labels >= 0).any(axis=0).all()


def test_fixed_weights_are_those_of_the_heads_by_name(context: GroupContext) -> None:
    samples = context.samples(GROUP)
    named = some_hyperparameters(freeze_depth=1, task_weighting={"b": 3, "elsewhere": 9})
    assert samples.weighted(named).task_weighting == (1.0, 3.0)
    assert samples.with_one_head().weighted(named) == named
    losses = []
    for recipe in (named, some_hyperparameters(freeze_depth=1, task_weighting=(1.0, 3.0)), some_hyperparameters()):
        member = Member(name="low-0", number=0, hyperparameters=recipe)
        assignment = Assignment(kind="trial", group="low", members=(member,), seconds=1.0)
        trial = run_trial(assignment, samples, random_workbench(SPEC), "cpu", on_epoch=lambda metrics: None)
        assert trial.error is None and trial.hyperparameters == recipe
        losses.append([epoch.train_loss for epoch in trial.history])
    assert losses[0] == losses[1] != losses[2]


def test_weights_of_heads_that_no_subset_has_are_refused(context: GroupContext) -> None:
    def require(weights: dict[str, float]) -> None:
        finetune = context.config.finetune.model_validate({"task_weighting": weights})
        require_known_heads(replace(context, config=context.config.model_copy(update={"finetune": finetune})))

    require({"a": 2.0, "late": 1.0})
    with pytest.raises(ConfigError, match=r"task_weighting must name subsets of the data, got c, d.*are a, b, late"):
        require({"a": 2.0, "c": 1.0, "d": 1.0})


def test_one_head_for_all_has_the_same_samples_with_the_groups_classes(context: GroupContext) -> None:
    samples = context.samples(GROUP)
    one = samples.with_one_head()
    assert one.class_counts == (4,) and one.train.labels.ndim == one.validation.labels.ndim == 1
    rows = context.rows(GROUP, "train").to_pylist()
    assert [one.classes[label] for label in one.train.labels] == [row["label"] for row in rows]
    judged = [row["label"] for row in context.rows(GROUP, "val").to_pylist() if row["subset"] != "late"]
    assert [one.classes[label] for label in one.validation.labels] == judged
    assert len(one.units) == len(one.train) + len(one.validation)


def test_a_baseline_and_the_saved_model_judge_every_image_by_its_subsets_head(
    context: GroupContext, tmp_path: Path
) -> None:
    samples, bench, recipe = context.samples(GROUP), random_workbench(SPEC), some_hyperparameters(epochs=4)
    classifier, _ = train_and_save(samples, bench, recipe, GROUP, tmp_path / "model")
    loaded, found = load_model(str(tmp_path / "model"))
    assert found.heads == "subset" and found.predicted_classes == [list(samples.classes)]
    rows = number_rows(context.rows(GROUP, "val"))
    subsets, labels = (rows.column(name).to_pylist() for name in ("subset", "label"))
    probabilities = predict_probabilities(loaded, SPEC, context.reader.read(rows), device="cpu")
    judged = by_own_heads(probabilities, subsets, found.tasks, found.classes)
    np.testing.assert_allclose(judged.sum(axis=1), 1, atol=1e-5)
    right = [found.classes[place] == label for place, label in zip(judged.argmax(axis=1), labels, strict=True)]
    given = ([rows], samples.classes, bench, context.reader, classifier, "cpu")
    assert right_answers(*given, heads=samples.tasks).tolist() == right
    own = [name == "a" for name in subsets]
    assert not judged[own][:, [1, 2]].any()
