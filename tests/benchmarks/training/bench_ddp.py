"""Measures a final training of two workers under Ray Train against a plain DDP loop under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from command import note
from figures import Figure
from lengths import Lengths
from ours import experiment, our_ray
from protocol import BATCH_SIZE
from workplace import DOMAIN, Workplace

from orchestrator import storage
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.ingest import read_samples
from orchestrator.cluster.resources import observe_cluster
from orchestrator.cluster.training import TrainingJob, TrainingPlan, train_groups
from orchestrator.cluster.workers import Workbench
from orchestrator.data.samples import CachedSamples
from orchestrator.errors import OrchestratorError
from orchestrator.records import Catalogue, Hyperparameters, PretrainedBackbone

NUM_WORKERS = 2
LEARNING_RATE = 1e-4
PEER = Path(__file__).with_name("peer_torchrun.py")


def measure_ddp(place: Workplace, lengths: Lengths) -> Iterator[Figure]:
    """Train the whole network: nothing can be computed once for all epochs, and both do the same work.

    Ours is the training stage's own, which reports every epoch and keeps a checkpoint of it; the peer does not. Every
    worker has one thread.
    """
    images = len(place.task.labels("train"))
    ours, peer = [], []
    for _ in range(lengths.repeats):
        ours.append(_ours(place, lengths.ddp_epochs))
        peer.append(_torchrun(place, lengths.ddp_epochs))
        note(f"images a second: ours {images / ours[-1]:.0f}, torchrun {images / peer[-1]:.0f}")
    yield Figure.of_medians("ddp_vs_torchrun", ours=ours, peer=peer, aim=0.95, unit="s/epoch")


def _ours(place: Workplace, epochs: int) -> float:
    """Give the mean seconds of an epoch: what a training takes beyond one of a single epoch."""
    run = place.prepared(DOMAIN)
    catalogue = Catalogue.from_json((run / "catalogue.json").read_bytes(), source="catalogue.json")
    backbone = PretrainedBackbone.from_json((run / "backbone.json").read_bytes(), source="backbone.json")
    train = {"num_workers": NUM_WORKERS, "resources_per_worker": {"CPU": 1.0}}
    config = experiment(place.domain(DOMAIN), place.weights, place.fresh("ddp"), train=train)
    workbench = Workbench.of(config, backbone, str(run))
    samples = _samples(run, catalogue)
    with our_ray(max(NUM_WORKERS, place.threads)):
        shape = observe_cluster(elastic=False)
        seconds = []
        for length in (1, 1 + epochs):
            job = _job(place, length)
            plan = TrainingPlan.of(config, [job], shape)
            ((_, card),) = train_groups([job], {job.run_name: samples}, workbench, plan, shape)
            if isinstance(card, OrchestratorError):
                raise card
            seconds.append(card.seconds)
    return (seconds[1] - seconds[0]) / epochs


def _samples(run: Path, catalogue: Catalogue) -> GroupSamples:
    table = read_samples(str(run), catalogue)
    assert catalogue.pixels is not None
    pixels_uri = storage.join(str(run), catalogue.pixels)
    train, validation = (
        CachedSamples.of(table, table.where(split=split), pixels_uri, catalogue.labels) for split in ("train", "val")
    )
    return GroupSamples(group=DOMAIN, classes=tuple(catalogue.labels), train=train, validation=validation)


def _job(place: Workplace, epochs: int) -> TrainingJob:
    directory = place.fresh("job")
    return TrainingJob(
        group=DOMAIN,
        subsets=(DOMAIN,),
        hyperparameters=Hyperparameters(
            freeze_depth=0, learning_rate=LEARNING_RATE, epochs=epochs, batch_size=BATCH_SIZE, optimizer="adam"
        ),
        fingerprint="benchmark",
        data_fingerprint="benchmark",
        run_name=directory.name,
        model_uri=str(directory / "model"),
        storage_uri=str(directory / "ray_train"),
    )


def _torchrun(place: Workplace, epochs: int) -> float:
    """Give the mean seconds of an epoch after the first."""
    task = place.task
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(NUM_WORKERS)),
        *(str(PEER), str(task.directory), str(task.weights), str(task.num_classes), str(epochs), str(LEARNING_RATE)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(found.stdout.splitlines()[-1])["epoch_s"])
