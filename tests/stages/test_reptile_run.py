"""A run learns a start over its own subsets, beginning with weights that are there, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import write_parquet_shards
from tiny_experiments import SUBSETS

from orchestrator.config import ExperimentConfig
from orchestrator.errors import RecordError
from orchestrator.pipeline import Pipeline
from orchestrator.records import Catalogue, PretrainedBackbone, ReptilePhase

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

MakeExperiment = Callable[..., ExperimentConfig]
REPTILE = {"steps": 3, "tasks_per_step": 2, "inner_steps": 2, "ways": 2, "episodes": 2, "checkpoint_every": 2}


def run_of(config: ExperimentConfig) -> Path:
    return Path(config.storage_path) / config.name


def backbone_of(config: ExperimentConfig) -> PretrainedBackbone:
    return PretrainedBackbone.from_json((run_of(config) / "backbone.json").read_bytes(), source="backbone.json")


def test_a_start_is_learnt_over_the_training_images_of_the_runs_own_subsets(
    tiny_experiment: MakeExperiment,
) -> None:
    given = tiny_experiment(name="given")
    lines: list[str] = []
    Pipeline(given, say=lines.append).run(["pretrain"])
    weights = run_of(given) / backbone_of(given).weights

    pretrain = {"objective": "reptile", "reptile": REPTILE, "weights": str(weights)}
    config = tiny_experiment(backbone={"weights": "pretrain"}, pretrain=pretrain)
    with pytest.raises(RecordError, match="catalogue"):
        Pipeline(config, say=lines.append).run(["pretrain"])
    lines.clear()
    Pipeline(config, say=lines.append).run(["catalogue", "pretrain"])
    assert next(line for line in lines if "done in" in line).startswith("catalogue: done")
    catalogue = Catalogue.from_json((run_of(config) / "catalogue.json").read_bytes(), source="catalogue.json")
    found = backbone_of(config)
    assert found.pretraining is not None and found.digest != backbone_of(given).digest
    start = found.pretraining.start
    assert start is not None and (start.source, start.digest) == (str(weights), backbone_of(given).digest)
    assert found.source_accuracy is None
    assert found.pretraining.data_fingerprint == catalogue.data_fingerprint
    assert found.pretraining.classes == catalogue.labels
    (phase,) = found.pretraining.phases
    assert isinstance(phase, ReptilePhase)
    assert phase.num_images == sum(subset.train for subset in catalogue.subsets)
    assert phase.num_subsets == len(SUBSETS) and phase.num_workers == 1
    assert [point.step for point in phase.history] == [0, 2, 3]
    assert phase.history[0].accuracy is not None and phase.history[-1].accuracy is not None
    assert (run_of(config) / found.weights.replace(".safetensors", ".card.json")).exists()
    assert any(
        "Reptile, a start for each subset" in line and f"It began with the weights {weights}" in line for line in lines
    )
    Pipeline(config, say=lines.append).run(["catalogue", "pretrain"])
    assert lines[-2:] == ["catalogue: up to date, skipped", "pretrain: up to date, skipped"]


@pytest.mark.long
def test_two_workers_learn_a_start_over_subsets_of_a_source_and_then_its_labels(
    tiny_experiment: MakeExperiment, tmp_path: Path
) -> None:
    subsets = {"north": {"circle": 12, "stripe": 12}, "south": {"stripe": 12, "cross": 12}, "west": {"cross": 12}}
    source = write_parquet_shards(tmp_path / "source", subsets=subsets, seed=7)
    data = {"uri": str(source), "image": "image", "label": "label", "subset": "subset", "id": "id"}
    pretrain = {"objective": "reptile_then_supervised", "reptile": REPTILE, "data": data, "epochs": 1, "batch_size": 16}
    sections: dict[str, Any] = {"backbone": {"weights": "pretrain"}, "train": {"num_workers": 2}}
    config = tiny_experiment(pretrain=pretrain, **sections)
    Pipeline(config, say=lambda line: None).run(["pretrain"])
    found = backbone_of(config).pretraining
    assert found is not None and found.start is None and found.classes == ["circle", "cross", "stripe"]
    start, labels = found.phases
    assert isinstance(start, ReptilePhase) and start.num_workers == labels.num_workers == 2
    assert start.num_subsets == 2, "one class alone is no task"
    again = tiny_experiment(pretrain={**pretrain, "epochs": 2}, **sections)
    Pipeline(again, say=lambda line: None).run(["pretrain"])
    longer = backbone_of(again).pretraining
    assert longer is not None and longer.phases[0] == start, "what was learnt before is not learnt again"
