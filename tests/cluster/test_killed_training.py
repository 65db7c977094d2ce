"""A final training whose process is killed in the middle of an epoch goes on from the last one that it finished."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from builders import class_image
from dying_network import IMAGE_PX, dying_spec, numbered, read_notes
from torch import Tensor
from workbenches import random_workbench

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import observe_cluster
from orchestrator.cluster.training import TrainingJob, TrainingPlan, train_groups
from orchestrator.config import DataConfig
from orchestrator.data.pixels import PixelCache, write_pixels
from orchestrator.data.reader import PixelReader, write_fragments
from orchestrator.data.samples import CachedSamples
from orchestrator.data.streamed_source import StreamedSource
from orchestrator.errors import OrchestratorError
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.models import load_model
from orchestrator.records import Hyperparameters, ModelCard

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

CLASSES = ("circle", "cross")
NUM_TRAIN, NUM_VALIDATION, NUM_SOURCE, BATCH = 60, 20, 60, 12
FIRST_OF_SOURCE = NUM_TRAIN + NUM_VALIDATION
EPOCHS, STEPS = 4, NUM_TRAIN // BATCH


def recipe(**changes: object) -> Hyperparameters:
    fields = {"freeze_depth": 0, "learning_rate": 1e-2, "epochs": EPOCHS, "batch_size": BATCH, "optimizer": "adam"}
    return Hyperparameters.model_validate({**fields, "weight_decay": 0.0, **changes})


def some_samples(directory: Path, *, has_source: bool) -> GroupSamples:
    rng = np.random.default_rng(0)
    labels = np.arange(NUM_TRAIN + NUM_VALIDATION + NUM_SOURCE, dtype=np.int64) % len(CLASSES)
    write_pixels(str(directory), 0, numbered(np.stack([class_image(CLASSES[n], rng, IMAGE_PX) for n in labels])))

    def part(start: int, stop: int) -> CachedSamples:
        rows = np.arange(start, stop, dtype=np.int32)
        cache = PixelCache.open(str(directory), np.zeros_like(rows), rows)
        return CachedSamples(labels=labels[start:stop], keys=rows.astype(np.uint64), pixels=cache)

    train, validation = part(0, NUM_TRAIN), part(NUM_TRAIN, FIRST_OF_SOURCE)
    # Of the source a few images are held.
    companion = Companion(samples=part(FIRST_OF_SOURCE, FIRST_OF_SOURCE + 8)) if has_source else None
    return GroupSamples(group="only", classes=CLASSES, train=train, validation=validation, companion=companion)


@dataclass(frozen=True)
class Trained:
    """What a training left behind: its card, its model, and the images of every step that it began."""

    card: ModelCard
    weights: dict[str, Tensor]
    notes: list[list[int]]


def trained(
    directory: Path, *deaths: int, is_streamed: bool = False, has_source: bool = False, **changes: object
) -> Trained:
    """Train with Ray Train on one worker, which dies at these steps; a source beside the target is streamed."""
    directory.mkdir()
    notes, pixels = directory / "notes", str(directory / "pixels")
    samples = some_samples(directory / "pixels", has_source=has_source)
    listing = str(directory / "fragments.json")
    write_fragments(listing, [])
    reader = PixelReader(
        data=DataConfig(uri=pixels), image_size=IMAGE_PX, resize="crop", pixels_uri=pixels, fragments_uri=listing
    )
    job = TrainingJob(
        group="only",
        subsets=("only",),
        hyperparameters=recipe(**changes),
        fingerprint="f",
        data_fingerprint="d",
        run_name="only-f",
        model_uri=str(directory / "model"),
        storage_uri=str(directory / "ray_train"),
        stream=blocks_to_stream() if is_streamed else None,
        reader=reader,
        source_stream=source_to_stream(reader) if has_source else None,
    )
    plan = TrainingPlan(
        num_workers=1,
        resources_per_worker={"CPU": 1.0},
        use_gpu=False,
        max_failures=2,
        num_to_keep=1,
        models_at_once=1,
        stall_timeout_s=120,
    )
    workbench = replace(random_workbench(dying_spec(notes, *deaths)), batch_norm="train")
    shape = observe_cluster(elastic=False)
    ((_, card),) = train_groups([job], {job.run_name: samples}, workbench, plan, shape)
    if isinstance(card, OrchestratorError):
        raise card
    model, _ = load_model(job.model_uri)
    return Trained(card=card, weights=model.state_dict(), notes=read_notes(notes))


def some_rows(first: int, count: int) -> pa.Table:
    """Give samples as catalogue rows."""
    numbers = range(first, first + count)
    return pa.table(
        {
            "label": [CLASSES[number % len(CLASSES)] for number in numbers],
            "file": ["a"] * count,
            "row": pa.array(numbers, pa.int64()),
            "fragment": pa.array([0] * count, pa.int32()),
            "pixel_row": pa.array(numbers, pa.int32()),
        }
    )


def blocks_to_stream() -> tuple[pa.Table, ...]:
    """Give the training samples in blocks of ten."""
    return tuple(some_rows(start, 10) for start in range(0, NUM_TRAIN, 10))


def source_to_stream(reader: PixelReader) -> StreamedSource:
    rows = some_rows(FIRST_OF_SOURCE, NUM_SOURCE)
    return StreamedSource.of(rows, np.arange(NUM_SOURCE, dtype=np.int64) % len(CLASSES), reader)


def test_killed_in_both_phases_and_resumed_it_is_uninterrupted_to_the_bit(tmp_path: Path) -> None:
    method = {"strategy": "probe_then_finetune", "head_share": 0.5, "schedule": "cosine", "ema_decay": 0.5}
    whole = trained(tmp_path / "whole", **method)
    # Five steps make an epoch: the third of epoch 2 is lost while the head is fitted, and that of epoch 4 after.
    killed = trained(tmp_path / "killed", 8, 21, **method)
    assert len(whole.notes) == EPOCHS * STEPS and len(killed.notes) == EPOCHS * STEPS + 6
    # What was not lost are the same images in the same order: no finished epoch was trained again.
    assert killed.notes[:5] + killed.notes[8:18] + killed.notes[21:] == whole.notes
    assert killed.notes[5:8] == killed.notes[8:11] and killed.notes[18:21] == killed.notes[21:24]
    assert killed.card.history == whole.card.history and killed.card.best_epoch == whole.card.best_epoch
    assert all(torch.equal(tensor, whole.weights[name]) for name, tensor in killed.weights.items())


def test_a_source_that_is_streamed_goes_on_with_the_images_that_it_would_have_given(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", has_source=True, epochs=3)
    killed = trained(tmp_path / "killed", 8, has_source=True, epochs=3)
    assert killed.notes[:5] + killed.notes[8:] == whole.notes and killed.notes[5:8] == killed.notes[8:11]
    assert all(torch.equal(tensor, whole.weights[name]) for name, tensor in killed.weights.items())
    # As many images of it beside each batch as there are in that, and over the training each equally often.
    drawn = [[number for number in step if number >= FIRST_OF_SOURCE] for step in whole.notes]
    assert [len(numbers) for numbers in drawn] == [BATCH] * 3 * STEPS
    everyone = range(FIRST_OF_SOURCE, FIRST_OF_SOURCE + NUM_SOURCE)
    assert Counter(number for numbers in drawn for number in numbers) == Counter(dict.fromkeys(everyone, 3))


def test_a_stream_that_is_killed_goes_on_after_its_last_epoch_and_every_image_still_counts_once(
    tmp_path: Path,
) -> None:
    # The order is mixed within a buffer alone, and is not kept: what the epochs show is all that is promised.
    killed = trained(tmp_path / "killed", 8, is_streamed=True, epochs=3)
    assert [metrics.epoch for metrics in killed.card.history] == [1, 2, 3]
    before, after = (np.concatenate(notes) for notes in (killed.notes[:8], killed.notes[8:]))
    assert NUM_TRAIN < len(before) < 2 * NUM_TRAIN and len(after) == 2 * NUM_TRAIN
    for epoch in (before[:NUM_TRAIN], after[:NUM_TRAIN], after[NUM_TRAIN:]):
        assert sorted(epoch.tolist()) == list(range(NUM_TRAIN))
