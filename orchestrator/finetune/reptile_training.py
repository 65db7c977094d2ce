"""Learns an initialisation over subsets by Reptile: what a rank of a pretraining and a debugger session both call."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import Parameter, functional
from torch.optim import SGD, Adam, Optimizer

from orchestrator.config import ReptileConfig
from orchestrator.errors import DivergedError, TrainingError
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.classifier import EVALUATION_BATCH, preprocess
from orchestrator.finetune.contracts import Samples, TrainingSettings
from orchestrator.finetune.distributed import rank, sum_over_ranks, world_size
from orchestrator.finetune.freezing import batch_norm_layers
from orchestrator.finetune.prefix import autocast
from orchestrator.finetune.randomness import seeded
from orchestrator.finetune.reptile import Weights, outer_rate, take_outer_step
from orchestrator.finetune.reptile_checkpoints import ReptileState
from orchestrator.finetune.reptile_tasks import Episode, Task, TaskPool, draw_batches
from orchestrator.finetune.tasks import class_indices
from orchestrator.finetune.training_checks import require_same_pretraining
from orchestrator.records import BackboneSpec, ReptilePoint

# Scalers of gradients are new with every task: with their usual scale its first steps would be skipped.
_FIRST_SCALE = 2.0**10
# Steps begin at 1: validation tasks are drawn as those of a step that is never taken.
_EPISODES = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class SubsetSamples:
    """Hold samples and the number of each one's subset, int64 [n]."""

    samples: Samples
    subsets: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ReptileEnd:
    """Tell what was measured; `take_state` copies the training, during the callback only."""

    point: ReptilePoint
    take_state: Callable[[], ReptileState]


@dataclass(frozen=True, kw_only=True)
class ReptileResult:
    """Say how a training went: every point, the subsets that tasks are drawn from, and wall seconds of all runs."""

    history: list[ReptilePoint]
    num_subsets: int
    seconds: float


def _ignore(end: ReptileEnd) -> None:
    pass


def train_reptile(
    backbone: Backbone,
    spec: BackboneSpec,
    train: SubsetSamples,
    held_out: SubsetSamples,
    config: ReptileConfig,
    settings: TrainingSettings,
    *,
    on_point: Callable[[ReptileEnd], None] = _ignore,
    resume: ReptileState | None = None,
) -> ReptileResult:
    """Move a backbone to weights from which the inner steps go far on every subset.

    A task is trained on with a new linear head, drawn from the seed, the step and its number. It is a part of the task:
    whoever fine-tunes the backbone begins with a new one too, and the start is learnt for what that does to it.
    With `batch_norm: frozen` the running statistics of BatchNorm stay as they are, and normalise; else the batches of
    the task do, and the statistics move as weights do. Held-out tasks are tested by the statistics, each image by
    itself: not transductively, in the paper's word. They choose nothing.

    On return the backbone holds the weights of the last step, in eval mode and on the settings' device. Under
    torch.distributed every rank calls this with the same arguments: the tasks of a step are dealt over the ranks, and
    two ranks make what one process makes, but for the rounding of sums. `on_point` is called on every rank, before the
    first step and after every `checkpoint_every` of them. A resumed training gives what an uninterrupted one gives.

    Raises DivergedError for a loss that is not finite, TrainingError for samples that no tasks can be drawn from and
    for the checkpoint of another training.
    """
    training = ReptileTraining(backbone, spec, train, held_out, config, settings)
    if resume is None:
        on_point(ReptileEnd(point=training.begin(), take_state=training.state))
    else:
        training.restore(resume)
    while training.step < config.steps:
        point = training.run_steps()
        on_point(ReptileEnd(point=point, take_state=training.state))
    return training.finish()


def require_tasks(train: SubsetSamples, config: ReptileConfig) -> TaskPool:
    """Give what tasks are drawn from. Raises TrainingError where there are no tasks, or always the same one."""
    pool = TaskPool.of(train.subsets, class_indices(train.samples.labels), least=1)
    if len(pool) == 0:
        raise TrainingError(
            "pretrain.reptile must have a subset with training images of two classes",
            value="none",
            remedy="Check pretrain.data and its subset column, and pretrain.classes.",
        )
    if len(pool) == 1 and (config.ways is None or config.ways >= len(pool.subsets[0])):
        raise TrainingError(
            "pretrain.reptile.ways must be less than the classes of the only subset, which else is the only task",
            value="no ways" if config.ways is None else config.ways,
            remedy=f"It has {len(pool.subsets[0])} classes: set ways below that, or name a column of subsets.",
        )
    return pool


