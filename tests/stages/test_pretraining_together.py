"""A source task is learnt together with the run's own training images, from given weights, by two workers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import write_parquet_shards

from orchestrator.config import ExperimentConfig
from orchestrator.diversity.source_features import SourceFeatures
from orchestrator.finetune.backbones import resolve_spec
from orchestrator.finetune.models import save_backbone
from orchestrator.finetune.weights import load_pretrained
from orchestrator.pipeline import Pipeline
from orchestrator.records import Catalogue, PretrainedBackbone, SupervisedPhase

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600), pytest.mark.slow]

SOURCE_DATA = {"image": "image", "label": "label", "id": "id"}


def test_labels_of_source_and_target_are_learnt_together_from_given_weights(
    tiny_experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    uri = write_parquet_shards(tmp_path / "source", subsets={"all": {"circle": 30, "blob": 30}}, num_shards=1, seed=5)
    weights = str(tmp_path / "start.safetensors")
    backbone, digest = load_pretrained("none", resolve_spec(tiny_experiment().backbone), seed=5)
    save_backbone(weights, backbone)
    pretrain: dict[str, Any] = {
        "data": {"uri": str(uri), **SOURCE_DATA},
        "weights": weights,
        "epochs": 2,
        "batch_size": 16,
        "regularizer": "l2_sp",
        "with_target": {"batch_share": 0.4, "weight": 0.5},
    }
    # Half of the run's own images are not cached: they are streamed beside the source.
    data = {"max_bad_fraction": 0.05, "max_cache_bytes": 85 * 32 * 32 * 3}
    train = {"num_workers": 2, "batch_norm": "train"}
    sections: dict[str, Any] = {"backbone": {"weights": "pretrain"}, "data": data, "train": train}
    config = tiny_experiment(pretrain=pretrain, **sections)
    lines: list[str] = []
    Pipeline(config, say=lines.append).run(["pretrain", "catalogue"])
    done = [line.partition(":")[0] for line in lines if "done in" in line]
    assert done == ["catalogue", "pretrain"], "the run's own images are catalogued first"
    assert any("together with" in line and "40.0% of every batch, their loss by 0.5" in line for line in lines)

    run = Path(config.storage_path) / config.name
    own, source = (
        Catalogue.from_json((run / name).read_bytes(), source=name)
        for name in ("catalogue.json", "pretrain/catalogue.json")
    )
    record = PretrainedBackbone.from_json((run / "backbone.json").read_bytes(), source="backbone.json")
    card = json.loads((run / record.weights.replace(".safetensors", ".card.json")).read_text())
    found = record.pretraining
    assert found is not None and found.target is not None and found.start is not None
    assert 0 < own.num_cached < own.num_images
    assert found.target.num_images == sum(count.train for count in own.subsets) < own.num_images
    assert found.target.data_fingerprint == own.data_fingerprint != found.data_fingerprint == source.data_fingerprint
    assert (found.target.shared_classes, found.target.own_classes) == (["circle"], ["cross", "noise", "stripe"])
    assert (found.start.source, found.start.digest) == (weights, digest) != (weights, record.digest)
    (phase,) = found.phases
    assert isinstance(phase, SupervisedPhase) and phase.num_workers == 2
    assert phase.hyperparameters.regularizer == "l2_sp" and phase.num_images == source.subsets[0].train
    assert card["pretraining"]["target"]["weight"] == 0.5 and card["pretraining"]["start"]["digest"] == digest
    # What later runs measure their distance from is the source alone.
    features = SourceFeatures.from_bytes((run / str(found.features)).read_bytes(), source="features")
    assert len(features.features) == source.subsets[0].train and set(features.labels) == {"circle", "blob"}
    assert found.classes == ["blob", "circle"]

    again: list[str] = []
    Pipeline(config, say=again.append).run(["pretrain"])
    assert again == ["pretrain: up to date, skipped"]
    heavier = tiny_experiment(pretrain={**pretrain, "with_target": {"batch_share": 0.4, "weight": 5.0}}, **sections)
    Pipeline(heavier, say=again.append).run(["pretrain"])
    other = PretrainedBackbone.from_json((run / "backbone.json").read_bytes(), source="backbone.json")
    assert other.digest != record.digest
    assert not any("catalogue: reading" in line for line in again), "no data is read again for another weight"
