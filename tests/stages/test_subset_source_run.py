"""Models of single subsets beside a source that is to be rejected: every stage real, to the score in predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from builders import write_parquet_shards

from orchestrator.cli import main
from orchestrator.config import ExperimentConfig
from orchestrator.finetune.validation import load_thinned_validation
from orchestrator.pipeline import Pipeline
from orchestrator.records import ModelCard, Report

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600), pytest.mark.slow]


def test_models_of_subsets_reject_what_the_groups_rejects(
    profiled_experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    source = write_parquet_shards(
        tmp_path / "source", subsets={"elsewhere": {"blob": 30, "noise": 30}}, num_shards=1, seed=3
    )
    config = profiled_experiment(
        source={"uri": str(source), "as_negatives": "reject", "batch_share": 0.3},
        grouping={"num_groups": 1, "min_images": 19},
        search={"num_samples": 1, "space": {"freeze_depth": [3], "learning_rate": [0.003], "epochs": [2]}},
        train={"scope": "subset", "batch_norm": "train"},
        evaluate={"explanations": 0, "bootstrap_samples": 100},
    )
    lines: list[str] = []
    Pipeline(config, say=lines.append).run()
    run = Path(config.storage_path) / config.name
    report = Report.from_json((run / "report.json").read_bytes(), source="report.json")
    (of_group,), (tested,) = report.models, report.subset_evaluations
    own = [found for found in tested.subsets if found.model is not None]
    assert 1 <= len(own) < len(tested.subsets)
    for found in own:
        assert found.model is not None and found.scores is not None and found.outliers is not None
        card = ModelCard.from_json((run / found.model / "model.json").read_bytes(), source="model.json")
        assert card.source is not None and card.source == of_group.source
        assert card.output_counts == [len(card.classes) + 1]
        assert found.outliers.num_target == found.scores.num_images
        assert found.outliers.num_source == _unseen(run)
        table = pq.read_table(run / tested.predictions[found.subset])
        assert all(0 <= score <= 1 for score in table.column("out_of_distribution").to_pylist())
        validation = load_thinned_validation(str(run / found.model), card, found.subset)
        assert validation.outlier_scores is not None
        assert validation.correct.mean() == pytest.approx(card.history[card.best_epoch - 1].val_accuracy)
    assert all(found.outliers is None for found in tested.subsets if found.model is None)
    assert "trained together with the source, as the group" in (run / "report.html").read_text()
    assert report.investment is not None
    costs = {found.subset: found.beside for group in report.investment.groups for found in group.subsets}
    assert {name for name, beside in costs.items() if "subset_models" in beside} == {found.subset for found in own}
    again: list[str] = []
    Pipeline(config, say=again.append).run(["train", "evaluate"])
    assert [line.partition(": ")[2] for line in again] == ["up to date, skipped"] * 2
    _check_prediction(run / str(own[0].model), config.data.uri, tmp_path / "predicted", own[0].classes)


def _check_prediction(model: Path, images: str, output: Path, classes: list[str]) -> None:
    assert main(["predict", str(model), images, "--output", str(output), "--label-shift", "em"]) == 0
    rows = [row for row in pq.read_table(output).to_pylist() if row["error"] is None]
    assert rows and all(0 <= row["out_of_distribution"] <= 1 for row in rows)
    for row in rows:
        for column in ("probability", "corrected_probability"):
            assert sum(row[f"{column}_{name}"] for name in classes) == pytest.approx(1.0, abs=1e-5)


def _unseen(run: Path) -> int:
    (path,) = run.glob("source/catalogue/*/catalogue.parquet")
    return sum(split in ("val", "test") for split in pq.read_table(path).column("split").to_pylist())
