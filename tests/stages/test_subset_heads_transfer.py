"""A subset whose head the others starve is found, and ships another model than the network of its group."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import build_rows

from orchestrator.cli import main
from orchestrator.config import ExperimentConfig
from orchestrator.finetune.models import load_card
from orchestrator.finetune.validation import load_thinned_validation
from orchestrator.pipeline import Pipeline
from orchestrator.records import Report

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600), pytest.mark.slow]

SPLITS = {
    "north": ("train", "train", "val", "test"),
    "south": ("train", "train", "val", "test"),
    "bare": ("val", "test"),
}


def write_images(folder: Path) -> Path:
    """Write images of four classes at each site, those at the last one for validation and test alone."""
    counts = {"circle": 40, "stripe": 40, "cross": 40, "noise": 40}
    rows = build_rows(subsets=dict.fromkeys(SPLITS, counts))
    turns = {subset: cycle(splits) for subset, splits in SPLITS.items()}
    folder.mkdir()
    table = pa.Table.from_pylist([{**row, "split": next(turns[str(row["subset"])])} for row in rows])
    pq.write_table(table, folder / "images.parquet")
    return folder


def test_a_subset_whose_head_is_starved_falls_back_to_a_model_of_its_own(
    tiny_experiment: Callable[..., ExperimentConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    data = write_images(tmp_path / "data")
    config = tiny_experiment(
        data={"uri": str(data), "split": {"column": "split"}},
        backbone={"name": "tests.stages.tiny_network:tiny_backbone", "kwargs": {}},
        # Else the site without training images would have no diversity, and be in no group.
        diversity={"split": "all"},
        grouping={"num_groups": 1},
        train={"scope": "multitask", "heads": "subset", "batch_norm": "train"},
        # The head of the second site learns next to nothing beside the other.
        finetune={"batch_size": 16, "optimizer": "sgd", "task_weighting": {"north": 1.0, "south": 0.001}},
        search={"num_samples": 1, "space": {"freeze_depth": [0], "learning_rate": [0.03], "epochs": [8]}},
        evaluate={"on_negative_transfer": "fallback", "explanations": 0},
    )
    Pipeline(config, say=lambda line: None).run()
    run = Path(config.storage_path) / config.name
    report = Report.from_json((run / "report.json").read_bytes(), source="report.json")
    assert report.transfer is not None
    found = {subset.subset: subset for subset in report.transfer.subsets}
    assert {name: subset.action for name, subset in found.items()} == {
        "bare": "kept",
        "north": "kept",
        "south": "fallback",
    }
    south = found["south"]
    assert (south.verdict, south.taken) == ("hurts", "subset_only")
    assert south.gain is not None and south.gain.test_interval is not None and south.gain.test_interval[0] > 0.2
    assert "no training images" in found["bare"].reason
    card = load_card(str(run / south.model))
    assert card.heads == "subset" and [head.task for head in card.tasks] == ["south"]
    validation = load_thinned_validation(str(run / south.model), card, "south")
    assert validation.correct.mean() > 0.9
    assert report.investment is not None
    (group,) = report.investment.groups
    beside = {subset.subset: set(subset.beside) for subset in group.subsets}
    assert "retraining" in beside["south"] and "retraining" not in beside["north"]
    output = tmp_path / "predicted"
    assert main(["predict", str(run / south.model), str(data), "--output", str(output), "--subset", "south"]) == 0
    told = {row["row"]: row["label"] for row in pq.read_table(output).to_pylist()}
    truth = pq.read_table(data / "images.parquet").to_pylist()
    right = [told[number] == row["label"] for number, row in enumerate(truth) if row["subset"] == "south"]
    assert sum(right) > 0.9 * len(right)
    again: list[str] = []
    Pipeline(config, say=again.append).run(["train", "evaluate"])
    assert [line.partition(": ")[2] for line in again] == ["up to date, skipped"] * 2
