"""Trains many heads on the same features at once: one stacked product a step instead of one step a head."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orchestrator.config import OptimizerName
from orchestrator.errors import DivergedError
from orchestrator.finetune.batches import plan_batches
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.epochs import FoldHistory, best_epoch, require_finite
from orchestrator.finetune.prefix import autocast
from orchestrator.records import EpochMetrics, Hyperparameters

_VALIDATION_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class Features:
    """Hold the pooled features [n, d] of samples, on a device, beside their class indices [n] int64."""

    rows: Tensor
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class FeatureSplit:
    """Hold training samples in each of their views, of which epochs take turns, and validation samples."""

    train: Sequence[Features]
    validation: Features


@dataclass(frozen=True, kw_only=True)
class HeadResult:
    """Say how one head's training went; `seconds` is its share of the wall time. `error` says why it ended early.

    Over several folds the history has their means; `standard_error` is that of the metric in the best epoch.
    """

    history: list[EpochMetrics]
    best_epoch: int
    seconds: float
    stopped: bool = False
    error: str | None = None
    standard_error: float | None = None


ShouldStop = Callable[[int, Sequence[EpochMetrics]], bool]


def _never(head: int, history: Sequence[EpochMetrics]) -> bool:
    return False


def train_heads(
    head: nn.Linear,
    folds: Sequence[FeatureSplit],
    runs: Sequence[Hyperparameters],
    settings: TrainingSettings,
    *,
    should_stop: ShouldStop = _never,
) -> list[HeadResult]:
    """Train one head for each of `runs` from the same start, each at its own rate, decay and number of epochs.

    What comes out is what `fine_tune` gives for each run alone with every stage frozen, up to rounding: the batches
    are the same, and no head sees another. Heads of one batch size and optimizer share their products. On several
    folds all are trained in step, and the mean of an epoch counts. After each epoch `should_stop` is asked with the
    index into `runs` and the history so far; a head that stops, or diverges on a fold, leaves the stack.
    """
    together: dict[tuple[int, OptimizerName], list[int]] = defaultdict(list)
    for index, run in enumerate(runs):
        together[run.batch_size, run.optimizer].append(index)
    results: dict[int, HeadResult] = {}
    for (batch_size, optimizer), members in together.items():
        stacks = [
            _StackOnFold(
                _Stack.of(head, [(index, runs[index]) for index in members], optimizer, settings), fold, batch_size
            )
            for fold in folds
        ]
        results |= _train_stacks(stacks, settings, should_stop)
    return [results[index] for index in range(len(runs))]


def _train_stacks(
    stacks: Sequence[_StackOnFold], settings: TrainingSettings, should_stop: ShouldStop
) -> dict[int, HeadResult]:
    epochs = {member: run.epochs for member, run in stacks[0].runs}
    progress: dict[int, _Progress] = {member: _Progress() for member in epochs}
    results: dict[int, HeadResult] = {}
    epoch = 0
    while runs := stacks[0].runs:
        epoch += 1
        started = time.perf_counter()
        found = [stack.run_epoch(epoch) for stack in stacks]
        share = (time.perf_counter() - started) / len(runs)
        for (member, _), folds in zip(runs, zip(*found, strict=True), strict=True):
            end = progress[member].advance(folds, share, epochs[member], settings, member, should_stop)
            if end is not None:
                results[member] = end
        for stack in stacks:
            stack.drop(results)
    return results


class _StackOnFold:
    """Train a stack of heads on one fold, epoch by epoch."""

    def __init__(self, stack: _Stack, fold: FeatureSplit, batch_size: int) -> None:
        self._stack = stack
        self._views = [_with_ones(view.rows) for view in fold.train]
        self._judged = _with_ones(fold.validation.rows)
        self._labels = torch.from_numpy(fold.train[0].labels).to(self._judged.device)
        self._truth = fold.validation.labels
        self._batch_size = batch_size

    @property
    def runs(self) -> list[tuple[int, Hyperparameters]]:
        """List the runs whose heads are still trained."""
        return self._stack.runs

    def run_epoch(self, epoch: int) -> list[EpochMetrics]:
        """Train and validate every head of the stack."""
        stack, labels = self._stack, self._labels
        inputs = self._views[(epoch - 1) % len(self._views)]
        losses = torch.zeros(len(stack.runs), dtype=torch.float64, device=inputs.device)
        for batch in plan_batches(len(labels), self._batch_size, stack.settings.order_seed, epoch):
            positions = torch.from_numpy(batch).to(inputs.device)
            losses += stack.step(inputs[positions], labels[positions])
        return _measure(stack, epoch, losses / len(labels), self._judged, self._truth)

    def drop(self, finished: dict[int, HeadResult]) -> None:
        """Go on without the heads that have ended."""
        self._stack = self._stack.without(finished)


@dataclass
class _Progress:
    """Hold what is known of one head so far."""

    history: FoldHistory = field(default_factory=FoldHistory)
    seconds: float = 0.0

    def advance(
        self,
        folds: Sequence[EpochMetrics],
        seconds: float,
        epochs: int,
        settings: TrainingSettings,
        member: int,
        should_stop: ShouldStop,
    ) -> HeadResult | None:
        """Add an epoch; give the result when it was the last one."""
        self.seconds += seconds
        try:
            for metrics in folds:
                require_finite(metrics)
        except DivergedError as error:
            return self._result(settings, error=f"{type(error).__name__}: {error}")
        mean = self.history.append(folds)
        if mean.epoch == epochs:
            return self._result(settings)
        if should_stop(member, self.history.means):
            return self._result(settings, stopped=True)
        return None

    def _result(self, settings: TrainingSettings, *, stopped: bool = False, error: str | None = None) -> HeadResult:
        return HeadResult(
            history=self.history.means,
            best_epoch=best_epoch(self.history.means, settings.metric) if self.history.means else 0,
            standard_error=self.history.standard_error(settings.metric),
            seconds=self.seconds,
            stopped=stopped,
            error=error,
        )


@dataclass(eq=False, kw_only=True)
class _Stack:
    """Hold H heads of K classes over d features, parameters [H, K, d + 1] with the bias last, and their moments.

    The updates are those of torch.optim's SGD with momentum 0.9, Adam and AdamW; rates and decays are [H, 1, 1].
    """

    runs: list[tuple[int, Hyperparameters]]
    optimizer: OptimizerName
    settings: TrainingSettings
    parameters: Tensor
    rates: Tensor
    decays: Tensor
    first: Tensor
    second: Tensor
    steps: int = 0

    @classmethod
    def of(
        cls,
        head: nn.Linear,
        runs: list[tuple[int, Hyperparameters]],
        optimizer: OptimizerName,
        settings: TrainingSettings,
    ) -> _Stack:
        """Start every run from a copy of the head."""
        start = torch.cat([head.weight.detach(), head.bias.detach()[:, None]], dim=1).to(settings.device)
        parameters = start.repeat(len(runs), 1, 1)

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=parameters.dtype, device=parameters.device)[:, None, None]

        return cls(
            runs=runs,
            optimizer=optimizer,
            settings=settings,
            parameters=parameters,
            rates=column([run.learning_rate for _, run in runs]),
            decays=column([run.weight_decay for _, run in runs]),
            first=torch.zeros_like(parameters),
            second=torch.zeros_like(parameters) if optimizer != "sgd" else parameters.new_zeros(len(runs), 1, 1),
        )

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Take one step of every head on one batch [b, d + 1] and give their summed losses [H] before it."""
        log_probabilities = self.log_probabilities(inputs)
        losses = -_at_labels(log_probabilities, labels).sum(dim=0)
        # The slope of the mean cross-entropy in the logits: softmax less the truth.
        slope = log_probabilities.exp()
        slope.scatter_add_(2, _per_head(labels, slope), slope.new_full((1, 1, 1), -1.0).expand(*slope.shape[:2], 1))
        slope /= len(labels)
        with autocast(self.settings):
            gradient = (slope.flatten(1).T @ inputs).view_as(self.parameters).float()
        self._update(gradient)
        return losses.double()

    def log_probabilities(self, inputs: Tensor) -> Tensor:
        """Give the log-probabilities [b, H, K] of inputs [b, d + 1]."""
        with autocast(self.settings):
            logits = inputs @ self.parameters.flatten(0, 1).T
        return logits.float().view(len(inputs), *self.parameters.shape[:2]).log_softmax(dim=2)

    def without(self, finished: dict[int, HeadResult]) -> _Stack:
        """Drop the heads that have ended."""
        kept = [slot for slot, (member, _) in enumerate(self.runs) if member not in finished]
        if len(kept) == len(self.runs):
            return self
        index = torch.tensor(kept, dtype=torch.int64, device=self.parameters.device)
        return _Stack(
            runs=[self.runs[slot] for slot in kept],
            optimizer=self.optimizer,
            settings=self.settings,
            parameters=self.parameters[index],
            rates=self.rates[index],
            decays=self.decays[index],
            first=self.first[index],
            second=self.second[index],
            steps=self.steps,
        )

    def _update(self, gradient: Tensor) -> None:
        self.steps += 1
        if self.optimizer == "adamw":
            self.parameters.mul_(1 - self.rates * self.decays)
        else:
            gradient.addcmul_(self.parameters, self.decays)
        if self.optimizer == "sgd":
            self.first.mul_(0.9).add_(gradient)
            self.parameters.addcmul_(self.first, self.rates, value=-1)
            return
        # Kingma and Ba, "Adam" (2015), with torch.optim's defaults.
        self.first.lerp_(gradient, 1 - 0.9)
        self.second.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
        denominator = self.second.sqrt().div_((1 - 0.999**self.steps) ** 0.5).add_(1e-8)
        self.parameters.addcmul_(self.first / denominator, self.rates / (1 - 0.9**self.steps), value=-1)


