"""A head for each subset through the pipeline: searched, trained, tested, explained and predicting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_experiments import SUBSETS

from orchestrator.cli import main
from orchestrator.config import ExperimentConfig
from orchestrator.evaluation.predictions import Predictions
from orchestrator.pipeline import Pipeline
from orchestrator.records import ModelCard, Report

MakeExperiment = Callable[..., ExperimentConfig]
CLASSES = ["circle", "cross", "noise", "stripe"]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("ray_cluster")
def test_every_subset_has_a_head_over_its_own_classes(
    profiled_experiment: MakeExperiment, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = profiled_experiment(
        train={"scope": "multitask", "heads": "subset", "batch_norm": "train"},
        grouping={"num_groups": 1},
        search={"num_samples": 3, "space": {"freeze_depth": [3, 6], "learning_rate": [0.01], "epochs": [2]}},
        evaluate={"explanations": 1, "on_negative_transfer": "report", "label_shift": "em"},
    )
    Pipeline(config, say=lambda line: None).run()
    run = Path(config.storage_path) / config.name
    report = Report.from_json((run / "report.json").read_bytes(), source="report.json")
    (search,), (model,) = report.searches, report.models
    assert all(trial.status == "complete" for trial in search.trials)
    assert {head.task: head.classes for head in model.tasks} == {name: sorted(found) for name, found in SUBSETS.items()}
    assert (model.heads, model.classes) == ("subset", CLASSES)
    _check_evaluation(run, report)
    _check_transfer(report)
    (folder,) = run.glob("groups/*/model")
    _check_prediction(folder, tiny_data, tmp_path, capsys)
    lines: list[str] = []
    Pipeline(config, say=lines.append).run(["search", "train", "evaluate"])
    assert [line for line in lines if "up to date" in line] == [
        f"{stage}: up to date, skipped" for stage in ("search", "train", "evaluate")
    ]


def _check_evaluation(run: Path, report: Report) -> None:
    (evaluation,) = report.evaluations
    predictions = Predictions.from_table(pq.read_table(run / evaluation.predictions))
    for row, name in enumerate(predictions.subsets):
        unknown = [place for place, label in enumerate(CLASSES) if label not in SUBSETS[name]]
        assert not predictions.probabilities[row, unknown].any()
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, atol=1e-5)
    assert evaluation.label_shift is None
    for found in evaluation.heads:
        assert found.label_shift is not None and found.label_shift.num_images == found.num_images
        assert [frequency.label for frequency in found.label_shift.frequencies] == found.classes
    assert [(found.subset, found.classes) for found in evaluation.heads] == [
        (name, sorted(SUBSETS[name])) for name in sorted(SUBSETS)
    ]
    assert all(found.accuracy_gain is not None for found in evaluation.heads)
    assert {found.name for found in evaluation.baselines if found.error is None} == {
        "fixed_rule",
        "head_only",
        "from_scratch",
        "one_head",
    }
    (explained,) = report.explanations
    assert explained.examples and all(example.picture for example in explained.examples)
    assert "<h4>Heads of subsets</h4>" in (run / "report.html").read_text()


def _check_prediction(folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = ModelCard.from_json((folder / "model.json").read_bytes(), source="model.json")
    assert main(["predict", str(folder), str(data), "--output", str(tmp_path / "none")]) == 1
    assert "There are heads for even, full, plain, rich." in " ".join(capsys.readouterr().err.split())
    assert main(["predict", str(folder), str(data), "--output", str(tmp_path / "em"), "--label-shift", "em"]) == 1
    by_column, as_plain = (tmp_path / name for name in ("column", "plain"))
    assert main(["predict", str(folder), str(data), "--output", str(by_column), "--subset-column", "subset"]) == 0
    assert main(["predict", str(folder), str(data), "--output", str(as_plain), "--subset", "plain"]) == 0
    subsets = {
        (shard.name, row): name
        for shard in data.glob("*.parquet")
        for row, name in enumerate(pq.read_table(shard).column("subset").to_pylist())
    }
    plain = {(row["file"], row["row"]): row for row in pq.read_table(as_plain).to_pylist()}
    for row in pq.read_table(by_column).to_pylist():
        place = row["file"], row["row"]
        known = next(head.classes for head in card.tasks if head.task == subsets[place])
        if row["error"]:
            continue
        assert sum(row[f"probability_{name}"] for name in known) == pytest.approx(1, abs=1e-5)
        assert row["label"] in known
        assert (row == plain[place]) or subsets[place] != "plain"
        assert plain[place]["label"] in SUBSETS["plain"]


def _check_transfer(report: Report) -> None:
    """Every subset has a verdict on its own head, beside arms that have heads of subsets too."""
    assert report.transfer is not None and not [arm.error for arm in report.transfer.arms if arm.error]
    (evaluation,) = report.evaluations
    accuracies = {scores.subset: scores.accuracy for scores in evaluation.subsets}
    assert {found.subset for found in report.transfer.subsets} == set(SUBSETS)
    for found in report.transfer.subsets:
        assert found.verdict is not None and found.action == "kept" and found.test is not None
        assert found.test.accuracy == pytest.approx(accuracies[found.subset])
        assert [other.name for other in found.test.others] == ["from_scratch", "head_only", "subset_only"]
