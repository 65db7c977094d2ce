"""Holds what a worker process of any stage needs to fine-tune: where the backbone is, and the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

from orchestrator import storage
from orchestrator.config import AugmentConfig, BatchNormMode, ExperimentConfig, PrecisionName
from orchestrator.errors import ConfigError, WeightsError
from orchestrator.finetune.backbones import Backbone, create_backbone
from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.classifier import Classifier, new_classifier
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.contracts import NO_AUGMENTATION, BatchStream, Precision, Samples, TrainingSettings
from orchestrator.finetune.folding import fold_batch_norms
from orchestrator.finetune.loop import EpochEnd, FineTuneResult, fine_tune
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec, Hyperparameters, PretrainedBackbone


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """Hold what is the same for every fine-tuning of a run: where the backbone is and how training is set."""

    backbone: PretrainedBackbone
    weights_uri: str
    seed: int
    batch_norm: BatchNormMode
    precision: PrecisionName
    metric: Literal["val_accuracy", "val_loss"]
    augment: AugmentConfig = NO_AUGMENTATION
    compiled_depths: frozenset[int] = frozenset()
    loader_seed: int | None = None
    split_seed: int = 0

    @classmethod
    def of(cls, config: ExperimentConfig, backbone: PretrainedBackbone, run_uri: str) -> Workbench:
        """Take the settings from the experiment."""
        return cls(
            backbone=backbone,
            weights_uri=storage.join(run_uri, backbone.weights),
            seed=config.seed_of("trial"),
            loader_seed=config.seed_of("loader"),
            split_seed=config.seed_of("split"),
            batch_norm=config.train.batch_norm,
            precision=config.train.precision,
            metric=config.search.metric,
            augment=config.augment,
        )

    @property
    def order_seed(self) -> int:
        """Give the seed that training samples are ordered and varied by."""
        return self.seed if self.loader_seed is None else self.loader_seed

    def settings(self, device: str, *, from_scratch: bool = False) -> TrainingSettings:
        """Give the training settings on a device.

        From scratch BatchNorm statistics are learnt: random ones fit nothing.
        """
        return TrainingSettings(
            seed=self.seed,
            loader_seed=self.loader_seed,
            batch_norm="train" if from_scratch and self.batch_norm == "frozen" else self.batch_norm,
            precision=resolve_precision(self.precision, device),
            device=device,
            metric=self.metric,
            augment=self.augment,
            compiled_depths=self.compiled_depths,
        )

    def classifier(self, class_counts: int | Sequence[int], *, from_scratch: bool = False) -> Classifier:
        """Give a classifier with new heads on the pretrained backbone, or on one with nothing pretrained."""
        return new_classifier(self.start(from_scratch=from_scratch), class_counts, seed=self.seed)

    def start(self, *, from_scratch: bool) -> Backbone:
        """Give the backbone that a training starts with a copy of: the pretrained one, or one that knows nothing."""
        return self._random() if from_scratch else self.pretrained()

    def pretrained(self) -> Backbone:
        """Give the pretrained backbone, loaded once for each process: do not change it."""
        return _pretrained(self.weights_uri, self.backbone.digest, self.backbone.spec.model_dump_json())

    def feature_extractor(self) -> Backbone:
        """Give the pretrained backbone as it is fastest to evaluate, made once for each process: never train it."""
        return _folded(self.weights_uri, self.backbone.digest, self.backbone.spec.model_dump_json())

    def fine_tune(
        self,
        classifier: Classifier,
        train: Samples | BatchStream,
        validation: Samples,
        hyperparameters: Hyperparameters,
        device: str,
        *,
        from_scratch: bool = False,
        on_epoch: Callable[[EpochEnd], None],
        resume: TrainingState | None = None,
        companion: Companion | None = None,
    ) -> FineTuneResult:
        """Fine-tune a classifier as the run's settings say, and raise what `finetune.loop.fine_tune` raises.

        Regularisers pull to the pretrained weights as this process holds them, for all of its trainings once; from
        scratch to a copy of what the classifier starts with.
        """
        return fine_tune(
            classifier,
            self.backbone.spec,
            train,
            validation,
            hyperparameters,
            self.settings(device, from_scratch=from_scratch),
            on_epoch=on_epoch,
            resume=resume,
            source=None if from_scratch else self.pretrained(),
            companion=companion,
        )

    def _random(self) -> Backbone:
        spec = self.backbone.spec
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return create_backbone(spec.name, spec.kwargs, spec.image_size)


@lru_cache(maxsize=2)
def _pretrained(weights_uri: str, digest: str, spec_json: str) -> Backbone:
    backbone, found = load_pretrained(weights_uri, BackboneSpec.model_validate_json(spec_json), seed=0)
    if found != digest:
        raise WeightsError(
            f"the backbone of the run must have the digest {digest}",
            value=f"{found} in {weights_uri}",
            remedy="Remove backbone.json from the run directory to make it anew.",
        )
    return backbone


@lru_cache(maxsize=2)
def _folded(weights_uri: str, digest: str, spec_json: str) -> Backbone:
    image_size = BackboneSpec.model_validate_json(spec_json).image_size
    return fold_batch_norms(_pretrained(weights_uri, digest, spec_json), image_size)


def resolve_precision(precision: PrecisionName, device: str) -> Precision:
    """Resolve `auto`: bf16 on a GPU that has it, fp32 elsewhere. Raises ConfigError for fp16 without a GPU."""
    if precision == "fp16" and not device.startswith("cuda"):
        raise ConfigError(
            "train.precision must be fp32 or bf16 on a CPU",
            value=precision,
            remedy="Set it to auto, or train on a GPU.",
        )
    if precision != "auto":
        return precision
    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"


def worker_device(use_gpu: bool) -> str:
    """Give the device of a task or trial: Ray shows it its own GPUs alone, numbered from 0."""
    return "cuda:0" if use_gpu else "cpu"


def use_threads(num_cpus: float) -> None:
    """Give torch as many threads as the worker has CPUs; its own default ignores the reservation."""
    torch.set_num_threads(max(1, int(num_cpus)))
