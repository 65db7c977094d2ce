"""Prepares the pretrained backbone: loads its weights, or trains the run's own source task."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from orchestrator import storage
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.ingest import read_samples
from orchestrator.cluster.resources import observe_cluster
from orchestrator.cluster.training import TrainingJob, TrainingPlan, train_groups
from orchestrator.cluster.workers import Workbench
from orchestrator.config import ExperimentConfig, PretrainConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.samples import CachedSamples
from orchestrator.errors import DataError, OrchestratorError
from orchestrator.finetune.backbones import Backbone, create_backbone, resolve_spec
from orchestrator.finetune.models import load_model, save_backbone
from orchestrator.finetune.weights import load_pretrained, weights_digest
from orchestrator.records import BackboneSpec, Catalogue, Hyperparameters, ModelCard, PretrainedBackbone

BACKBONE_VERSION = 1
_SOURCE_GROUP = "pretrain"


def prepare_backbone(
    config: ExperimentConfig,
    run_uri: str,
    source: Catalogue | None,
    *,
    fingerprint: str,
    folder: str = "backbone",
) -> PretrainedBackbone:
    """Put the pretrained backbone into a folder of the run directory, where every worker of every node finds it.

    With a source catalogue the source task is trained first, by the same loop and TorchTrainer as any model.
    """
    started = time.perf_counter()
    spec = resolve_spec(config.backbone)
    accuracy: float | None = None
    if source is None:
        backbone, _ = load_pretrained(config.backbone.weights, spec, seed=config.seed_of("trial"))
    else:
        card = _train_source(config, spec, run_uri, source, fingerprint)
        backbone = load_model(storage.join(run_uri, "pretrain/model"))[0].backbone
        accuracy = card.history[card.best_epoch - 1].val_accuracy
    weights = f"{folder}/{fingerprint}.safetensors"
    save_backbone(storage.join(run_uri, weights), backbone)
    found = {
        "fingerprint": fingerprint,
        "seconds": time.perf_counter() - started,
        "source_accuracy": accuracy,
    }
    return _describe(backbone, spec, config.backbone.weights, weights).model_copy(update=found)


def _describe(backbone: Backbone, spec: BackboneSpec, source: str, weights: str) -> PretrainedBackbone:
    return PretrainedBackbone(
        spec=spec,
        source=source,
        weights=weights,
        digest=weights_digest(backbone),
        num_stages=backbone.num_stages,
        feature_dim=backbone.feature_dim,
    )


def _train_source(
    config: ExperimentConfig, spec: BackboneSpec, run_uri: str, source: Catalogue, fingerprint: str
) -> ModelCard:
    assert config.pretrain is not None
    shape = observe_cluster(elastic=config.cluster.autoscaling)
    samples = _source_samples(config.pretrain, run_uri, source)
    untrained = create_backbone(spec.name, spec.kwargs, spec.image_size)
    # How groups are searched is no part of the source task.
    workbench = replace(Workbench.of(config, _describe(untrained, spec, "none", ""), run_uri), metric="val_accuracy")
    job = TrainingJob(
        group=_SOURCE_GROUP,
        subsets=tuple(count.subset for count in source.subsets),
        hyperparameters=_hyperparameters(config.pretrain),
        fingerprint=fingerprint,
        data_fingerprint=source.data_fingerprint,
        run_name=f"{_SOURCE_GROUP}-{fingerprint}",
        model_uri=storage.join(run_uri, "pretrain/model"),
        storage_uri=storage.join(run_uri, "ray_train"),
        from_scratch=True,
    )
    plan = TrainingPlan.of(config, [job], shape)
    ((_, outcome),) = train_groups([job], {job.run_name: samples}, workbench, plan, shape)
    if isinstance(outcome, OrchestratorError):
        raise outcome
    return outcome


def _hyperparameters(pretrain: PretrainConfig) -> Hyperparameters:
    return Hyperparameters(
        freeze_depth=0,
        learning_rate=pretrain.learning_rate,
        epochs=pretrain.epochs,
        batch_size=pretrain.batch_size,
        optimizer=pretrain.optimizer,
        weight_decay=pretrain.weight_decay,
    )


def _source_samples(pretrain: PretrainConfig, run_uri: str, source: Catalogue) -> GroupSamples:
    table = read_samples(run_uri, source)
    classes = pretrain.classes or source.labels
    unknown = sorted(set(classes) - set(source.labels))
    if unknown:
        raise DataError(
            "pretrain.classes must occur in the source data",
            value=", ".join(unknown),
            remedy=f"It has {', '.join(source.labels[:10])}.",
        )
    pixels_uri = None if source.pixels is None else storage.join(run_uri, source.pixels)
    train, validation = (
        CachedSamples.of(table, _positions(table, split, classes), pixels_uri, classes) for split in ("train", "val")
    )
    return GroupSamples(group=_SOURCE_GROUP, classes=tuple(classes), train=train, validation=validation)


def _positions(table: SampleTable, split: str, classes: Sequence[str]) -> NDArray[np.int64]:
    positions = table.where(split=split)
    labels = table.table.column("label").take(pa.array(positions))
    chosen: NDArray[np.int64] = positions[np.asarray(pc.is_in(labels, value_set=pa.array(classes, pa.string())))]
    return chosen
