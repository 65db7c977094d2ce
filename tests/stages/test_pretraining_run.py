"""A source without labels is pretrained on, and a later run that takes the weights by their path knows the source."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import build_rows

from orchestrator.config import ExperimentConfig
from orchestrator.diversity.source_features import SourceFeatures
from orchestrator.errors import WeightsError
from orchestrator.pipeline import Pipeline
from orchestrator.records import Catalogue, Distances, PretrainedBackbone, SimSiamPhase, SupervisedPhase

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

MakeExperiment = Callable[..., ExperimentConfig]
SIMSIAM = {"epochs": 2, "batch_size": 16, "width": 16}


def write_source(directory: Path, labels: Callable[[int, str], str | None] | None = None) -> Path:
    """Write 60 images, without a column of labels or with the ones that `labels` gives by number and truth."""
    rows = build_rows(subsets={"source": {"circle": 30, "stripe": 30}}, seed=5)
    columns: dict[str, Any] = {key: [row[key] for row in rows] for key in ("image", "id")}
    if labels is not None:
        columns["label"] = [labels(number, str(row["label"])) for number, row in enumerate(rows)]
    directory.mkdir(parents=True)
    pq.write_table(pa.table(columns), directory / "part.parquet")
    return directory


def run_of(config: ExperimentConfig) -> Path:
    return Path(config.storage_path) / config.name


def backbone_of(config: ExperimentConfig) -> PretrainedBackbone:
    return PretrainedBackbone.from_json((run_of(config) / "backbone.json").read_bytes(), source="backbone.json")


@pytest.mark.slow
def test_weights_learnt_without_labels_are_known_to_a_later_run(
    tiny_experiment: MakeExperiment, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "source")
    pretrain = {"objective": "simsiam", "simsiam": SIMSIAM, "data": {"uri": str(source), "image": "image", "id": "id"}}
    config = tiny_experiment(name="first", backbone={"weights": "pretrain"}, pretrain=pretrain)
    lines: list[str] = []
    Pipeline(config, say=lines.append).run(["pretrain"])
    first = backbone_of(config)
    catalogue = Catalogue.from_json((run_of(config) / "pretrain/catalogue.json").read_bytes(), source="catalogue")
    assert (catalogue.num_images, catalogue.num_quarantined, catalogue.labels) == (60, 0, [])
    assert first.pretraining is not None and first.source_accuracy is None
    (phase,) = first.pretraining.phases
    assert isinstance(phase, SimSiamPhase)
    assert phase.num_images == catalogue.subsets[0].train and len(phase.history) == 2 and phase.seconds > 0
    assert first.pretraining.num_images == 60 and first.pretraining.classes == []
    assert first.pretraining.neighbour_accuracy is None
    assert any("SimSiam, without labels" in line and f"on {phase.num_images} of 60 images" in line for line in lines)
    shutil.rmtree(source)

    weights = str(run_of(config) / first.weights)
    later = tiny_experiment(
        name="later",
        backbone={"weights": weights},
        diversity={"measures": ["label_entropy", "feature_diversity"]},
        grouping={"min_images": 10, "measures": ["label_entropy"], "num_groups": 2},
    )
    Pipeline(later, say=lines.append).run(["pretrain", "catalogue", "profile"])
    second = backbone_of(later)
    assert second.digest == first.digest and second.pretraining is not None
    assert second.pretraining.data_fingerprint == first.pretraining.data_fingerprint
    assert second.pretraining.phases == first.pretraining.phases
    assert second.pretraining.trained_in == str(run_of(config))
    features, kept = (
        SourceFeatures.from_bytes(
            (run_of(each) / str(record.pretraining and record.pretraining.features)).read_bytes(), source=""
        )
        for each, record in ((config, first), (later, second))
    )
    assert features.features.shape == (phase.num_images, first.feature_dim)
    np.testing.assert_array_equal(features.features, kept.features)
    distances = Distances.from_json((run_of(later) / "distances.json").read_bytes(), source="distances.json")
    (known,) = distances.sources
    assert known.kind == "pretraining" and known.own_range > 0 and known.features == second.pretraining.features
    assert [found.subset for found in known.subsets] == ["even", "full", "plain", "rich"]
    assert all(found.distance > 0 for found in known.subsets)

    card = run_of(config) / first.weights.replace(".safetensors", ".card.json")
    card.write_text(json.dumps({**json.loads(card.read_text()), "digest": "of others"}))
    other = later.model_copy(update={"name": "other"})
    with pytest.raises(WeightsError, match="must have the digest of others of the card beside them"):
        Pipeline(other, say=lines.append).run(["pretrain"])


@pytest.mark.slow
@pytest.mark.long
def test_two_workers_learn_images_then_their_labels_and_what_is_done_is_kept(
    tiny_experiment: MakeExperiment, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "source", lambda number, label: None if number % 3 == 0 else label)
    data = {"uri": str(source), "image": "image", "id": "id", "label": "label", "max_bad_fraction": 0.0}
    pretrain = {"objective": "simsiam_then_supervised", "simsiam": SIMSIAM, "data": data, "epochs": 1, "batch_size": 16}
    sections: dict[str, Any] = {"backbone": {"weights": "pretrain"}, "train": {"num_workers": 2, "batch_norm": "train"}}
    config = tiny_experiment(pretrain=pretrain, **sections)
    Pipeline(config, say=lambda line: None).run(["pretrain"])
    first = backbone_of(config).pretraining
    assert first is not None
    images, labels = first.phases
    assert isinstance(images, SimSiamPhase) and isinstance(labels, SupervisedPhase)
    assert images.num_workers == labels.num_workers == 2
    assert images.worker_resources == labels.worker_resources and labels.worker_resources["CPU"] > 0
    assert 20 <= labels.num_images < images.num_images
    assert first.classes == ["circle", "stripe"] and first.neighbour_accuracy is not None
    longer = tiny_experiment(pretrain={**pretrain, "epochs": 2}, **sections)
    Pipeline(longer, say=lambda line: None).run(["pretrain"])
    second = backbone_of(longer).pretraining
    assert second is not None
    assert second.phases[0] == images, "what was learnt before is not learnt again"
    assert len(second.phases[1].history) == 2


@pytest.mark.slow
def test_images_and_labels_of_a_source_that_the_cache_does_not_hold_are_learnt_from_streams(
    tiny_experiment: MakeExperiment, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "source", lambda number, label: None if number % 3 == 0 else label)
    data = {"uri": str(source), "image": "image", "id": "id", "label": "label", "max_cache_bytes": 30 * 32 * 32 * 3}
    pretrain = {"objective": "simsiam_then_supervised", "simsiam": SIMSIAM, "epochs": 2, "data": data}
    config = tiny_experiment(backbone={"weights": "pretrain"}, pretrain=pretrain, train={"num_workers": 2})
    lines: list[str] = []
    Pipeline(config, say=lines.append).run(["pretrain"])
    catalogue = Catalogue.from_json((run_of(config) / "pretrain/catalogue.json").read_bytes(), source="catalogue")
    assert 0 < catalogue.num_cached < catalogue.num_images
    pretraining = backbone_of(config).pretraining
    assert pretraining is not None
    images, labels = pretraining.phases
    # An epoch of a stream ends with an error unless it brings each sample once.
    assert isinstance(images, SimSiamPhase) and isinstance(labels, SupervisedPhase)
    assert len(images.history) == len(labels.history) == 2 and images.num_workers == 2
    assert catalogue.num_cached < labels.num_images < images.num_images == catalogue.subsets[0].train
    assert any("of 60 images of the source are cached as pixels" in line for line in lines)
