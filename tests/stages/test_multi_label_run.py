"""Images of any number of labels through the pipeline: grouped, searched, trained, judged, reported, predicted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_set_images import SHAPES, label_set_rows
from sklearn.metrics import average_precision_score, f1_score, hamming_loss

from orchestrator.cli import main
from orchestrator.config import ExperimentConfig
from orchestrator.pipeline import Pipeline
from orchestrator.records import Evaluation, Report

MakeExperiment = Callable[..., ExperimentConfig]


def write(directory: Path) -> Path:
    rows = label_set_rows({"a": 60, "b": 60}, shares={"bar": 0.5, "disc": 0.4, "frame": 0.3})
    directory.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), directory / "x.parquet")
    return directory


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ray_cluster")
def test_images_of_any_number_of_labels_go_the_whole_way(tiny_experiment: MakeExperiment, tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    config = tiny_experiment(
        data={"uri": str(data), "label": "labels", "label_separator": "|"},
        diversity={"measures": ["label_entropy", "feature_diversity"]},
        grouping={"num_groups": 1},
        cache={"activations": "always"},
        search={
            "num_samples": 2,
            "folds": 2,
            "space": {"freeze_depth": [0, 6], "learning_rate": [0.01], "epochs": [4], "mixing": ["none", "mixup"]},
        },
    )
    Pipeline(config, say=lambda line: None).run()
    run = Path(config.storage_path) / config.name
    report = Report.from_json((run / "report.json").read_bytes(), source="report.json")
    (search,), (evaluation,), (model,) = report.searches, report.evaluations, report.models
    assert [trial.error for trial in search.trials] == [None, None]
    assert model.classes == list(SHAPES) and model.hyperparameters.loss == "binary_cross_entropy"
    assert report.catalogue.labels == list(SHAPES) and report.catalogue.multi_label
    assert sum(profile.num_images for profile in report.profile.subsets) == sum(
        subset.train for subset in report.catalogue.subsets
    )
    assert all(found.feature_diversity and found.h_score is None for found in report.profile.subsets)
    assert report.profile.class_means is None and (run / "distances.json").exists()
    _check_evaluation(run, evaluation)
    assert "Any number of labels" in (run / "report.html").read_text()
    _check_resume(config)
    _check_prediction(run, data, tmp_path / "predicted")


def _check_evaluation(run: Path, evaluation: Evaluation) -> None:
    table = pq.read_table(run / evaluation.predictions)
    truth, said = (
        np.stack([np.array(row) for row in table.column(name).to_pylist()]) for name in ("label", "predicted")
    )
    probabilities = np.stack([np.array(row) for row in table.column("probabilities").to_pylist()])
    scores = evaluation.multi_label
    assert scores is not None and 0 < truth.mean() < 1
    assert np.array_equal(said, probabilities >= 0.5)
    assert evaluation.accuracy == pytest.approx((truth == said).all(axis=1).mean(), abs=1e-9)
    assert scores.at_half.hamming_loss == pytest.approx(hamming_loss(truth, said), abs=1e-9)
    assert scores.at_half.micro_f1 == pytest.approx(f1_score(truth, said, average="micro"), abs=1e-9)
    precision = average_precision_score(truth, probabilities, average="macro")
    assert scores.mean_average_precision == pytest.approx(precision, abs=1e-9)
    assert precision > 0.5
    for baseline in evaluation.baselines:
        assert baseline.accuracy is not None and baseline.mean_average_precision_gain_interval is not None


def _check_resume(config: ExperimentConfig) -> None:
    lines: list[str] = []
    Pipeline(config, say=lines.append).run()
    skipped = [line.partition(":")[0] for line in lines if line.endswith("up to date, skipped")]
    assert {"catalogue", "profile", "group", "search", "train", "evaluate"} <= set(skipped), lines


def _check_prediction(run: Path, data: Path, output: Path) -> None:
    (folder,) = run.glob("groups/*/model")
    assert main(["predict", str(folder), str(data), "--output", str(output)]) == 0
    found = pq.read_table(output).to_pylist()
    assert len(found) == 120 and "label" not in found[0]
    for row in found:
        assert row["labels"] == [name for name in SHAPES if row[f"probability_{name}"] >= 0.5]
    # Those of a softmax would sum to one.
    assert any(abs(sum(row[f"probability_{name}"] for name in SHAPES) - 1) > 0.05 for row in found)
    assert main(["predict", str(folder), str(data), "--output", f"{output}-2", "--label-shift", "em"]) == 1
