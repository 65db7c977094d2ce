"""Prepares the pretrained backbone: loads its weights, or trains the run's own source task."""

from __future__ import annotations

import time

from orchestrator import storage
from orchestrator.cluster.ingest import IngestPlan, pixel_reader
from orchestrator.cluster.pretraining_phases import PhaseTrainer, SourceData, describe
from orchestrator.cluster.ranking import source_features
from orchestrator.cluster.workers import Workbench
from orchestrator.config import ExperimentConfig
from orchestrator.data.reader import PixelReader
from orchestrator.finetune.backbone_cards import features_of, find_card, save_card
from orchestrator.finetune.backbones import resolve_spec
from orchestrator.finetune.models import save_backbone
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import (
    Catalogue,
    PretrainedBackbone,
    Pretraining,
    PretrainingPhase,
    SupervisedPhase,
)

BACKBONE_VERSION = 4


def prepare_backbone(
    config: ExperimentConfig,
    run_uri: str,
    source: Catalogue | None,
    *,
    fingerprint: str,
    folder: str = "backbone",
    plan: IngestPlan | None = None,
    target: tuple[Catalogue, PixelReader] | None = None,
) -> PretrainedBackbone:
    """Put the pretrained backbone into a folder of the run directory, where every worker of every node finds it.

    With a source catalogue, and the plan that made it, the source task is trained first, by the same TorchTrainer path
    as any model, together with the images of the run's own catalogue where `target` gives that with their reader. Where
    it is known what weights were pretrained on, a card beside them says so.
    """
    started = time.perf_counter()
    spec = resolve_spec(config.backbone)
    weights = f"{folder}/{fingerprint}.safetensors"
    phases: list[PretrainingPhase] = []
    trainer = None
    if source is None or plan is None:
        backbone, _ = load_pretrained(config.backbone.weights, spec, seed=config.seed_of("trial"))
    else:
        reader = pixel_reader(plan, source)
        trainer = PhaseTrainer(config, spec, run_uri, SourceData.of(config, run_uri, source, target, reader=reader))
        phases, backbone = trainer.train()
    save_backbone(storage.join(run_uri, weights), backbone)
    record = describe(backbone, spec, config.backbone.weights, weights)
    if trainer is None or plan is None:
        record = _with_origin(record, run_uri)
    else:
        pretraining = _pretraining(trainer, plan.data.uri, record, phases)
        record = record.model_copy(update={"pretraining": pretraining, "source_accuracy": _accuracy(phases)})
    record = record.model_copy(update={"fingerprint": fingerprint, "seconds": time.perf_counter() - started})
    if record.pretraining is not None:
        save_card(storage.join(run_uri, weights), record)
    return record


def _accuracy(phases: list[PretrainingPhase]) -> float | None:
    accuracies = [phase.accuracy for phase in phases if isinstance(phase, SupervisedPhase)]
    return accuracies[-1] if accuracies else None


def _with_origin(record: PretrainedBackbone, run_uri: str) -> PretrainedBackbone:
    """Say where weights come from that an earlier run has pretrained, and keep its source's features."""
    card = find_card(record.source, digest=record.digest, image_size=record.spec.image_size)
    if card is None or card.pretraining is None:
        return record
    features, there = None, features_of(record.source)
    # Features of images that were prepared in another way cannot be compared with the run's.
    if card.spec == record.spec and card.digest == record.digest and storage.exists(there):
        features = features_of(record.weights)
        storage.write_bytes(storage.join(run_uri, features), storage.read_bytes(there))
    return record.model_copy(update={"pretraining": card.pretraining.model_copy(update={"features": features})})


def _pretraining(
    trainer: PhaseTrainer, data_uri: str, record: PretrainedBackbone, phases: list[PretrainingPhase]
) -> Pretraining:
    """Say what a backbone was pretrained on, and keep the features of some of the source's images."""
    config, run_uri, data, start = trainer.config, trainer.run_uri, trainer.source, trainer.start
    kept = source_features(
        data.own_table,
        data.reader,
        Workbench.of(config, record, run_uri),
        classes=data.classes,
        stall_timeout_s=config.cluster.stall_timeout_s,
    )
    path = features_of(record.weights)
    storage.write_bytes(storage.join(run_uri, path), kept.to_bytes())
    return Pretraining(
        data_uri=data_uri,
        data_fingerprint=data.catalogue.data_fingerprint,
        num_images=data.catalogue.num_images,
        classes=list(data.classes),
        phases=phases,
        features=path,
        neighbour_accuracy=kept.neighbour_accuracy(),
        trained_in=run_uri,
        seconds=sum(phase.seconds for phase in phases),
        start=None if start is None else start.described(),
        target=None if data.target is None else data.target.described(data.classes),
    )
