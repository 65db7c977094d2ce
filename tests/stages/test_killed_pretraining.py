"""A source task whose worker is killed in each of its phases ends with the weights that it would have had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import build_rows
from dying_network import dying_spec, read_notes

from orchestrator.config import ExperimentConfig
from orchestrator.pipeline import Pipeline
from orchestrator.records import PretrainedBackbone, Pretraining, SimSiamPhase, SupervisedPhase

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

NUM_TRAIN, NUM_VALIDATION, BATCH = 48, 12, 16
STEPS = NUM_TRAIN // BATCH
"""Steps of an epoch, of both objectives; each is trained for two."""


def write_source(directory: Path) -> Path:
    half = (NUM_TRAIN + NUM_VALIDATION) // 2
    rows = build_rows(subsets={"source": {"circle": half, "stripe": half}}, seed=5)
    columns: dict[str, Any] = {key: [row[key] for row in rows] for key in ("image", "id", "label")}
    columns["split"] = ["train"] * NUM_TRAIN + ["val"] * NUM_VALIDATION
    directory.mkdir()
    pq.write_table(pa.table(columns), directory / "part.parquet")
    return directory


def test_killed_in_either_phase_and_resumed_it_is_uninterrupted_to_the_bit(
    tiny_experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    columns = {"image": "image", "label": "label", "id": "id", "split": {"column": "split"}}
    pretrain = {
        "objective": "simsiam_then_supervised",
        "simsiam": {"epochs": 2, "batch_size": BATCH, "width": 16},
        "data": {"uri": str(write_source(tmp_path / "source")), **columns},
        "epochs": 2,
        "batch_size": BATCH,
    }

    def pretrained(name: str, *deaths: int) -> tuple[PretrainedBackbone, int]:
        """Give the weights' record, and how many batches were begun."""
        spec = dying_spec(tmp_path / f"{name}.notes", *deaths)
        backbone = {**spec.model_dump(mode="json"), "weights": "pretrain"}
        config = tiny_experiment(name=name, backbone=backbone, pretrain=pretrain)
        Pipeline(config, say=lambda line: None).run(["pretrain"])
        record = (Path(config.storage_path) / name / "backbone.json").read_bytes()
        return PretrainedBackbone.from_json(record, source=name), len(read_notes(tmp_path / f"{name}.notes"))

    whole, num_batches = pretrained("whole")
    views = (num_batches - 2 * STEPS) // (2 * STEPS)
    assert views in (1, 2) and num_batches == 2 * STEPS * (views + 1)
    # In the second epoch of each objective a batch is the last of its process.
    first = views * STEPS + 2
    second = 2 * views * STEPS + 2 + STEPS + 2
    killed, num_begun = pretrained("killed", first, second)
    assert num_begun == num_batches + 2 + 2, "finished epochs and phases are not trained again"
    assert killed.digest == whole.digest
    assert histories(killed.pretraining) == histories(whole.pretraining)


def histories(found: Pretraining | None) -> list[list[Any]]:
    assert found is not None
    simsiam, supervised = found.phases
    assert isinstance(simsiam, SimSiamPhase) and isinstance(supervised, SupervisedPhase)
    return [list(simsiam.history), list(supervised.history)]