class ReptileTraining:
    """Hold what changes while an initialisation is learnt; `train_reptile` says what its arguments are."""

    def __init__(
        self,
        backbone: Backbone,
        spec: BackboneSpec,
        train: SubsetSamples,
        held_out: SubsetSamples,
        config: ReptileConfig,
        settings: TrainingSettings,
    ) -> None:
        self._started = time.perf_counter()
        self._pool = require_tasks(train, config)
        self._samples = train.samples
        self._config = config
        self._settings = settings
        self._episodes = _Episodes(held_out, config, settings)
        self._backbone = backbone.to(settings.device).to(memory_format=torch.channels_last)
        self._backbone.requires_grad_(True)
        self._learner = _Learner(self._backbone, spec, config, settings)
        self.step = 0
        self._history: list[ReptilePoint] = []

    def begin(self) -> ReptilePoint:
        """Test the weights that the training starts with."""
        return self._keep(self._tested(ReptilePoint(step=0)))

    def run_steps(self) -> ReptilePoint:
        """Take outer steps up to the next point, and measure them."""
        config = self._config
        every = config.checkpoint_every
        end = min(config.steps, (self.step // every + 1) * every)
        losses = torch.zeros(2, dtype=torch.float64, device=self._settings.device)
        num_tasks = (end - self.step) * config.tasks_per_step
        while self.step < end:
            self.step += 1
            losses += self._take_step(self.step)
        first, last = (sum_over_ranks(losses) / num_tasks).tolist()
        _require_finite(last, self.step)
        point = ReptilePoint(step=self.step, first_loss=first, last_loss=last)
        return self._keep(self._tested(point) if self.step == config.steps else point)

    def state(self) -> ReptileState:
        """Copy the training."""
        return ReptileState(
            step=self.step,
            config=self._config,
            backbone=copy.deepcopy(self._backbone.state_dict()),
            history=tuple(self._history),
            seconds=time.perf_counter() - self._started,
        )

    def restore(self, state: ReptileState) -> None:
        """Go on from a state. Raises TrainingError when it is that of another training."""
        require_same_pretraining(self._backbone, state.backbone, self._config, state.config, section="pretrain.reptile")
        self._backbone.load_state_dict(state.backbone)
        self.step = state.step
        self._history = list(state.history)
        self._started -= state.seconds

    def finish(self) -> ReptileResult:
        """Put the backbone into eval mode."""
        self._backbone.eval()
        return ReptileResult(
            history=self._history, num_subsets=len(self._pool), seconds=time.perf_counter() - self._started
        )

    def _tested(self, point: ReptilePoint) -> ReptilePoint:
        accuracies = self._episodes.accuracies(self._learner)
        if len(accuracies) == 0:
            return point
        error = float(accuracies.std(ddof=1) / math.sqrt(len(accuracies))) if len(accuracies) > 1 else None
        return point.model_copy(update={"accuracy": float(accuracies.mean()), "standard_error": error})

    def _keep(self, point: ReptilePoint) -> ReptilePoint:
        self._history.append(point)
        return point

    def _take_step(self, step: int) -> Tensor:
        """Take an outer step; give the sums of the first and the last losses of this rank's tasks."""
        config = self._config
        losses: list[Tensor] = []
        adaptations = (self._adaptation(step, number, losses) for number in _of_rank(config.tasks_per_step))
        rate = outer_rate(config.outer_learning_rate, step, config.steps)
        take_outer_step(self._learner.weights, adaptations, rate=rate, num_tasks=config.tasks_per_step)
        return torch.stack(losses).sum(dim=0) if losses else torch.zeros(2, device=self._settings.device)

    def _adaptation(self, step: int, number: int, losses: list[Tensor]) -> Callable[[], None]:
        def adapt() -> None:
            rng = np.random.default_rng([self._settings.order_seed, step, number])
            task = self._pool.draw_task(self._config.ways, self._config.shots, rng)
            with seeded(self._settings.seed, step, number, device=self._settings.device):
                head = self._learner.new_head(task.num_classes)
                losses.append(self._learner.learn(self._samples, task, head, rng))

        return adapt


class _Learner:
    """Train a backbone on one task, with a head of its own and an optimizer that knows nothing yet."""

    def __init__(
        self, backbone: Backbone, spec: BackboneSpec, config: ReptileConfig, settings: TrainingSettings
    ) -> None:
        self.weights = Weights(backbone)
        self._backbone = backbone
        self._spec = spec
        self._config = config
        self._settings = settings

    def new_head(self, num_classes: int) -> nn.Linear:
        """Draw a head from torch's generator of the CPU: it is the same on every device."""
        return nn.Linear(self._backbone.feature_dim, num_classes).to(self._settings.device)

    def learn(self, samples: Samples, task: Task, head: nn.Linear, rng: np.random.Generator) -> Tensor:
        """Take the inner steps; give the losses [2] of the first batch and of the last one, each before its step."""
        config, device = self._config, self._settings.device
        self._backbone.train()
        if self._settings.batch_norm == "frozen":
            for layer in batch_norm_layers(self._backbone):
                layer.eval()
        parameters = [*self._backbone.parameters(), *head.parameters()]
        optimizer = _new_optimizer(parameters, config)
        is_scaled = self._settings.precision == "fp16"
        scaler = torch.amp.GradScaler(device.partition(":")[0], init_scale=_FIRST_SCALE, enabled=is_scaled)
        losses = []
        for batch in draw_batches(len(task.positions), config.batch_size, config.inner_steps, rng):
            optimizer.zero_grad()
            logits = self._logits(samples, task.positions[batch], head)
            loss = functional.cross_entropy(logits, torch.from_numpy(task.targets[batch]).to(device))
            torch.autograd.backward(scaler.scale(loss))
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.detach())
        optimizer.zero_grad()
        return torch.stack([losses[0], losses[-1]])

    @torch.no_grad()
    def accuracy(self, samples: Samples, task: Task, head: nn.Linear) -> float:
        """Give the share of a task's samples that are told rightly."""
        self._backbone.eval()
        parts = np.array_split(task.positions, -(-len(task.positions) // EVALUATION_BATCH))
        found = torch.cat([self._logits(samples, part, head).argmax(dim=1) for part in parts])
        return float((found.cpu().numpy() == task.targets).mean())

    def _logits(self, samples: Samples, positions: NDArray[np.int64], head: nn.Linear) -> Tensor:
        images = preprocess(samples.take(positions), self._spec, self._settings.device)
        with autocast(self._settings):
            logits: Tensor = head(self._backbone(images))
        return logits.float()


class _Episodes:
    """Test how far the inner steps go on tasks of samples that nothing is learnt from; the same ones every time."""

    def __init__(self, held_out: SubsetSamples, config: ReptileConfig, settings: TrainingSettings) -> None:
        self._samples = held_out.samples
        self._pool = TaskPool.of(held_out.subsets, class_indices(held_out.samples.labels), least=2)
        self._config = config
        self._settings = settings

    def accuracies(self, learner: _Learner) -> NDArray[np.float64]:
        """Give the accuracy on each task after the inner steps; none where no tasks can be drawn."""
        count = self._config.episodes if len(self._pool) else 0
        start = learner.weights.read()
        accuracies = torch.zeros(count, dtype=torch.float64)
        for number in _of_rank(count):
            accuracies[number] = self._test_one(learner, number)
            learner.weights.write(start)
        found: NDArray[np.float64] = sum_over_ranks(accuracies.to(self._settings.device)).cpu().numpy()
        return found

    def _test_one(self, learner: _Learner, number: int) -> float:
        rng = np.random.default_rng([self._settings.order_seed, _EPISODES, number])
        episode: Episode = self._pool.draw_episode(self._config.ways, self._config.shots, rng)
        with seeded(self._settings.seed, _EPISODES, number, device=self._settings.device):
            head = learner.new_head(episode.support.num_classes)
            learner.learn(self._samples, episode.support, head, rng)
            return learner.accuracy(self._samples, episode.queries, head)


def _of_rank(count: int) -> Iterable[int]:
    """Give the numbers of this rank's tasks out of `count`."""
    return range(rank(), count, world_size())


def _new_optimizer(parameters: Sequence[Parameter], config: ReptileConfig) -> Optimizer:
    if config.inner_optimizer == "sgd":
        return SGD(parameters, lr=config.inner_learning_rate)
    # Momentum within a task serves the start badly (the paper's section 6 sets beta1 to 0).
    return Adam(parameters, lr=config.inner_learning_rate, betas=(0.0, 0.999), fused=True)


def _require_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            "the loss must stay finite",
            value=f"{loss} at step {step}",
            remedy="Lower pretrain.reptile.inner_learning_rate.",
        )
