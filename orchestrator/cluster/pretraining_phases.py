"""Trains the objectives of a source task in turn, each with the weights of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from orchestrator import fingerprints, storage
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.ingest import read_samples
from orchestrator.cluster.meta_learning import ReptileJob, inner_hyperparameters, run_reptile
from orchestrator.cluster.pretraining_start import KeptStart, keep_start
from orchestrator.cluster.pretraining_target import TargetData
from orchestrator.cluster.resources import ClusterShape, observe_cluster
from orchestrator.cluster.self_supervision import SimSiamJob, run_simsiam
from orchestrator.cluster.training import TrainingJob, TrainingPlan, train_groups
from orchestrator.cluster.workers import Workbench
from orchestrator.config import BatchNormMode, ExperimentConfig, Objective, PretrainConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.duplicates import copies_among
from orchestrator.data.reader import PixelReader, streamed_blocks
from orchestrator.data.samples import CachedSamples
from orchestrator.errors import ConfigError, DataError, OrchestratorError, RecordError, StorageError, UnavailableError
from orchestrator.finetune.backbones import Backbone, create_backbone
from orchestrator.finetune.models import load_model, save_backbone
from orchestrator.finetune.simsiam_training import simsiam_hyperparameters
from orchestrator.finetune.weights import load_pretrained, weights_digest
from orchestrator.records import (
    BackboneSpec,
    Catalogue,
    Hyperparameters,
    PretrainedBackbone,
    PretrainingPhase,
    ReptilePhase,
    SimSiamPhase,
    SupervisedPhase,
    TrainedPhase,
)

PHASE_VERSION = 1
_SOURCE_GROUP = "pretrain"
_FOLDER = "pretrain/phases"


def describe(backbone: Backbone, spec: BackboneSpec, source: str, weights: str) -> PretrainedBackbone:
    """Describe a backbone whose weights are at the path `weights` below the run directory."""
    return PretrainedBackbone(
        spec=spec,
        source=source,
        weights=weights,
        digest=weights_digest(backbone),
        num_stages=backbone.num_stages,
        feature_dim=backbone.feature_dim,
    )


@dataclass(frozen=True, kw_only=True)
class SourceData:
    """Hold the source task's section, catalogue and the classes that it learns, none where nothing is supervised.

    `target` holds the run's own samples where they are learnt beside it.
    """

    pretrain: PretrainConfig
    catalogue: Catalogue
    classes: tuple[str, ...]
    table: SampleTable
    reader: PixelReader
    target: TargetData | None = None

    @classmethod
    def of(
        cls,
        config: ExperimentConfig,
        run_uri: str,
        catalogue: Catalogue,
        target: tuple[Catalogue, PixelReader] | None = None,
        *,
        reader: PixelReader,
    ) -> SourceData:
        """Take the samples that a catalogue describes, and of the run's own catalogue those that are learnt beside it.

        Raises ConfigError without a source task, DataError.
        """
        if config.pretrain is None:
            raise ConfigError("a source task must have a section pretrain", remedy="Add pretrain.data.uri.")
        return cls(
            pretrain=config.pretrain,
            catalogue=catalogue,
            classes=_classes(config.pretrain, catalogue),
            table=read_samples(run_uri, catalogue),
            reader=reader,
            target=TargetData.of(config, run_uri, target),
        )

    def labelled(self) -> GroupSamples:
        """Give the cached samples of the classes that are learnt, with the run's own as companion where there are some.

        Then source images that show the same as one of the run's are left out: what tests a model must not train it.
        Raises DataError when none is left.
        """
        train, validation = (self._cached(self._learnt(split)) for split in ("train", "val"))
        companion = None if self.target is None else self.target.companion(self.classes)
        if companion is not None and len(train) == 0:
            raise DataError(
                "the source task must have cached training images that the run has not",
                value=0,
                remedy="Check pretrain.classes and pretrain.data: its split, max_cache_bytes, and copies of the run's "
                "images.",
            )
        return GroupSamples(
            group=_SOURCE_GROUP, classes=self.classes, train=train, validation=validation, companion=companion
        )

    @cached_property
    def stream(self) -> tuple[pa.Table, ...] | None:
        """Give the training samples of the classes that are learnt as blocks to stream, where not all are cached."""
        return streamed_blocks(self.table.table.take(pa.array(self._learnt("train"))))

    @cached_property
    def image_stream(self) -> tuple[pa.Table, ...] | None:
        """Give the training samples whatever their labels as blocks to stream, where not all are cached."""
        return streamed_blocks(self.table.table.take(pa.array(self._images())))

    def is_streamed(self, objective: Objective) -> bool:
        """Tell whether an objective has its images streamed: it learns all, and not all are cached."""
        if objective == "simsiam":
            return self.image_stream is not None
        return objective == "supervised" and self.stream is not None

    def _images(self) -> NDArray[np.int64]:
        return self._without_copies(self.table.where(split="train"))

    def _learnt(self, split: str) -> NDArray[np.int64]:
        return self._without_copies(self.table.of_classes(self.table.where(split=split), self.classes))

    def _without_copies(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        return positions if self._is_copy is None else positions[~self._is_copy[positions]]

    @cached_property
    def _is_copy(self) -> NDArray[np.bool_] | None:
        """Tell which rows [n] show a picture of the run's own; None where those are not learnt."""
        return None if self.target is None else copies_among(self.table.table, self.target.table.table)

    @property
    def own_table(self) -> pa.Table:
        """Give the rows of the catalogue but those that show a picture of the run's own, where that is learnt too."""
        table = self.table.table
        return table if self._is_copy is None else table.filter(pa.array(~self._is_copy))

    def images(self) -> GroupSamples:
        """Give the cached training samples, whatever their labels; nothing is held out for validation.

        Copies of the run's own images are left out as in `labelled`.
        """
        none = np.zeros(0, dtype=np.int64)
        return GroupSamples(
            group=_SOURCE_GROUP,
            classes=("", *self.catalogue.labels),
            train=self._cached(self._images(), ("", *self.catalogue.labels)),
            validation=self._cached(none),
        )

    def labelled_by_subset(self) -> tuple[GroupSamples, NDArray[np.int64], NDArray[np.int64]]:
        """Give the cached samples of the classes that are learnt, and the numbers of their subsets.

        Where not all are cached, they are a sample that is drawn by hash, the same share of every subset but for
        chance: tasks take few images each, and draw them from it. The numbers are of training samples [n_train] and of
        validation samples [n_validation].
        """
        samples = replace(self.labelled(), companion=None)
        subsets = self.table.table.column("subset")
        train, validation = (
            subsets.take(pa.array(self.table.cached(self._learnt(split)))) for split in ("train", "val")
        )
        names = pc.unique(subsets)
        return samples, _places(train, names), _places(validation, names)

    def _cached(self, positions: NDArray[np.int64], classes: Sequence[str] | None = None) -> CachedSamples:
        known = self.classes if classes is None else classes
        return CachedSamples.of(self.table, positions, self.reader.pixels_uri, known)


