"""The epoch loop: what a search trial, a DDP rank, a baseline and a debugger session all call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.errors import TrainingError
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.batches import share
from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.classifier import EVALUATION_BATCH, Classifier
from orchestrator.finetune.companions import Companion, CompanionFeed
from orchestrator.finetune.contracts import Activations, BatchStream, Inputs, Samples, TrainingSettings
from orchestrator.finetune.cosine import give_head
from orchestrator.finetune.distributed import average_batch_norm, rank, sum_over_ranks, world_size
from orchestrator.finetune.dropout import set_stochastic_depth
from orchestrator.finetune.epochs import is_better, require_finite
from orchestrator.finetune.freezing import freeze
from orchestrator.finetune.head_start import HeadStart
from orchestrator.finetune.image_changes import ImageChanges
from orchestrator.finetune.joint import JointLoss
from orchestrator.finetune.losses import Objective, create_objective
from orchestrator.finetune.multi_label import is_multi_label, judge_label_sets
from orchestrator.finetune.phases import phase_of, plan_phases
from orchestrator.finetune.prefix import (
    Computed,
    Prefix,
    SuffixSources,
    autocast,
    open_sources,
    remembered_bytes,
    suffix_inputs,
)
from orchestrator.finetune.randomness import seeded
from orchestrator.finetune.regularization import pulls_to_start, start_of
from orchestrator.finetune.shared_batch_norm import restore_batch_norms
from orchestrator.finetune.stepping import Stepper
from orchestrator.finetune.steps import Step, steps_of_samples, steps_of_stream
from orchestrator.finetune.tasks import count_labels, judge_tasks, mean_over_tasks, objective_of
from orchestrator.finetune.training_checks import require_same_training, require_trainable
from orchestrator.records import BackboneSpec, EpochMetrics, Hyperparameters

__all__ = ["BatchStream", "EpochEnd", "FineTuneResult", "Samples", "Training", "TrainingSettings", "fine_tune"]


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """Tell what an epoch found; `state` copies the training when asked for, and only during the callback."""

    metrics: EpochMetrics
    take_state: Callable[[], TrainingState]

    @property
    def state(self) -> TrainingState:
        """Give the state to resume from."""
        return self.take_state()


@dataclass(frozen=True, kw_only=True)
class FineTuneResult:
    """Say how a training went: every epoch, the best one (counted from 1), and wall seconds, all runs together.

    `inputs` says what the suffix was fed from; `note` why stored activations were not used though they were given.
    `sparsity` is the share of the weights under an L1 penalty that are at most 0.001; None without one.
    """

    history: list[EpochMetrics]
    best_epoch: int
    seconds: float
    inputs: Inputs
    note: str | None = None
    sparsity: float | None = None


def _ignore(end: EpochEnd) -> None:
    pass


def fine_tune(
    classifier: Classifier,
    spec: BackboneSpec,
    train: Samples | BatchStream,
    validation: Samples,
    hyperparameters: Hyperparameters,
    settings: TrainingSettings,
    *,
    on_epoch: Callable[[EpochEnd], None] = _ignore,
    resume: TrainingState | None = None,
    activations: Activations | None = None,
    source: Backbone | None = None,
    companion: Companion | None = None,
) -> FineTuneResult:
    """Train the stages that are not frozen, and the head, as the hyperparameters say.

    On return the classifier holds the weights of the best epoch (of equal accuracies the one of least loss), in
    eval mode and on the settings' device. Under torch.distributed every rank calls this with the same arguments (of
    a stream, its own share): a global batch of `batch_size` is divided over the ranks, and every sample counts once
    an epoch, unless classes are balanced.
    `on_epoch` is called on every rank. A resumed training gives what an uninterrupted one gives.

    With stored `activations` of the freeze depth neither pixels nor frozen stages are touched; where they cannot be
    read, the training computes them itself and says so in its result. They are of no use to a training that changes
    images batch by batch or draws them afresh. `source` holds the weights that regularisers pull the backbone to, where
    it is not what the classifier starts with; it is not changed. With a `companion` the classifier has its extra
    outputs behind those of the target's classes, and is trained on both; losses and accuracies are the target's, over
    its classes. Prototypes are of both, as `HeadStart` says; alone they look at what is held of the companion.

    Where samples have any number of labels (`loss: binary_cross_entropy`), the accuracy of an epoch is the mean average
    precision, see `finetune.multi_label`.

    Raises BackboneError for a freeze depth beyond the backbone, DivergedError for a loss that is not finite,
    TrainingError for samples, batches or a checkpoint that cannot be trained with.
    """
    with closing(
        Training(classifier, spec, train, validation, hyperparameters, settings, activations, source, companion)
    ) as training:
        if resume is not None:
            training.restore(resume)
        while not training.is_over:
            metrics = training.run_epoch()
            on_epoch(EpochEnd(metrics=metrics, take_state=training.state))
        return training.finish()


class Training:
    """Hold what changes while a classifier is trained, epoch by epoch; `fine_tune` says what its arguments are."""

    def __init__(
        self,
        classifier: Classifier,
        spec: BackboneSpec,
        train: Samples | BatchStream,
        validation: Samples,
        hyperparameters: Hyperparameters,
        settings: TrainingSettings,
        activations: Activations | None,
        source: Backbone | None,
        companion: Companion | None = None,
    ) -> None:
        self._started = time.perf_counter()
        self._settings = settings = replace(settings, augment=hyperparameters.augmented(settings.augment))
        self._hyperparameters = hyperparameters
        self._classifier = classifier.to(settings.device).to(memory_format=torch.channels_last)
        if hyperparameters.stochastic_depth is not None:
            set_stochastic_depth(classifier.backbone, hyperparameters.stochastic_depth)
        give_head(classifier, hyperparameters.head, seed=settings.seed)
        classifier.multi_label = hyperparameters.is_multi_label
        depth = hyperparameters.freeze_depth
        weighs_tasks = len(classifier.class_counts) > 1 and hyperparameters.task_weighting == "uncertainty"
        stages, self._suffix = freeze(classifier, depth, dropout=hyperparameters.dropout, weighs_tasks=weighs_tasks)
        require_trainable(self._suffix, train, validation, hyperparameters, settings)
        self._prefix = Prefix(stages=stages, spec=spec, settings=settings)
        self._train = train
        self._validation = validation
        samples = None if isinstance(train, BatchStream) else train
        self._phases = plan_phases(hyperparameters, classifier.backbone.num_stages)
        known = self._suffix.num_classes - (0 if companion is None else companion.num_extra)
        objective = objective_of(self._suffix, hyperparameters, count_labels(train), settings.device)
        if companion is not None and isinstance(objective, Objective):
            objective = replace(objective, num_smoothed=known)
        self._changes = ImageChanges(hyperparameters, settings, self._prefix, self._suffix, objective)
        self._sources, self._note = self._open_sources(samples, activations)
        joint = self._joint_loss(companion)
        self._feed = None if joint is None else self._companion_feed(joint.companion)
        self._head_loss = None if hyperparameters.head == "linear" else self._start_head(known).fit(classifier.head)
        start = start_of(self._suffix, source, settings.device) if pulls_to_start(hyperparameters) else {}
        # Every phase would compile anew.
        compiles = depth in settings.compiled_depths and world_size() == 1 and len(self._phases) == 1
        self._stepper = Stepper(
            self._suffix, hyperparameters, settings, objective, start, compiles=compiles, joint=joint
        )
        self._class_counts = self._suffix.class_counts if companion is None else (known,)
        self.epoch = 0
        self._history: list[EpochMetrics] = []
        self._best_epoch = 0
        self._best_suffix: dict[str, Tensor] = {}

    @property
    def inputs(self) -> Inputs:
        """Say what the suffix is fed from."""
        return self._sources.name

    @property
    def is_over(self) -> bool:
        """Tell whether all epochs are done, or the last phase had no better one for too long."""
        if self._has_one_pass:
            return self.epoch >= 1
        patience, last = self._hyperparameters.patience, self._phases[-1].first_epoch
        is_stuck = patience is not None and self.epoch - max(self._best_epoch, last - 1) >= patience
        return is_stuck or self.epoch >= self._hyperparameters.epochs

    def run_epoch(self) -> EpochMetrics:
        """Train and validate one epoch, and remember its weights if it is the best so far."""
        epoch = self.epoch + 1
        self._stepper.enter(phase_of(self._phases, epoch))
        # Dropout and stochastic depth draw from generators: seeded here, a resumed epoch draws the same.
        with seeded(self._settings.seed, epoch, rank(), device=self._settings.device):
            train_loss = self._train_epoch(epoch)
        if self._settings.batch_norm == "train":
            average_batch_norm(self._suffix)
        if self._stepper.mean is not None:
            self._stepper.mean.follow()
        val_loss, val_accuracy = self._validate()
        metrics = EpochMetrics(epoch=epoch, train_loss=train_loss, val_loss=val_loss, val_accuracy=val_accuracy)
        # Sums over all ranks: every rank comes to the same verdict, and none waits for another.
        require_finite(metrics)
        self.epoch = epoch
        self._history.append(metrics)
        if self._best_epoch == 0 or is_better(metrics, self._history[self._best_epoch - 1], self._settings.metric):
            self._best_epoch = epoch
            self._best_suffix = _copy(self._stepper.trained.state_dict(), self._settings.device)
        return metrics

    def state(self) -> TrainingState:
        """Copy the training to the CPU."""
        mean = self._stepper.mean
        suffix = _copy(self._suffix.state_dict(), "cpu")
        is_best = self._best_epoch == self.epoch and mean is None
        return TrainingState(
            epoch=self.epoch,
            hyperparameters=self._hyperparameters,
            suffix=suffix,
            averaged=None if mean is None else _copy(mean.module.state_dict(), "cpu"),
            trainable=self._stepper.trainable,
            steps=_copy(self._stepper.state(), "cpu"),
            best_epoch=self._best_epoch,
            best_suffix=suffix if is_best else _copy(self._best_suffix, "cpu"),
            history=tuple(self._history),
            seconds=time.perf_counter() - self._started,
        )

    def restore(self, state: TrainingState) -> None:
        """Go on from a state. Raises TrainingError when it is that of another training."""
        require_same_training(state, self._hyperparameters, self._suffix)
        self._suffix.load_state_dict(state.suffix)
        self._stepper.enter(phase_of(self._phases, state.epoch))
        if self._stepper.trainable != state.trainable:
            raise TrainingError(
                "a checkpoint must come from the same phase of the same strategy",
                value=f"{len(state.trainable)} trained parameters after epoch {state.epoch}",
                remedy="Remove the checkpoint to train from the start.",
            )
        self._stepper.load(_copy(state.steps, "cpu"))
        if self._stepper.mean is not None and state.averaged is not None:
            self._stepper.mean.load(state.averaged)
        self.epoch = state.epoch
        self._history = list(state.history)
        self._best_epoch = state.best_epoch
        self._best_suffix = _copy(state.best_suffix, self._settings.device)
        self._started -= state.seconds

    def finish(self) -> FineTuneResult:
        """Put the best weights into the classifier."""
        self._suffix.load_state_dict(self._best_suffix)
        restore_batch_norms(self._suffix)
        self._classifier.eval()
        return FineTuneResult(
            history=self._history,
            best_epoch=self._best_epoch,
            seconds=time.perf_counter() - self._started,
            inputs=self.inputs,
            note=self._note,
            sparsity=self._stepper.sparsity(),
        )

    def close(self) -> None:
        """Let go of a source that is streamed."""
        if self._feed is not None:
            self._feed.close()

    def _open_sources(self, train: Samples | None, activations: Activations | None) -> tuple[SuffixSources, str | None]:
        if not self._hyperparameters.changes_images:
            return open_sources(self._prefix, train, self._validation, activations)
        judged = suffix_inputs(self._prefix, None, self._validation, None)
        if train is None:
            return judged, None
        images = Computed(samples=train, prefix=self._changes.entrance, is_varied=self._settings.augment.varies)
        return replace(judged, train=images, name="pixels"), None

    def _joint_loss(self, companion: Companion | None) -> JointLoss | None:
        if companion is None or companion.is_idle(has_one_pass=self._has_one_pass):
            return None
        counts, device = companion.label_counts.by_task[0], self._settings.device
        objective = create_objective(self._hyperparameters, counts, self._suffix.num_classes, device)
        return JointLoss(companion=companion, objective=objective)

    def _companion_feed(self, companion: Companion) -> CompanionFeed:
        train = self._train
        return CompanionFeed(
            companion,
            self._prefix,
            num_target=train.num_samples if isinstance(train, BatchStream) else len(train),
            epochs=None if self._has_one_pass else self._hyperparameters.epochs,
            most_bytes=self._settings.activation_bytes - remembered_bytes(self._sources),
        )

    @property
    def _has_one_pass(self) -> bool:
        return self._hyperparameters.has_one_pass(self._classifier.backbone.num_stages)

    def _start_head(self, known: int) -> HeadStart:
        return HeadStart(
            suffix=self._suffix,
            prefix=self._prefix,
            hyperparameters=self._hyperparameters,
            steps=lambda: self._steps(1, False),
            feed=self._feed,
            known=known,
        )

    def _train_epoch(self, epoch: int) -> float:
        if self._has_one_pass and self._head_loss is not None:
            return self._head_loss
        totals = torch.zeros(2, dtype=torch.float64, device=self._settings.device)

        def done(step: Step) -> float:
            return (epoch - 1 + step.done) / self._hyperparameters.epochs

        drawn = self._steps(epoch, self._hyperparameters.balanced)
        changed = (self._changes.apply(step, epoch, number) for number, step in enumerate(drawn))
        steps = changed if self._feed is None else self._feed.join(changed, epoch)
        for first in steps:
            totals += self._stepper.step(chain([first], islice(steps, first.together - 1)), done=done)
        loss_sum, count = sum_over_ranks(totals).tolist()
        return float(loss_sum / count)

    def _steps(self, epoch: int, balanced: bool) -> Iterator[Step]:
        if isinstance(self._train, BatchStream):
            return steps_of_stream(
                self._train, self._changes.entrance, epoch=epoch, accumulate=self._hyperparameters.accumulate
            )
        assert self._sources.train is not None
        return steps_of_samples(
            self._sources.train,
            self._train.labels,
            self._changes.entrance,
            batch_size=self._hyperparameters.batch_size,
            epoch=epoch,
            balanced=balanced,
            accumulate=self._hyperparameters.accumulate,
        )

    def _validate(self) -> tuple[float, float]:
        """Give the mean loss and the accuracy, of several tasks their means; ranks share the samples."""
        mine = share(np.arange(len(self._validation), dtype=np.int64), rank(), world_size())
        self._stepper.trained.eval()
        if is_multi_label(self._validation.labels):
            return judge_label_sets(self._logits, mine, self._validation.labels, self._settings.device)
        totals = torch.zeros(len(self._class_counts), 2, dtype=torch.float64, device=self._settings.device)
        for start in range(0, len(mine), EVALUATION_BATCH):
            totals += self._judge(mine[start : start + EVALUATION_BATCH])
        return mean_over_tasks(sum_over_ranks(totals), self._validation.labels)

    def _judge(self, positions: NDArray[np.int64]) -> Tensor:
        """Give for each task [T, 2] the sum of the losses and the number of right answers."""
        labels = torch.from_numpy(self._validation.labels[positions]).to(self._settings.device)
        return judge_tasks(self._logits(positions)[:, : sum(self._class_counts)], labels, self._class_counts)

    def _logits(self, positions: NDArray[np.int64]) -> Tensor:
        """Give the logits float32 of validation samples; the network is in eval mode."""
        with torch.no_grad(), autocast(self._settings):
            logits: Tensor = self._stepper.trained(self._sources.validation.take(positions, 0))
        return logits.float()


def _copy(value: Any, device: str) -> Any:
    """Copy the tensors in nested dicts and lists to a device; an optimizer's state is such a nest."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {key: _copy(entry, device) for key, entry in value.items()}
    if isinstance(value, list):
        return [_copy(entry, device) for entry in value]
    return value
