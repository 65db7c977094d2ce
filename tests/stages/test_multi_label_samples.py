"""What stages make of any number of labels without Ray: samples, trials, baselines, profiles and prediction tables."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finetune_examples import a_spec, some_hyperparameters
from group_contexts import a_context, train_and_save, write_catalogue
from label_set_images import SHAPES, label_set_rows
from tiny_experiments import experiment_dict
from workbenches import random_workbench

from orchestrator.cluster.baselines import label_answers
from orchestrator.cluster.corrected_inference import predict_and_correct
from orchestrator.cluster.inference import prediction_table
from orchestrator.cluster.profiling import ProfilePlan, make_profile
from orchestrator.cluster.trials import run_trial
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.multi_label import NO_LABEL, labels_of
from orchestrator.data.reader import BLOCK_ROWS, blocks_of, number_rows
from orchestrator.diversity.profiling import ProfileSettings, finish
from orchestrator.diversity.statistics import PartialProfile, merge_partials
from orchestrator.errors import DataError
from orchestrator.evaluation.answers import unpack, unpack_matrix
from orchestrator.experiment_file import validate_experiment
from orchestrator.finetune.classifier import Classifier, predict_probabilities
from orchestrator.finetune.models import load_model
from orchestrator.records import Group, ModelCard
from orchestrator.search.assignments import Assignment, Member
from orchestrator.stages.context import GroupContext

GROUP = Group(name="low", subsets=["a", "b"], num_images=80, score_range=(0.0, 1.0))
SPEC = a_spec(image_size=32)
RECIPE = some_hyperparameters(loss="binary_cross_entropy")


@pytest.fixture
def context(tmp_path: Path) -> GroupContext:
    rows = label_set_rows({"a": 40, "b": 40}, shares={"bar": 0.5, "disc": 0.4, "frame": 0.15})
    rows += label_set_rows({"bare": 8}, shares={})
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "x.parquet")
    changes = {"data": {"label": "labels", "label_separator": "|"}}
    config = validate_experiment(experiment_dict(tmp_path / "data", tmp_path / "runs", **changes))
    return a_context(config, write_catalogue(config, tmp_path / "pixels"), tmp_path / "pixels", SPEC, GROUP)


def test_a_group_has_the_single_labels_of_its_images_and_indicators_of_them(context: GroupContext) -> None:
    samples = context.samples(GROUP)
    assert samples.classes == SHAPES and samples.class_counts == (3,)
    for split, found in (("train", samples.train), ("val", samples.validation)):
        rows = context.rows(GROUP, split).column("label").to_pylist()
        assert found.labels.tolist() == [[float(name in labels_of(text)) for name in SHAPES] for text in rows]


def test_the_fixed_rule_has_the_loss_of_label_sets_and_their_entropy(context: GroupContext) -> None:
    rule = context.fixed_rule(GROUP)
    assert rule.loss == "binary_cross_entropy" and rule.learning_rate == 1e-5
    rows = context.rows(GROUP, "train").column("label").to_pylist()
    said = [label for text in rows for label in labels_of(text) or [NO_LABEL]]
    shares = [said.count(label) / len(said) for label in set(said)]
    assert context.training_entropy(GROUP) == pytest.approx(-sum(share * math.log(share) for share in shares))


def test_images_are_few_by_their_labels_and_not_by_how_many_have_none(context: GroupContext) -> None:
    rows = context.rows(GROUP, "train").column("label").to_pylist()
    said = [label for text in rows for label in labels_of(text)]
    assert "" in rows
    search = context.config.search.model_copy(update={"few_shot_threshold": 10**6})
    few = replace(context, config=context.config.model_copy(update={"search": search})).tuning(GROUP).few_shot
    assert few is not None
    assert few.images_per_class == float(np.median([said.count(label) for label in set(said)]))


def test_a_group_whose_images_have_no_label_is_refused(context: GroupContext) -> None:
    bare = Group(name="bare", subsets=["bare"], num_images=8, score_range=(0.0, 1.0))
    with pytest.raises(DataError, match="every group must have an image with a label"):
        context.samples(bare)


def test_a_cache_that_does_not_hold_all_training_images_leaves_those_that_it_holds(context: GroupContext) -> None:
    table = context.table.table
    rows = np.asarray(table.column("pixel_row")).copy()
    rows[context.table.where(["a"], "train")[0]] = -1
    place = table.column_names.index("pixel_row")
    partly = SampleTable(table.set_column(place, "pixel_row", pa.array(rows)), multi_label=True)
    every, held = context.samples(GROUP), replace(context, table=partly).samples(GROUP)
    np.testing.assert_array_equal(held.train.labels, every.train.labels[1:])
    assert held.train.labels.dtype == np.float32 and len(held.validation) == len(every.validation)


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_trial_learns_label_sets(context: GroupContext, folds: int, depth: int) -> None:
    samples = context.samples(GROUP).with_folds(folds, seed=0)
    recipe = RECIPE.model_copy(update={"freeze_depth": depth})
    assert not recipe.is_plain, "heads are not trained in stacks"
    member = Member(name="low-0", number=0, hyperparameters=recipe)
    assignment = Assignment(kind="trial", group="low", members=(member,), seconds=1.0)
    trial = run_trial(assignment, samples, random_workbench(SPEC), "cpu", on_epoch=lambda metrics: None)
    assert trial.error is None and len(trial.history) == recipe.epochs


def test_every_fold_and_resplit_has_its_share_of_the_rarest_label(context: GroupContext) -> None:
    samples = context.samples(GROUP)
    rare = float(samples.train.labels[:, 2].sum() + samples.validation.labels[:, 2].sum())
    assert rare >= 4
    for part in samples.with_folds(2, seed=0).parts():
        assert abs(part.validation.labels[:, 2].sum() - rare / 2) <= 1
    share = len(samples.validation) / (len(samples.train) + len(samples.validation))
    for number in range(5):
        found = samples.resplit(number, seed=0).validation.labels[:, 2].sum()
        assert abs(found - rare * share) <= 1


def trained(context: GroupContext, folder: Path) -> tuple[Classifier, ModelCard]:
    recipe = RECIPE.model_copy(update={"freeze_depth": 0, "epochs": 8, "learning_rate": 1e-2})
    return train_and_save(context.samples(GROUP), random_workbench(SPEC), recipe, GROUP, folder)


def test_a_saved_model_gives_a_probability_for_each_label_and_lists_those_of_one_half(
    context: GroupContext, tmp_path: Path
) -> None:
    classifier, card = trained(context, tmp_path / "model")
    loaded, found = load_model(str(tmp_path / "model"))
    assert found.is_multi_label and loaded.multi_label and found == card
    pixels = context.samples(GROUP).validation.take(np.arange(5))
    probabilities = predict_probabilities(loaded, SPEC, pixels, device="cpu")
    np.testing.assert_array_equal(probabilities, predict_probabilities(classifier, SPEC, pixels, device="cpu"))
    errors = [None, "the image is missing", None, None, None, None]
    files = pa.table({"file": ["x"] * 6, "row": list(range(6))})
    rows = prediction_table(files, probabilities, errors, found).to_pylist()
    assert rows[1]["labels"] is None and rows[1]["probability_bar"] is None and rows[1]["error"] == errors[1]
    for row, expected in zip([rows[0], *rows[2:]], probabilities, strict=True):
        values = [row[f"probability_{name}"] for name in SHAPES]
        assert values == pytest.approx(expected.tolist())
        assert row["labels"] == [name for name, value in zip(SHAPES, values, strict=True) if value >= 0.5]
    assert "label" not in rows[0]


def test_a_control_arm_answers_for_every_label_in_the_order_of_the_catalogue(
    context: GroupContext, tmp_path: Path
) -> None:
    classifier, _ = trained(context, tmp_path / "model")
    blocks = blocks_of(number_rows(context.rows(GROUP, "val")), BLOCK_ROWS)
    answers = label_answers(blocks[::-1], SHAPES, random_workbench(SPEC), context.reader, classifier, "cpu").fields()
    samples = context.samples(GROUP).validation
    expected = predict_probabilities(classifier, SPEC, samples.take(np.arange(len(samples))), device="cpu")
    np.testing.assert_allclose(unpack_matrix(answers["probabilities"]), expected, atol=1e-6)
    right = ((expected >= 0.5) == (samples.labels > 0)).all(axis=1)
    assert unpack(answers["correct"]).tolist() == right.tolist()


def test_a_correction_for_class_frequencies_is_refused(context: GroupContext, tmp_path: Path) -> None:
    trained(context, tmp_path / "model")
    with pytest.raises(DataError, match="a model of one class an image"):
        predict_and_correct(
            str(tmp_path / "model"), "x", "y", method="em", image_column="image", format="auto", use_gpu=False
        )


def a_plan(num_labels: int) -> ProfilePlan:
    settings = ProfileSettings(num_labels=num_labels, measures=["label_entropy"], split="train", min_images=1, seed=0)
    return ProfilePlan(settings=settings, sample_per_subset=None, stall_timeout_s=60)


def test_a_profile_counts_labels_and_images_apart(context: GroupContext) -> None:
    profile = make_profile(context.table, context.reader, None, a_plan(3), fingerprint="x")
    for found in profile.subsets:
        texts = context.table.table.take(pa.array(context.table.where([found.subset], "train"))).column("label")
        rows = [labels_of(text) for text in texts.to_pylist()]
        said = [label for labels in rows for label in labels or [NO_LABEL]]
        assert found.num_images == len(rows)
        assert found.label_counts == {label: said.count(label) for label in sorted(set(said))}
        shares = [count / len(said) for count in found.label_counts.values()]
        entropy = -sum(share * math.log(share) for share in shares)
        assert found.label_entropy == pytest.approx(entropy, abs=1e-12)
        assert found.effective_classes == pytest.approx(math.exp(entropy), abs=1e-12)
        assert found.normalized_label_entropy == pytest.approx(entropy / math.log(4), abs=1e-12)
    assert [found.subset for found in profile.subsets] == ["a", "b", "bare"]


def test_features_of_label_sets_are_measured_but_not_by_class() -> None:
    rows = np.random.default_rng(0).normal(size=(12, 5))
    partial = PartialProfile(key=0)
    partial.add_features("site", rows, [str(number) for number in range(12)], [""] * 12)
    settings = ProfileSettings(
        num_labels=2,
        measures=["label_entropy", "feature_diversity"],
        split="train",
        min_images=1,
        seed=0,
        multi_label=True,
    )
    labels = pa.table({"subset": ["site", "site"], "label": ["a", "b"], "count": [9, 10]})
    labels = labels.set_column(0, "subset", labels.column("subset").cast(pa.string()).dictionary_encode())
    labels = labels.set_column(1, "label", labels.column("label").cast(pa.string()).dictionary_encode())
    (found,) = finish(labels, merge_partials([partial]), settings, num_images={"site": 12}).subsets
    assert found.num_images == 12 and found.label_counts == {"a": 9, "b": 10}
    assert found.feature_diversity is not None and found.feature_diversity > 1
    assert found.h_score is found.log_evidence is found.fisher_ratio is found.mean_class_distance is None
