"""The epoch loop: what a search trial, a DDP rank, a baseline and a debugger session all call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from orchestrator.errors import TrainingError
from orchestrator.finetune.batches import share
from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.classifier import EVALUATION_BATCH, Classifier
from orchestrator.finetune.compilation import compiled
from orchestrator.finetune.contracts import Activations, BatchStream, Inputs, Samples, TrainingSettings
from orchestrator.finetune.distributed import average_batch_norm, distribute, rank, sum_over_ranks, world_size
from orchestrator.finetune.epochs import is_better, require_finite
from orchestrator.finetune.freezing import batch_norm_layers, freeze, set_training_mode
from orchestrator.finetune.optimizers import create_optimizer
from orchestrator.finetune.prefix import Prefix, autocast, open_sources
from orchestrator.finetune.randomness import seeded
from orchestrator.finetune.steps import Step, steps_of_samples, steps_of_stream
from orchestrator.records import BackboneSpec, EpochMetrics, Hyperparameters

__all__ = ["BatchStream", "EpochEnd", "FineTuneResult", "Samples", "TrainingSettings", "fine_tune"]


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
    """

    history: list[EpochMetrics]
    best_epoch: int
    seconds: float
    inputs: Inputs
    note: str | None = None


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
) -> FineTuneResult:
    """Train the stages that are not frozen, and the head, with cross-entropy at a constant rate.

    On return the classifier holds the weights of the best epoch (of equal accuracies the one of least loss), in
    eval mode and on the settings' device. Under torch.distributed every rank calls this with the same arguments (of
    a stream, its own share): a global batch of `batch_size` is divided over the ranks, and every sample counts once
    an epoch.
    `on_epoch` is called on every rank. A resumed training gives what an uninterrupted one gives.

    With stored `activations` of the freeze depth neither pixels nor frozen stages are touched; where they cannot be
    read, the training computes them itself and says so in its result.

    Raises BackboneError for a freeze depth beyond the backbone, DivergedError for a loss that is not finite,
    TrainingError for samples, batches or a checkpoint that cannot be trained with.
    """
    training = _Training(classifier, spec, train, validation, hyperparameters, settings, activations)
    if resume is not None:
        training.restore(resume)
    while training.epoch < hyperparameters.epochs:
        metrics = training.run_epoch()
        on_epoch(EpochEnd(metrics=metrics, take_state=training.state))
    return training.finish()


