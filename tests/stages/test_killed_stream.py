"""SimSiam of a stream whose worker is killed goes on from its last epoch, and brings every image once an epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import class_image, encode_image
from dying_network import IMAGE_PX, dying_spec, numbered, read_notes

from orchestrator.config import ExperimentConfig
from orchestrator.pipeline import Pipeline
from orchestrator.records import PretrainedBackbone, SimSiamPhase

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

NUM_IMAGES, BATCH, EPOCHS = 48, 16, 2
STEPS = NUM_IMAGES // BATCH
VIEWS = 2
# Views that are the image itself, so that the network knows it by its number.
PLAIN = {"smallest_crop": 1.0, "flip": False, "colour": 0.0, "grey": 0.0, "blur": 0.0}


def write_source(directory: Path) -> Path:
    rng = np.random.default_rng(0)
    pixels = numbered(np.stack([class_image(("circle", "stripe")[n % 2], rng, IMAGE_PX) for n in range(NUM_IMAGES)]))
    directory.mkdir()
    table = pa.table({"image": [encode_image(array) for array in pixels], "id": [str(n) for n in range(NUM_IMAGES)]})
    pq.write_table(table, directory / "part.parquet")
    return directory


def test_killed_in_a_streamed_epoch_and_resumed_it_learns_each_image_of_every_epoch_once(
    tiny_experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    data = {
        "uri": str(write_source(tmp_path / "source")),
        "image": "image",
        "id": "id",
        "split": {"fractions": {"val": 0.0, "test": 0.0}},
        "max_cache_bytes": NUM_IMAGES // 2 * IMAGE_PX * IMAGE_PX * 3,
    }
    simsiam = {"epochs": EPOCHS, "batch_size": BATCH, "width": 16, **PLAIN}
    notes = tmp_path / "notes"
    # The first batch of the second epoch is the last of its process.
    spec = dying_spec(notes, VIEWS * STEPS + VIEWS)
    config = tiny_experiment(
        backbone={**spec.model_dump(mode="json"), "weights": "pretrain"},
        pretrain={"objective": "simsiam", "simsiam": simsiam, "data": data},
    )
    Pipeline(config, say=lambda line: None).run(["pretrain"])
    directory = Path(config.storage_path) / config.name
    record = PretrainedBackbone.from_json((directory / "backbone.json").read_bytes(), source="backbone.json")
    assert record.pretraining is not None
    (phase,) = record.pretraining.phases
    assert isinstance(phase, SimSiamPhase) and phase.num_images == NUM_IMAGES
    assert [metrics.epoch for metrics in phase.history] == [1, 2]
    batches = read_notes(notes)
    assert len(batches) == EPOCHS * VIEWS * STEPS + VIEWS, "the finished epoch is not trained again"
    epochs = batches[: VIEWS * STEPS], batches[-VIEWS * STEPS :]
    for seen in epochs:
        assert Counter(chain.from_iterable(seen)) == dict.fromkeys(range(NUM_IMAGES), VIEWS)