def _measure(
    stack: _Stack, epoch: int, train_losses: Tensor, inputs: Tensor, labels: NDArray[np.int64]
) -> list[EpochMetrics]:
    """Validate every head."""
    totals = torch.zeros(2, len(stack.runs), dtype=torch.float64, device=inputs.device)
    for start in range(0, len(labels), _VALIDATION_ROWS):
        truth = torch.from_numpy(labels[start : start + _VALIDATION_ROWS]).to(inputs.device)
        log_probabilities = stack.log_probabilities(inputs[start : start + _VALIDATION_ROWS])
        totals[0] -= _at_labels(log_probabilities, truth).sum(dim=0)
        totals[1] += (log_probabilities.argmax(dim=2) == truth[:, None]).sum(dim=0)
    val_losses, accuracies = (totals / len(labels)).tolist()
    return [
        EpochMetrics(epoch=epoch, train_loss=train_loss, val_loss=val_loss, val_accuracy=accuracy)
        for train_loss, val_loss, accuracy in zip(train_losses.tolist(), val_losses, accuracies, strict=True)
    ]


def _at_labels(values: Tensor, labels: Tensor) -> Tensor:
    """Take from [b, H, K] the entries [b, H] of each row's class."""
    return values.gather(2, _per_head(labels, values)).squeeze(2)


def _per_head(labels: Tensor, like: Tensor) -> Tensor:
    return labels[:, None, None].expand(-1, like.shape[1], 1)


def _with_ones(rows: Tensor) -> Tensor:
    """Append the column of ones [n, d + 1] that the bias is multiplied by."""
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