@dataclass(frozen=True)
class PhaseTrainer:
    """Train the objectives of a source task; each that is done is kept, and found when it is wanted again."""

    config: ExperimentConfig
    spec: BackboneSpec
    run_uri: str
    source: SourceData

    def train(self) -> tuple[list[PretrainingPhase], Backbone]:
        """Train all objectives in their order, and give what happened and the last one's backbone.

        Raises what training raises, and DataError for classes that the source does not have.
        """
        shape = observe_cluster(elastic=self.config.cluster.autoscaling)
        trained: list[TrainedPhase] = []
        for objective in self.source.pretrain.objective:
            start = trained[-1] if trained else self.start
            fingerprint = fingerprints.of_phase(
                self.config,
                self.source.pretrain,
                objective,
                start=start.digest if start else f"none {self.spec.model_dump_json()}",
                data=self._fingerprint_of_data(objective),
                version=PHASE_VERSION,
            )
            trained.append(self._found(fingerprint) or self._trained(objective, start, fingerprint, shape))
        begun = [] if self.start is None else [self.start.digest]
        self._forget_others(keep=[*begun, *(found.fingerprint for found in trained)])
        return [found.phase for found in trained], self._backbone(trained[-1])

    @cached_property
    def start(self) -> KeptStart | None:
        """Give the weights that the first objective begins with; None for random ones."""
        return keep_start(self.source.pretrain.weights, self.spec, self.run_uri, _FOLDER)

    def _fingerprint_of_data(self, objective: Objective) -> str:
        catalogue, target = self.source.catalogue, self.source.target
        # Cached are those of the lowest hashes: their number says which.
        source = f"{catalogue.data_fingerprint} {catalogue.num_cached}"
        if self.source.is_streamed(objective):
            source = f"{source} streamed"
        if target is None:
            return source
        # Copies of the target's images are left out for every objective.
        source = f"{source} {target.fingerprint}"
        return f"{source} streamed" if objective == "supervised" and target.is_streamed else source

    def _trained(
        self, objective: Objective, start: TrainedPhase | KeptStart | None, fingerprint: str, shape: ClusterShape
    ) -> TrainedPhase:
        workbench = self._workbench(start)
        weights = f"{_FOLDER}/{fingerprint}.safetensors"
        train = {"supervised": self._supervised, "simsiam": self._simsiam, "reptile": self._reptile}[objective]
        phase = train(workbench, fingerprint, storage.join(self.run_uri, weights), shape, from_scratch=start is None)
        _, digest = load_pretrained(storage.join(self.run_uri, weights), self.spec, seed=0)
        found = TrainedPhase(fingerprint=fingerprint, phase=phase, weights=weights, digest=digest)
        storage.write_bytes(self._record_of(fingerprint), found.to_json().encode())
        return found

    def _found(self, fingerprint: str) -> TrainedPhase | None:
        uri = self._record_of(fingerprint)
        try:
            found = TrainedPhase.from_json(storage.read_bytes(uri), source=uri)
        except UnavailableError:
            raise
        except (StorageError, RecordError):
            return None
        return found if storage.exists(storage.join(self.run_uri, found.weights)) else None

    def _record_of(self, fingerprint: str) -> str:
        return storage.join(self.run_uri, _FOLDER, f"{fingerprint}.json")

    def _backbone(self, trained: TrainedPhase | KeptStart) -> Backbone:
        return load_pretrained(storage.join(self.run_uri, trained.weights), self.spec, seed=0)[0]

    def _forget_others(self, keep: Sequence[str]) -> None:
        """Remove the phases of other settings."""
        folder = storage.join(self.run_uri, _FOLDER)
        for name in storage.list_names(folder):
            if name.partition(".")[0] not in keep:
                storage.delete(storage.join(folder, name))

    def _workbench(self, start: TrainedPhase | KeptStart | None) -> Workbench:
        if start is None:
            untrained = create_backbone(self.spec.name, self.spec.kwargs, self.spec.image_size)
            backbone = describe(untrained, self.spec, "none", "")
        else:
            backbone = describe(self._backbone(start), self.spec, "pretrain", start.weights)
        # How groups are searched and tuned is no part of the source task: all of the network is to be learnt.
        workbench = Workbench.of(self.config, backbone, self.run_uri)
        batch_norm: BatchNormMode = "sync" if self.config.train.batch_norm == "sync" else "train"
        return replace(workbench, metric="val_accuracy", batch_norm=batch_norm)

    def _supervised(
        self, workbench: Workbench, fingerprint: str, weights_uri: str, shape: ClusterShape, *, from_scratch: bool
    ) -> SupervisedPhase:
        samples, stream, pretrain = self.source.labelled(), self.source.stream, self.source.pretrain
        target = self.source.target
        model_uri = storage.join(self.run_uri, "pretrain/model")
        job = TrainingJob(
            hyperparameters=Hyperparameters(
                freeze_depth=0,
                learning_rate=pretrain.learning_rate,
                epochs=pretrain.epochs,
                batch_size=pretrain.batch_size,
                optimizer=pretrain.optimizer,
                weight_decay=pretrain.weight_decay,
                regularizer=pretrain.regularizer,
                regularizer_weight=pretrain.regularizer_weight,
                regularizer_scope=pretrain.regularizer_scope,
            ),
            model_uri=model_uri,
            stream=stream,
            reader=self.source.reader,
            source_stream=None if target is None else target.stream(samples.classes),
            **self._common(fingerprint, from_scratch=from_scratch),
        )
        plan = TrainingPlan.of(self.config, [job], shape)
        ((_, card),) = train_groups([job], {job.run_name: samples}, workbench, plan, shape)
        if isinstance(card, OrchestratorError):
            raise card
        save_backbone(weights_uri, load_model(model_uri)[0].backbone)
        return SupervisedPhase(
            num_images=len(samples.train) if stream is None else sum(block.num_rows for block in stream),
            hyperparameters=card.hyperparameters,
            best_epoch=card.best_epoch,
            accuracy=card.history[card.best_epoch - 1].val_accuracy,
            history=card.history,
            seconds=card.seconds,
            num_workers=card.num_workers,
            worker_resources=card.worker_resources,
        )

    def _simsiam(
        self, workbench: Workbench, fingerprint: str, weights_uri: str, shape: ClusterShape, *, from_scratch: bool
    ) -> SimSiamPhase:
        simsiam = self.source.pretrain.simsiam
        job = SimSiamJob(
            hyperparameters=simsiam_hyperparameters(simsiam),
            model_uri=weights_uri,
            simsiam=simsiam,
            stream=self.source.image_stream,
            reader=self.source.reader,
            **self._common(fingerprint, from_scratch=from_scratch),
        )
        return run_simsiam(job, self.source.images(), workbench, TrainingPlan.of(self.config, [job], shape), shape)

    def _reptile(
        self, workbench: Workbench, fingerprint: str, weights_uri: str, shape: ClusterShape, *, from_scratch: bool
    ) -> ReptilePhase:
        reptile = self.source.pretrain.reptile
        samples, train_subsets, validation_subsets = self.source.labelled_by_subset()
        job = ReptileJob(
            hyperparameters=inner_hyperparameters(reptile),
            model_uri=weights_uri,
            reptile=reptile,
            train_subsets=train_subsets,
            validation_subsets=validation_subsets,
            **self._common(fingerprint, from_scratch=from_scratch),
        )
        # On weights that are there other statistics cost more than a few steps of learning give.
        workbench = replace(workbench, batch_norm=self.config.train.batch_norm)
        return run_reptile(job, samples, workbench, TrainingPlan.of(self.config, [job], shape), shape)

    def _common(self, fingerprint: str, *, from_scratch: bool) -> dict[str, Any]:
        """Give what the jobs of all objectives have in common; a run's name tells it from every other."""
        return {
            "group": _SOURCE_GROUP,
            "subsets": tuple(count.subset for count in self.source.catalogue.subsets),
            "fingerprint": fingerprint,
            "data_fingerprint": self.source.catalogue.data_fingerprint,
            "run_name": f"{_SOURCE_GROUP}-{fingerprint}",
            "storage_uri": storage.join(self.run_uri, "ray_train"),
            "from_scratch": from_scratch,
        }


def _classes(pretrain: PretrainConfig, source: Catalogue) -> tuple[str, ...]:
    if not pretrain.needs_labels:
        return ()
    classes = pretrain.classes or source.labels
    unknown = sorted(set(classes) - set(source.labels))
    if unknown or not classes:
        raise DataError(
            "pretrain.classes must occur in the source data",
            value=", ".join(unknown) or "no labels",
            remedy=f"It has {', '.join(source.labels[:10]) or 'none: pretrain with objective simsiam'}.",
        )
    return tuple(classes)


def _places(texts: pa.ChunkedArray, names: pa.Array) -> NDArray[np.int64]:
    return np.asarray(pc.index_in(texts, value_set=names), dtype=np.int64)
