"""The whole way on two raylets: every stage real, resumed where inputs changed, refused where they do not fit."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_experiments import SUBSETS, experiment_dict

from orchestrator.cli import main
from orchestrator.config import ExperimentConfig
from orchestrator.errors import BadFractionError, RecordError, ResourceError
from orchestrator.experiment_file import validate_experiment
from orchestrator.finetune.validation import load_thinned_validation
from orchestrator.pipeline import Pipeline
from orchestrator.records import Report, Trial

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

MakeExperiment = Callable[..., ExperimentConfig]


class FinishedRun:
    """Hold a finished run of the tiny experiment over two raylets."""

    def __init__(self, config: ExperimentConfig, lines: list[str]) -> None:
        self.config = config
        self.lines = lines
        self.directory = Path(config.storage_path) / config.name
        self.report = Report.from_json((self.directory / "report.json").read_bytes(), source="report.json")


@pytest.fixture(scope="module")
def finished(ray_cluster: object, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    config = validate_experiment(
        experiment_dict(
            tiny_data,
            tmp_path_factory.mktemp("finished"),
            data={"max_bad_fraction": 0.05},
            diversity={"measures": ["label_entropy", "pixel_entropy", "feature_diversity"]},
            # A worker of two CPUs fills one of the two nodes: the second rank has to go to the other.
            train={"num_workers": 2, "resources_per_worker": {"CPU": 2}, "batch_norm": "train"},
            evaluate={"label_shift": "em"},
        )
    )
    lines: list[str] = []
    Pipeline(config, say=lines.append).run()
    return FinishedRun(config, lines)


def test_every_sample_is_in_the_catalogue_or_in_quarantine(finished: FinishedRun) -> None:
    table = pq.read_table(finished.directory / finished.report.catalogue.table)
    made = sum(sum(labels.values()) for labels in SUBSETS.values())
    assert table.num_rows == made + 2
    assert sum(table.column("ok").to_pylist()) == made == finished.report.catalogue.num_images
    quarantine = pq.read_table(finished.directory / finished.report.catalogue.quarantine).to_pylist()
    assert len(quarantine) == 2 == finished.report.catalogue.num_quarantined
    assert all(row["file"] and row["reason"] and row["row"] >= 0 for row in quarantine)


def test_groups_stand_in_order_of_diversity_and_hold_every_subset_once(finished: FinishedRun) -> None:
    groups = finished.report.groups.groups
    entropies = {subset.subset: subset.label_entropy for subset in finished.report.profile.subsets}
    assert sorted(subset for group in groups for subset in group.subsets) == sorted(SUBSETS)
    for below, above in pairwise(groups):
        assert max(entropies[s] for s in below.subsets) < min(entropies[s] for s in above.subsets)


def test_every_measure_is_there_for_every_subset(finished: FinishedRun) -> None:
    for subset in finished.report.profile.subsets:
        assert 0 < subset.label_entropy <= 1.4
        assert subset.pixel_entropy is not None and 0 < subset.pixel_entropy <= 5.55
        assert subset.feature_diversity is not None and subset.feature_diversity >= 1
    assert finished.report.profile.class_means is not None
    means = pq.read_table(finished.directory / finished.report.profile.class_means).to_pylist()
    counts = {subset.subset: subset.label_counts for subset in finished.report.profile.subsets}
    assert {(row["subset"], row["label"]): row["num_images"] for row in means} == {
        (subset, label): count for subset, labels in counts.items() for label, count in labels.items()
    }


def test_each_search_has_its_trials_and_starts_with_the_fixed_rule(finished: FinishedRun) -> None:
    for search, recipe in zip(finished.report.searches, finished.report.recipes, strict=True):
        assert [trial.origin for trial in search.trials].count("fixed_rule") == 1
        assert search.trials[0].origin == "fixed_rule"
        assert search.trials[0].hyperparameters.freeze_depth == 6
        assert len(search.trials) == 2
        assert all(len(trial.history) == trial.hyperparameters.epochs for trial in search.trials)
        assert recipe.value == max(trial.value for trial in search.trials if trial.value is not None)


def test_trials_of_two_groups_overlap_in_time(finished: FinishedRun) -> None:
    first, second = (search.trials for search in finished.report.searches)
    assert any(_overlap(a, b) for a, b in product(first, second))


def _overlap(one: Trial, other: Trial) -> bool:
    return one.started < other.started + other.seconds and other.started < one.started + one.seconds


def test_the_ranks_of_a_model_ran_on_different_nodes(finished: FinishedRun) -> None:
    for card in finished.report.models:
        assert card.num_workers == 2
        assert len(set(card.world)) == 2


def test_evaluations_have_the_three_baselines_on_the_same_images(finished: FinishedRun) -> None:
    for evaluation in finished.report.evaluations:
        assert [baseline.name for baseline in evaluation.baselines] == ["fixed_rule", "head_only", "from_scratch"]
        assert all(baseline.accuracy is not None for baseline in evaluation.baselines)
        assert sum(map(sum, evaluation.confusion_matrix)) == evaluation.num_images
        assert sum(subset.num_images for subset in evaluation.subsets) == evaluation.num_images
        assert sum(found.num_images for found in evaluation.by_class) == evaluation.num_images == evaluation.num_units
        fixed = evaluation.baselines[0].hyperparameters
        assert (fixed.learning_rate, fixed.epochs, fixed.freeze_depth) == (1e-5, 50, 6)


def test_temperatures_are_fitted_on_the_validation_images_of_the_group(finished: FinishedRun) -> None:
    counts = {found.subset: found.val for found in finished.report.catalogue.subsets}
    for group, evaluation in zip(finished.report.groups.groups, finished.report.evaluations, strict=True):
        assert evaluation.calibration is not None
        assert evaluation.calibration.num_images == sum(counts[subset] for subset in group.subsets)
        assert 0.01 <= evaluation.calibration.temperature <= 100


def test_the_features_of_test_images_lie_on_the_unit_sphere(finished: FinishedRun) -> None:
    for evaluation in finished.report.evaluations:
        found = evaluation.separation
        assert found is not None and 0 < found.variance_between + found.variance_within <= 1
        tested = {
            name for name, scores in zip(evaluation.classes, evaluation.by_class, strict=True) if scores.num_images
        }
        assert {neighbour.label for neighbour in found.neighbours} == tested


def test_the_report_is_one_page_that_names_every_group(finished: FinishedRun) -> None:
    page = (finished.directory / "report.html").read_text()
    assert all(group.name in page for group in finished.report.groups.groups)
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script src" not in page


def test_the_ledger_holds_what_every_group_and_subset_cost_and_gained(finished: FinishedRun) -> None:
    ledger = finished.report.investment
    assert ledger is not None and ledger.to_json() == (finished.directory / "investment.json").read_text()
    for group, found, search in zip(
        finished.report.groups.groups, ledger.groups, finished.report.searches, strict=True
    ):
        assert search.trial_resources == {"CPU": 1.0}
        assert found.parts["search"].seconds == sum(trial.seconds for trial in search.trials)
        assert found.parts["training"].seconds > 0 and found.parts["baselines"].seconds > 0
        assert found.spent.gpu_hours == 0 and found.spent.money is None
        assert found.gain is not None and found.gain.num_images > 0
        assert [subset.subset for subset in found.subsets] == group.subsets
        assert all(subset.gain is not None for subset in found.subsets)
        assert sum(subset.share for subset in found.subsets) == pytest.approx(1)
    assert all(card.worker_resources["CPU"] == 2 for card in finished.report.models)


def test_prices_change_the_report_and_no_other_stage(finished: FinishedRun) -> None:
    cluster = validate_experiment(finished.config.model_dump() | {"cluster": {"cost_per_hour": {"CPU": 3.6}}}).cluster
    lines: list[str] = []
    pipeline = Pipeline(finished.config.model_copy(update={"cluster": cluster}), say=lines.append)
    pipeline.run()
    assert len([line for line in lines if "up to date, skipped" in line]) == 7
    ledger = pipeline.report().investment
    assert ledger is not None
    for found in ledger.groups:
        money = found.parts["search"].money
        assert money == pytest.approx(0.001 * found.parts["search"].seconds)


def test_confident_mistakes_and_right_answers_are_shown_with_what_the_model_looked_at(finished: FinishedRun) -> None:
    page = (finished.directory / "report.html").read_text()
    for evaluation, found in zip(finished.report.evaluations, finished.report.explanations, strict=True):
        assert found.group == evaluation.group
        assert found.method == "grad_cam" and found.error is None
        rows = pq.read_table(finished.directory / evaluation.predictions).to_pylist()
        wrong = sorted((-max(row["probabilities"]), row["id"]) for row in rows if row["label"] != row["predicted"])
        mistakes = [example for example in found.examples if example.is_mistake]
        assert [example.id for example in mistakes] == [identity for _, identity in wrong[:3]]
        assert [example.probability for example in mistakes] == pytest.approx([-value for value, _ in wrong[:3]])
        answers = [example.label for example in found.examples if not example.is_mistake]
        assert answers and len(set(answers)) == len(answers)
        for example in found.examples:
            picture = (finished.directory / str(example.picture)).read_bytes()
            assert picture.startswith(b"\x89PNG") and base64.b64encode(picture).decode() in page


def test_a_report_says_which_picture_is_gone(finished: FinishedRun) -> None:
    picture = finished.directory / str(finished.report.explanations[0].examples[0].picture)
    content = picture.read_bytes()
    picture.unlink()
    lines: list[str] = []
    Pipeline(finished.config, say=lines.append).run(["report"])
    picture.write_bytes(content)
    assert "its file is gone" in (finished.directory / "report.html").read_text()
    assert [line for line in lines if picture.name in line]


def test_the_same_run_again_does_nothing_but_the_report(finished: FinishedRun) -> None:
    lines: list[str] = []
    Pipeline(finished.config, say=lines.append).run()
    skipped = [line.split(":")[0] for line in lines if "up to date, skipped" in line]
    assert skipped == ["pretrain", "catalogue", "profile", "group", "search", "train", "evaluate"]


def test_a_changed_key_runs_again_only_what_depends_on_it(finished: FinishedRun) -> None:
    evaluate = finished.config.evaluate.model_copy(update={"bootstrap_samples": 300})
    config = finished.config.model_copy(update={"evaluate": evaluate})
    lines: list[str] = []
    Pipeline(config, say=lines.append).run()
    assert [line for line in lines if line.startswith("train: up to date")]
    assert not [line for line in lines if "baseline" in line]
    assert [line for line in lines if line.startswith("evaluate: done")]


def test_another_number_of_explanations_tests_nothing_anew(finished: FinishedRun) -> None:
    evaluate = finished.config.evaluate.model_copy(update={"explanations": 1})
    lines: list[str] = []
    pipeline = Pipeline(finished.config.model_copy(update={"evaluate": evaluate}), say=lines.append)
    # The test before this one has left results of other settings.
    Pipeline(finished.config, say=lambda line: None).run(["evaluate"])
    pipeline.run(["evaluate", "report"])
    assert not [line for line in lines if "accuracy" in line]
    for found in pipeline.report().explanations:
        assert len(found.examples) <= 2
        assert len(list((finished.directory / "groups" / found.group / "explanations").iterdir())) == 1
        assert [
            line for line in lines if line == f"evaluate {found.group}: {len(found.examples)} test images explained"
        ]


def test_explanations_can_be_turned_off(finished: FinishedRun) -> None:
    evaluate = finished.config.evaluate.model_copy(update={"explanations": 0})
    lines: list[str] = []
    pipeline = Pipeline(finished.config.model_copy(update={"evaluate": evaluate}), say=lines.append)
    pipeline.run(["evaluate", "report"])
    assert "evaluate: up to date, skipped" in lines
    assert pipeline.report().explanations == []


def test_a_longer_search_keeps_the_trials_it_has(finished: FinishedRun) -> None:
    search = finished.config.search.model_copy(update={"num_samples": 3})
    lines: list[str] = []
    Pipeline(finished.config.model_copy(update={"search": search}), say=lines.append).run(["search"])
    kept = {trial.trial_id: trial for result in finished.report.searches for trial in result.trials}
    found = {
        trial["trial_id"]: Trial.model_validate(trial)
        for group in finished.report.groups.groups
        for trial in json.loads((finished.directory / "groups" / group.name / "search.json").read_text())["trials"]
    }
    # Of three trials for each of two groups one is kept back for the finalists.
    assert len(found) == 5 and len(kept) == 4
    assert {name: found[name] for name in kept} == kept


def test_a_saved_model_predicts_new_images_and_says_which_it_could_not_read(
    finished: FinishedRun, tiny_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "predictions"
    model = finished.directory / "groups" / finished.report.groups.groups[0].name / "model"
    assert main(["predict", str(model), str(tiny_data), "--output", str(output)]) == 0
    rows = pq.read_table(output).to_pylist()
    assert len(rows) == finished.report.catalogue.num_images + 2
    good = [row for row in rows if row["error"] is None]
    assert len(good) == finished.report.catalogue.num_images
    for row in good:
        probabilities = {k.removeprefix("probability_"): v for k, v in row.items() if k.startswith("probability_")}
        assert sum(probabilities.values()) == pytest.approx(1.0, abs=1e-5)
        assert row["label"] == max(probabilities, key=lambda label: probabilities[label])
    assert main(["predict", str(model), str(tiny_data), "--output", str(output)]) == 1


def test_the_mean_tuned_features_of_classes_lie_beside_the_record(finished: FinishedRun) -> None:
    for evaluation in finished.report.evaluations:
        assert evaluation.separation is not None and evaluation.separation.class_means is not None
        means = pq.read_table(finished.directory / evaluation.separation.class_means).to_pylist()
        counts = {row["label"]: row["num_images"] for row in means}
        tested = zip(evaluation.classes, evaluation.by_class, strict=True)
        assert counts == {label: scores.num_images for label, scores in tested if scores.num_images}
        assert all(0 < np.linalg.norm(row["mean"]) <= 1 for row in means)


def test_class_frequencies_are_judged_and_a_model_keeps_what_predicting_them_needs(finished: FinishedRun) -> None:
    for evaluation, card in zip(finished.report.evaluations, finished.report.models, strict=True):
        shift = evaluation.label_shift
        assert shift is not None and shift.method == "em"
        assert shift.whole.num_images == evaluation.num_images
        assert shift.whole.before.accuracy == pytest.approx(evaluation.accuracy)
        assert {found.subset for found in shift.subsets} == {scores.subset for scores in evaluation.subsets}
        assert sum(frequency.estimated for frequency in shift.whole.frequencies) == pytest.approx(1.0)
        validation = load_thinned_validation(str(finished.directory / "groups" / card.group / "model"), card)
        assert len(validation) == shift.num_validation > 0
        assert set(validation.subsets) <= set(card.subsets)
    assert "Other class frequencies" in (finished.directory / "report.html").read_text()


def test_assigned_subsets_are_told_the_recipe_and_the_model_of_their_group(
    finished: FinishedRun, tiny_data: Path
) -> None:
    found = Pipeline.of_run(str(finished.directory), say=lambda line: None).assign(str(tiny_data))
    recipes = {recipe.group: recipe.hyperparameters for recipe in finished.report.recipes}
    groups = {name: group.name for group in finished.report.groups.groups for name in group.subsets}
    assert {assignment.subset: assignment.group for assignment in found.assignments} == groups
    for assignment in found.assignments:
        assert assignment.recipe == recipes[assignment.group]
        assert (finished.directory / str(assignment.model) / "model.safetensors").exists()


def test_a_stage_whose_inputs_are_missing_names_the_stage_to_run(tiny_experiment: MakeExperiment) -> None:
    with pytest.raises(RecordError, match=r"catalogue.json must exist.*orchestrator catalogue"):
        Pipeline(tiny_experiment(), say=lambda line: None).run(["profile"])


def test_more_bad_rows_than_allowed_end_the_run_and_name_the_first(tiny_experiment: MakeExperiment) -> None:
    config = tiny_experiment(data={"max_bad_fraction": 0.001})
    with pytest.raises(BadFractionError, match=r"max_bad_fraction = 0.001.*got 2 of .*row"):
        Pipeline(config, say=lambda line: None).run(["catalogue"])


def test_a_run_that_asks_for_more_than_there_is_ends_with_an_error_not_a_hang(
    profiled_experiment: MakeExperiment,
) -> None:
    config = profiled_experiment(search={"resources_per_trial": {"CPU": 64}, "num_samples": 1})
    pipeline = Pipeline(config, say=lambda line: None)
    with pytest.raises(ResourceError, match=r"one trial of the search must fit the cluster: wanted 1 x 64 CPU"):
        pipeline.run(["group", "search"])