class _Training:
    """Hold what changes while a classifier is trained."""

    def __init__(
        self,
        classifier: Classifier,
        spec: BackboneSpec,
        train: Samples | BatchStream,
        validation: Samples,
        hyperparameters: Hyperparameters,
        settings: TrainingSettings,
        activations: Activations | None,
    ) -> None:
        self._started = time.perf_counter()
        self._settings = settings
        self._hyperparameters = hyperparameters
        self._classifier = classifier.to(settings.device).to(memory_format=torch.channels_last)
        stages, self._suffix = freeze(classifier, hyperparameters.freeze_depth)
        _require_trainable(self._suffix, validation, hyperparameters, settings)
        self._prefix = Prefix(stages=stages, spec=spec, settings=settings)
        self._train = train
        self._validation = validation
        samples = None if isinstance(train, BatchStream) else train
        self._sources, self._note = open_sources(self._prefix, samples, validation, activations)
        is_compiled = hyperparameters.freeze_depth in settings.compiled_depths and world_size() == 1
        self._model: Callable[..., Tensor] = compiled(self._suffix) if is_compiled else distribute(self._suffix)
        self._optimizer = create_optimizer(self._suffix.parameters(), hyperparameters)
        self.epoch = 0
        self._history: list[EpochMetrics] = []
        self._best_epoch = 0
        self._best_suffix: dict[str, Tensor] = {}

    def run_epoch(self) -> EpochMetrics:
        """Train and validate one epoch, and remember its weights if it is the best so far."""
        epoch = self.epoch + 1
        # Dropout and stochastic depth draw from generators: seeded here, a resumed epoch draws the same.
        with seeded(self._settings.seed, epoch, rank(), device=self._settings.device):
            train_loss = self._train_epoch(epoch)
        if self._settings.batch_norm == "train":
            average_batch_norm(self._suffix)
        val_loss, val_accuracy = self._validate()
        metrics = EpochMetrics(epoch=epoch, train_loss=train_loss, val_loss=val_loss, val_accuracy=val_accuracy)
        # Sums over all ranks: every rank comes to the same verdict, and none waits for another.
        require_finite(metrics)
        self.epoch = epoch
        self._history.append(metrics)
        if self._best_epoch == 0 or is_better(metrics, self._history[self._best_epoch - 1], self._settings.metric):
            self._best_epoch = epoch
            self._best_suffix = _copy(self._suffix.state_dict(), self._settings.device)
        return metrics

    def state(self) -> TrainingState:
        """Copy the training to the CPU."""
        suffix = _copy(self._suffix.state_dict(), "cpu")
        return TrainingState(
            epoch=self.epoch,
            hyperparameters=self._hyperparameters,
            suffix=suffix,
            optimizer=_copy(self._optimizer.state_dict(), "cpu"),
            best_epoch=self._best_epoch,
            best_suffix=suffix if self._best_epoch == self.epoch else _copy(self._best_suffix, "cpu"),
            history=tuple(self._history),
            seconds=time.perf_counter() - self._started,
        )

    def restore(self, state: TrainingState) -> None:
        """Go on from a state. Raises TrainingError when it is that of another training."""
        _require_same_training(state, self._hyperparameters, self._suffix)
        self._suffix.load_state_dict(state.suffix)
        self._optimizer.load_state_dict(_copy(state.optimizer, "cpu"))
        self.epoch = state.epoch
        self._history = list(state.history)
        self._best_epoch = state.best_epoch
        self._best_suffix = _copy(state.best_suffix, self._settings.device)
        self._started -= state.seconds

    def finish(self) -> FineTuneResult:
        """Put the best weights into the classifier."""
        self._suffix.load_state_dict(self._best_suffix)
        self._classifier.eval()
        return FineTuneResult(
            history=self._history,
            best_epoch=self._best_epoch,
            seconds=time.perf_counter() - self._started,
            inputs=self._sources.name,
            note=self._note,
        )

    def _train_epoch(self, epoch: int) -> float:
        totals = torch.zeros(2, dtype=torch.float64, device=self._settings.device)
        for step in self._steps(epoch):
            loss = self._train_step(step)
            if step.count:
                totals[0] += loss
                totals[1] += step.count
        loss_sum, count = sum_over_ranks(totals).tolist()
        return float(loss_sum / count)

    def _steps(self, epoch: int) -> Iterator[Step]:
        if isinstance(self._train, BatchStream):
            return steps_of_stream(self._train, self._prefix, epoch=epoch)
        assert self._sources.train is not None
        return steps_of_samples(
            self._sources.train,
            self._train.labels,
            self._prefix,
            batch_size=self._hyperparameters.batch_size,
            epoch=epoch,
        )

    def _train_step(self, step: Step) -> Tensor:
        """Take one step and give the sum of the losses of this rank's samples."""
        # One sample has no variance to normalise by.
        set_training_mode(self._suffix, self._settings.batch_norm if step.count > 1 else "frozen")
        self._optimizer.zero_grad()
        with autocast(self._settings):
            logits = self._model(step.inputs)
        loss = cross_entropy(logits.float(), step.labels, reduction="sum")
        torch.autograd.backward(loss * step.scale)
        self._optimizer.step()
        return loss.detach()

    def _validate(self) -> tuple[float, float]:
        """Give the mean loss and the accuracy; ranks share the samples."""
        mine = share(np.arange(len(self._validation), dtype=np.int64), rank(), world_size())
        totals = torch.zeros(2, dtype=torch.float64, device=self._settings.device)
        self._suffix.eval()
        for start in range(0, len(mine), EVALUATION_BATCH):
            totals += self._judge(mine[start : start + EVALUATION_BATCH])
        loss, accuracy = (sum_over_ranks(totals) / len(self._validation)).tolist()
        return loss, accuracy

    def _judge(self, positions: NDArray[np.int64]) -> Tensor:
        """Give the sum of the losses and the number of right answers."""
        labels = torch.from_numpy(self._validation.labels[positions]).to(self._settings.device)
        with torch.no_grad(), autocast(self._settings):
            logits = self._suffix(self._sources.validation.take(positions, 0)).float()
        loss = cross_entropy(logits, labels, reduction="sum")
        return torch.stack([loss.double(), (logits.argmax(dim=1) == labels).sum().double()])


def _require_trainable(
    suffix: nn.Module, validation: Samples, hyperparameters: Hyperparameters, settings: TrainingSettings
) -> None:
    if len(validation) == 0:
        raise TrainingError("there must be validation samples", value=0, remedy="Enlarge the validation split.")
    least = 2 * world_size()
    learns_statistics = settings.batch_norm == "train" and batch_norm_layers(suffix)
    if learns_statistics and hyperparameters.batch_size < least:
        raise TrainingError(
            f"batch_size must be at least {least} to train BatchNorm on {world_size()} workers",
            value=hyperparameters.batch_size,
            remedy="Raise batch_size, lower train.num_workers, or set train.batch_norm to frozen.",
        )


def _require_same_training(state: TrainingState, hyperparameters: Hyperparameters, suffix: nn.Module) -> None:
    # The rate is constant, so a training may be made longer.
    if state.hyperparameters.model_copy(update={"epochs": hyperparameters.epochs}) != hyperparameters:
        raise TrainingError(
            "a checkpoint must come from the same hyperparameters, epochs aside",
            value=state.hyperparameters,
            remedy="Remove the checkpoint to train from the start.",
        )
    shapes = {name: tensor.shape for name, tensor in suffix.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.suffix.items()} != shapes:
        raise TrainingError(
            "a checkpoint must come from the same backbone and classes",
            remedy="Remove the checkpoint to train from the start.",
        )


def _copy(value: Any, device: str) -> Any:
    """Copy the tensors in nested dicts and lists to a device; an optimizer's state is such a nest."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {key: _copy(entry, device) for key, entry in value.items()}
    if isinstance(value, list):
        return [_copy(entry, device) for entry in value]
    return value
