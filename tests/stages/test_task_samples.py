"""What trainings get of several label columns: through a trial, its model and its predictions, without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import build_rows
from finetune_examples import a_spec, some_hyperparameters
from group_contexts import a_context, train_and_save, write_catalogue
from tiny_experiments import experiment_dict
from workbenches import random_workbench

from orchestrator.cluster.trials import run_trial
from orchestrator.data.scratch import scratch_rows
from orchestrator.evaluation.parts import whole
from orchestrator.experiment_file import validate_experiment
from orchestrator.finetune.classifier import predict_probabilities
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.models import load_model
from orchestrator.records import Group, TaskClasses
from orchestrator.search.assignments import Assignment, Member
from orchestrator.stages.context import GroupContext
from orchestrator.stages.predicted import tasks_of

FORMS = {"circle": "round", "stripe": "straight", "noise": None}
SUBSETS = {"a": {"circle": 24, "stripe": 24}, "b": {"circle": 12, "noise": 20}, "c": {"noise": 30}}
GROUP = Group(name="low", subsets=["a", "b"], num_images=80, score_range=(0.0, 1.0))
TASKS = (
    TaskClasses(task="label", classes=["circle", "noise", "stripe"]),
    TaskClasses(task="form", classes=["round", "straight"]),
)
SPEC = a_spec(image_size=32)


@pytest.fixture
def context(tmp_path: Path) -> GroupContext:
    rows = [{**row, "form": FORMS[str(row["label"])]} for row in build_rows(subsets=SUBSETS)]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "x.parquet")
    changes = {"data": {"tasks": ["form"]}, "train": {"scope": "multitask"}}
    config = validate_experiment(experiment_dict(tmp_path / "data", tmp_path / "runs", **changes))
    return a_context(config, write_catalogue(config, tmp_path / "pixels"), tmp_path / "pixels", SPEC, GROUP)


def test_a_group_has_the_classes_that_occur_in_it_and_a_label_for_each_task(context: GroupContext) -> None:
    samples = context.samples(GROUP)
    assert samples.tasks == TASKS and samples.class_counts == (3, 2)
    for split, found in (("train", samples.train), ("val", samples.validation)):
        rows = context.rows(GROUP, split).to_pylist()
        expected = [[TASKS[0].classes.index(row["label"]), _form(row["tasks"][0])] for row in rows]
        assert found.labels.tolist() == expected
    other = context.samples(only("c"))
    assert other.class_counts == (1, 0) and (other.train.labels[:, 1] == -1).all()


def only(subset: str) -> Group:
    return Group(name=f"only {subset}", subsets=[subset], num_images=30, score_range=(0.0, 1.0))


def _form(label: str | None) -> int:
    return -1 if label is None else TASKS[1].classes.index(label)


def test_other_names_of_tasks_are_other_data(context: GroupContext) -> None:
    config = context.config
    renamed = config.model_copy(update={"data": config.data.model_copy(update={"tasks": ["shape"]})})
    assert replace(context, config=renamed).data_fingerprint(GROUP) != context.data_fingerprint(GROUP)


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_trial_learns_every_task(context: GroupContext, folds: int, depth: int) -> None:
    samples = context.samples(GROUP).with_folds(folds, seed=0)
    recipe = some_hyperparameters(freeze_depth=depth, task_weighting="uncertainty")
    member = Member(name="low-0", number=0, hyperparameters=recipe)
    assignment = Assignment(kind="trial", group="low", members=(member,), seconds=1.0)
    trial = run_trial(assignment, samples, random_workbench(SPEC), "cpu", on_epoch=lambda metrics: None)
    assert trial.error is None and len(trial.history) == recipe.epochs
    resplit = samples.resplit(1, seed=0)
    assert resplit.class_counts == (3, 2) and resplit.train.labels.shape[1] == 2


def test_a_group_without_a_label_for_a_task_learns_the_others(context: GroupContext) -> None:
    samples = context.samples(Group(name="b", subsets=["b", "c"], num_images=60, score_range=(0.0, 1.0)))
    labels = samples.train.labels.copy()
    labels[:, 1] = -1
    classifier = random_workbench(SPEC).classifier(samples.class_counts)
    train = replace(samples.train, labels=labels)
    settings = random_workbench(SPEC).settings("cpu")
    result = fine_tune(classifier, SPEC, train, samples.validation, some_hyperparameters(), settings)
    assert len(result.history) == 2


def test_a_saved_model_of_two_tasks_predicts_both(context: GroupContext, tmp_path: Path) -> None:
    samples, bench, recipe = context.samples(GROUP), random_workbench(SPEC), some_hyperparameters()
    classifier, _ = train_and_save(samples, bench, recipe, GROUP, tmp_path / "model")
    loaded, found = load_model(str(tmp_path / "model"))
    assert loaded.class_counts == (3, 2) and found.class_counts == [3, 2]
    table = context.rows(GROUP, "val")
    rows = table.to_pylist()
    pixels = samples.validation.take(np.arange(len(rows)))
    probabilities = predict_probabilities(loaded, SPEC, pixels, device="cpu")
    np.testing.assert_array_equal(probabilities, predict_probabilities(classifier, SPEC, pixels, device="cpu"))
    with scratch_rows(len(rows), 5, np.float32) as kept:
        kept.put(np.arange(len(rows)), probabilities)
        label, form = map(whole, tasks_of(table, kept, [task.classes for task in found.tasks]))
    labelled = [row for row in rows if row["tasks"][0] is not None]
    assert 0 < len(form) == len(labelled) < len(label) == len(rows)
    assert form.ids == [row["id"] for row in labelled]
    assert form.truth.tolist() == [_form(row["tasks"][0]) for row in labelled]
    np.testing.assert_array_equal(label.probabilities, probabilities[:, :3])
