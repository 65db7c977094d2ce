"""A model for each subset through the pipeline: packed tasks, resumed by finished subset, tested beside the group's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.config import ExperimentConfig
from orchestrator.finetune.validation import load_thinned_validation
from orchestrator.pipeline import Pipeline
from orchestrator.records import ModelCard, Report, SubsetModels
from orchestrator.stages import subset_predictions

MakeExperiment = Callable[..., ExperimentConfig]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("ray_cluster")
def test_every_subset_gets_a_model_and_a_lost_one_is_trained_again(
    profiled_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several tasks predict what one subset's model is tested on.
    monkeypatch.setattr(subset_predictions, "PART_ROWS", 4)
    config = profiled_experiment(
        train={"scope": "subset", "batch_norm": "train"},
        grouping={"num_groups": 1, "min_images": 19},
        evaluate={"explanations": 0},
    )
    lines: list[str] = []
    Pipeline(config, say=lines.append).run()
    run = Path(config.storage_path) / config.name
    (folder,) = run.glob("groups/*/subsets")
    models = SubsetModels.from_json((folder / "models.json").read_bytes(), source="models.json")
    own = {found.subset for found in models.models if found.model}
    assert len(models.models) == 4 and 1 <= len(own) < 4
    for found in models.models:
        assert (found.model is None) == (found.num_train < 19) == bool(found.reason)
        if found.model:
            card = ModelCard.from_json((run / found.model / "model.json").read_bytes(), source="model.json")
            assert card.subsets == [found.subset] and len(card.history) == card.hyperparameters.epochs
            validation = load_thinned_validation(str(run / found.model), card, found.subset)
            assert len(validation) == found.num_validation
            assert validation.correct.mean() == pytest.approx(card.history[card.best_epoch - 1].val_accuracy)
    _check_report(run, own)
    lost = folder / sorted(own)[0] / "model" / "model.json"
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*/model/model.json") if path != lost}
    before = lost.read_bytes()
    lost.unlink()
    (folder / "models.json").unlink()
    lines.clear()
    Pipeline(config, say=lines.append).run(["train", "evaluate"])
    assert sum(line.startswith("train ") and "kept" in line for line in lines) == 1
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    again, earlier = (ModelCard.from_json(text, source="model.json") for text in (lost.read_bytes(), before))
    assert again.weights_digest == earlier.weights_digest
    assert "evaluate: up to date, skipped" in lines


def _check_report(run: Path, own: set[str]) -> None:
    report = Report.from_json((run / "report.json").read_bytes(), source="report.json")
    (tested,) = report.subset_evaluations
    assert {found.subset for found in tested.subsets if found.scores} == own == set(tested.predictions)
    by_subset = {found.subset: found for found in report.evaluations[0].subsets}
    for found in tested.subsets:
        if found.scores is not None:
            assert found.scores.num_images == by_subset[found.subset].num_images
            assert pq.read_table(run / tested.predictions[found.subset]).num_rows == found.scores.num_images
    assert report.investment is not None
    charged = {found.subset for group in report.investment.groups for found in group.subsets if found.beside}
    assert charged == own
    assert "Models of single subsets" in (run / "report.html").read_text()
