"""Two label columns through the pipeline: one network with two heads, tested and predicting for both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import build_rows
from sklearn.metrics import roc_auc_score
from tiny_experiments import SUBSETS

from orchestrator.cli import main
from orchestrator.config import ExperimentConfig
from orchestrator.evaluation.predictions import Predictions
from orchestrator.pipeline import Pipeline
from orchestrator.records import ModelCard, PredictedFrequencies, Report, TaskClasses

MakeExperiment = Callable[..., ExperimentConfig]
ROUND = {"circle": "round", "stripe": "straight", "cross": "straight", "noise": None}


def write(directory: Path) -> Path:
    rows = [{**row, "form": ROUND[str(row["label"])]} for row in build_rows(subsets=SUBSETS)]
    directory.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), directory / "x.parquet")
    return directory


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ray_cluster")
def test_two_tasks_are_searched_trained_tested_and_predicted_at_once(
    tiny_experiment: MakeExperiment, tmp_path: Path
) -> None:
    data = write(tmp_path / "data")
    config = tiny_experiment(
        data={"uri": str(data), "tasks": ["form"]},
        train={"scope": "multitask", "batch_norm": "train"},
        finetune={"task_weighting": "uncertainty"},
        grouping={"num_groups": 1},
        evaluate={"explanations": 0, "on_negative_transfer": "report", "label_shift": "em"},
    )
    Pipeline(config, say=lambda line: None).run()
    run = Path(config.storage_path) / config.name
    report = Report.from_json((run / "report.json").read_bytes(), source="report.json")
    (search,), (evaluation,), (model,) = report.searches, report.evaluations, report.models
    assert all(trial.status == "complete" for trial in search.trials)
    tasks = [
        TaskClasses(task="label", classes=["circle", "cross", "noise", "stripe"]),
        TaskClasses(task="form", classes=["round", "straight"]),
    ]
    assert model.tasks == tasks
    _check_evaluation(run, report, evaluation.num_images)
    _check_transfer(report)
    (folder,) = run.glob("groups/*/model")
    assert ModelCard.from_json((folder / "model.json").read_bytes(), source="model.json") == model
    assert main(["predict", str(folder), str(data), "--output", str(tmp_path / "predicted")]) == 0
    found = pq.read_table(tmp_path / "predicted").to_pylist()
    for row in found:
        names = [f"probability[form]_{name}" for name in ("round", "straight")]
        assert sum(row[name] for name in names) == pytest.approx(1, abs=1e-5)
        assert sum(row[f"probability_{name}"] for name in tasks[0].classes) == pytest.approx(1, abs=1e-5)
        assert row[f"probability[form]_{row['label[form]']}"] == max(row[name] for name in names)
    _check_correction(folder, data, tmp_path / "corrected")


def _check_correction(model: Path, data: Path, output: Path) -> None:
    """Predictions of each task are corrected for its own frequencies, by its own validation images."""
    assert main(["predict", str(model), str(data), "--output", str(output), "--label-shift", "em"]) == 0
    record = PredictedFrequencies.from_json((output / "_label_shift.json").read_text(), source="label shift")
    (form,) = record.tasks
    assert [found.label for found in form.frequencies] == ["round", "straight"]
    # Noise has no form.
    assert 0 < form.num_validation < record.num_validation
    for row in pq.read_table(output).to_pylist():
        for suffix, classes in (("", ["circle", "cross", "noise", "stripe"]), ("[form]", ["round", "straight"])):
            corrected = {name: row[f"corrected_probability{suffix}_{name}"] for name in classes}
            assert sum(corrected.values()) == pytest.approx(1.0, abs=1e-5)
            assert row[f"corrected_label{suffix}"] == max(corrected, key=corrected.__getitem__)


def _check_evaluation(run: Path, report: Report, num_images: int) -> None:
    (evaluation,) = report.evaluations
    (form,) = evaluation.tasks
    table = pq.read_table(run / report.catalogue.table).to_pylist()
    tested = [row for row in table if row["ok"] and row["split"] == "test"]
    labelled = [row for row in tested if row["tasks"][0] is not None]
    assert num_images == len(tested) > len(labelled) == form.num_images > 0
    assert (form.task, form.classes) == ("form", ["round", "straight"])
    assert form.accuracy is not None and form.macro_f1 is not None and form.cross_entropy is not None
    predictions = Predictions.from_table(pq.read_table(run / form.predictions))
    assert len(predictions) == form.num_images
    areas = [roc_auc_score(predictions.truth == place, predictions.probabilities[:, place]) for place in range(2)]
    assert [found.auc for found in form.by_class] == pytest.approx(areas)
    assert form.macro_auc == pytest.approx(sum(areas) / 2)
    assert evaluation.label_shift is not None and form.label_shift is not None
    assert [found.label for found in form.label_shift.whole.frequencies] == ["round", "straight"]
    assert form.label_shift.whole.num_images == form.num_images
    assert all(baseline.accuracy is not None for baseline in evaluation.baselines)
    assert "<h4>Tasks</h4>" in (run / "report.html").read_text()


def _check_transfer(report: Report) -> None:
    """Every subset has a verdict by the first task, beside arms that learnt both."""
    assert report.transfer is not None and not [arm.error for arm in report.transfer.arms if arm.error]
    alone = [arm.subset for arm in report.transfer.arms if arm.name == "subset_only"]
    assert sorted(map(str, alone)) == sorted(SUBSETS)
    (evaluation,) = report.evaluations
    accuracies = {scores.subset: scores.accuracy for scores in evaluation.subsets}
    for found in report.transfer.subsets:
        assert found.verdict is not None and found.action == "kept" and found.test is not None
        assert found.test.accuracy == pytest.approx(accuracies[found.subset])
        assert [other.name for other in found.test.others] == ["from_scratch", "head_only", "subset_only"]
