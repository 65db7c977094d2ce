"""Prepares the pretrained backbone: loads its weights, or trains the run's own source task."""

from __future__ import annotations

import time

import numpy as np

from orchestrator import storage
from orchestrator.cluster.ingest import IngestPlan, pixel_reader, read_samples
from orchestrator.cluster.pretraining_phases import PhaseTrainer, SourceData, describe
from orchestrator.cluster.ranking import shuffled_features
from orchestrator.cluster.workers import Workbench
from orchestrator.config import ExperimentConfig
from orchestrator.diversity.source_features import SourceFeatures
from orchestrator.finetune.backbone_cards import features_of, find_card, save_card
from orchestrator.finetune.backbones import resolve_spec
from orchestrator.finetune.models import save_backbone
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import Catalogue, PretrainedBackbone, Pretraining, PretrainingPhase, SupervisedPhase

BACKBONE_VERSION = 3

# Of all subsets of the source: it must give several samples of as many images as a subset of the run has.
_MOST_FEATURES = 1024


def prepare_backbone(
    config: ExperimentConfig,
    run_uri: str,
    source: Catalogue | None,
    *,
    fingerprint: str,
    folder: str = "backbone",
    plan: IngestPlan | None = None,
) -> PretrainedBackbone:
    """Put the pretrained backbone into a folder of the run directory, where every worker of every node finds it.

    With a source catalogue, and the plan that made it, the source task is trained first, by the same TorchTrainer path
    as any model. Where it is known what weights were pretrained on, a card beside them says so.
    """
    started = time.perf_counter()
    spec = resolve_spec(config.backbone)
    weights = f"{folder}/{fingerprint}.safetensors"
    phases: list[PretrainingPhase] = []
    if source is None or plan is None:
        backbone, _ = load_pretrained(config.backbone.weights, spec, seed=config.seed_of("trial"))
    else:
        phases, backbone = PhaseTrainer(config, spec, run_uri, SourceData.of(config, run_uri, source)).train()
    save_backbone(storage.join(run_uri, weights), backbone)
    record = describe(backbone, spec, config.backbone.weights, weights)
    if source is None or plan is None:
        record = _with_origin(record, run_uri)
    else:
        pretraining = _pretraining(config, run_uri, source, plan, record, phases)
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
    card = find_card(record.source, record)
    if card is None or card.pretraining is None:
        return record
    features, there = None, features_of(record.source)
    # Features of images that were prepared in another way cannot be compared with the run's.
    if card.spec == record.spec and card.digest == record.digest and storage.exists(there):
        features = features_of(record.weights)
        storage.write_bytes(storage.join(run_uri, features), storage.read_bytes(there))
    return record.model_copy(update={"pretraining": card.pretraining.model_copy(update={"features": features})})


def _pretraining(
    config: ExperimentConfig,
    run_uri: str,
    source: Catalogue,
    plan: IngestPlan,
    record: PretrainedBackbone,
    phases: list[PretrainingPhase],
) -> Pretraining:
    """Say what a backbone was pretrained on, and keep the features of some of the images."""
    data = SourceData.of(config, run_uri, source)
    workbench = Workbench.of(config, record, run_uri)
    rows, features = shuffled_features(
        read_samples(run_uri, source),
        pixel_reader(plan, source),
        workbench,
        classes=data.classes,
        most_per_subset=max(1, _MOST_FEATURES // len(source.subsets)),
        stall_timeout_s=config.cluster.stall_timeout_s,
    )
    kept = SourceFeatures(features=features.astype(np.float32), labels=rows.column("label").to_pylist())
    path = features_of(record.weights)
    storage.write_bytes(storage.join(run_uri, path), kept.to_bytes())
    return Pretraining(
        data_uri=plan.data.uri,
        data_fingerprint=source.data_fingerprint,
        num_images=source.num_images,
        classes=list(data.classes),
        phases=phases,
        start=data.pretrain.weights,
        features=path,
        neighbour_accuracy=kept.neighbour_accuracy(),
        trained_in=run_uri,
        seconds=sum(phase.seconds for phase in phases),
    )
