"""Trains SimSiam epoch by epoch: what a rank of a pretraining and a debugger session both call."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from orchestrator.config import SimSiamConfig
from orchestrator.errors import CollapsedError, DivergedError, TrainingError
from orchestrator.finetune.classifier import preprocess
from orchestrator.finetune.contracts import ImageStream, Samples, TrainingSettings
from orchestrator.finetune.distributed import distribute, rank, sum_over_ranks, world_size
from orchestrator.finetune.image_batches import ImageBatch, blank_image, count_images, image_batches
from orchestrator.finetune.optimizers import create_optimizer
from orchestrator.finetune.prefix import autocast
from orchestrator.finetune.randomness import seeded
from orchestrator.finetune.schedules import rate_factor
from orchestrator.finetune.shared_batch_norm import share_batch_norms
from orchestrator.finetune.simsiam import SimSiam, spread
from orchestrator.finetune.simsiam_checkpoints import SimSiamState
from orchestrator.finetune.training_checks import require_same_pretraining
from orchestrator.finetune.view_pairs import view_pair
from orchestrator.records import BackboneSpec, Hyperparameters, SimSiamEpoch

# The batch size that the experiment file's learning rate is meant for.
_RATED_BATCH = 256
# A tenth of what outputs differ by where they point everywhere.
LEAST_SPREAD = 0.1
# A key of the optimizer's groups: whether their rate falls along the schedule.
_FALLS = "rate_falls"


@dataclass(frozen=True, kw_only=True)
class SimSiamEnd:
    """Tell what an epoch found; `take_state` copies the training, during the callback only."""

    metrics: SimSiamEpoch
    take_state: Callable[[], SimSiamState]


@dataclass(frozen=True, kw_only=True)
class SimSiamResult:
    """Say how a training went: every epoch, and wall seconds, all runs together."""

    history: list[SimSiamEpoch]
    seconds: float


def _ignore(end: SimSiamEnd) -> None:
    pass


def train_simsiam(
    model: SimSiam,
    spec: BackboneSpec,
    images: Samples | ImageStream,
    config: SimSiamConfig,
    settings: TrainingSettings,
    *,
    on_epoch: Callable[[SimSiamEnd], None] = _ignore,
    resume: SimSiamState | None = None,
) -> SimSiamResult:
    """Train a model on images: of samples, whose labels are not looked at, or of a stream.

    On return the model holds the weights of the last epoch, in eval mode and on the settings' device. Under
    torch.distributed every rank calls this with the same arguments (of a stream, its own share): a global batch is
    divided over the ranks, and BatchNorm takes its statistics from all of it, so that two ranks make what one process
    makes of the same global batches, but for rounding. Every image counts once an epoch; the last global batches of a
    stream are smaller where some ranks have run out. `on_epoch` is called on every rank. A resumed training gives what
    an uninterrupted one gives, provided that a stream brings the same batches again.

    Raises CollapsedError when all outputs have become the same, DivergedError for a loss that is not finite,
    TrainingError for images, batches or a checkpoint that cannot be trained with, and on every rank when a stream does
    not bring every image of an epoch once.
    """
    training = SimSiamTraining(model, spec, images, config, settings)
    if resume is not None:
        training.restore(resume)
    while training.epoch < config.epochs:
        metrics = training.run_epoch()
        on_epoch(SimSiamEnd(metrics=metrics, take_state=training.state))
    return training.finish()


class SimSiamTraining:
    """Hold what changes while a model is trained; `train_simsiam` says what its arguments are."""

    def __init__(
        self,
        model: SimSiam,
        spec: BackboneSpec,
        images: Samples | ImageStream,
        config: SimSiamConfig,
        settings: TrainingSettings,
    ) -> None:
        self._num_images = count_images(images)
        _require_trainable(self._num_images, config)
        self._started = time.perf_counter()
        self._spec = spec
        self._images = images
        self._config = config
        self._settings = settings
        self._model = model.to(settings.device).to(memory_format=torch.channels_last)
        self._model.requires_grad_(True)
        self._shared = share_batch_norms(self._model) if world_size() > 1 else []
        self._hyperparameters = simsiam_hyperparameters(config)
        is_scaled = settings.precision == "fp16"
        self._optimizer = _optimizer(self._model, self._hyperparameters, is_scaled=is_scaled)
        self._scaler = torch.amp.GradScaler(settings.device.partition(":")[0], enabled=is_scaled)
        self._distributed = distribute(self._model)
        self.epoch = 0
        self._history: list[SimSiamEpoch] = []

    def run_epoch(self) -> SimSiamEpoch:
        """Train one epoch, and see whether the outputs still differ."""
        epoch = self.epoch + 1
        self._model.train()
        batches = image_batches(
            self._images,
            image_size=self._spec.image_size,
            batch_size=self._config.batch_size,
            epoch=epoch,
            settings=self._settings,
        )
        total, weighted, seen = 0.0, 0.0, 0
        # Backbones may draw from generators: seeded here, a resumed epoch draws the same.
        with seeded(self._settings.seed, epoch, rank(), device=self._settings.device):
            for batch in batches:
                done = (epoch - 1 + (seen + batch.total / 2) / self._num_images) / self._config.epochs
                loss, width = self._step(batch, epoch, done)
                total, weighted, seen = total + loss, weighted + width * batch.total, seen + batch.total
        metrics = SimSiamEpoch(epoch=epoch, loss=total / seen, spread=weighted / seen)
        _require_sound(metrics)
        self.epoch = epoch
        self._history.append(metrics)
        return metrics

    def state(self) -> SimSiamState:
        """Copy the training."""
        steps = {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}
        return SimSiamState(
            epoch=self.epoch,
            config=self._config,
            model=copy.deepcopy(self._model.state_dict()),
            steps=copy.deepcopy(steps),
            history=tuple(self._history),
            seconds=time.perf_counter() - self._started,
        )

    def restore(self, state: SimSiamState) -> None:
        """Go on from a state. Raises TrainingError when it is that of another training."""
        require_same_pretraining(self._model, state.model, self._config, state.config, section="pretrain.simsiam")
        self._model.load_state_dict(state.model)
        # The optimizer goes on with the tensors that it is given.
        steps = copy.deepcopy(state.steps)
        self._optimizer.load_state_dict(steps["optimizer"])
        self._scaler.load_state_dict(steps["scaler"])
        self.epoch = state.epoch
        self._history = list(state.history)
        self._started -= state.seconds

    def finish(self) -> SimSiamResult:
        """Put the model into eval mode."""
        self._model.eval()
        return SimSiamResult(history=self._history, seconds=time.perf_counter() - self._started)

    def _step(self, batch: ImageBatch, epoch: int, done: float) -> tuple[float, float]:
        """Take a step over a global batch; give the sum of its losses and the spread of its outputs."""
        self._set_rates(done)
        self._optimizer.zero_grad()
        # A rank that has run out takes part with a blank image, which counts nowhere.
        num_blank = 0 if len(batch.keys) else 1
        for layer in self._shared:
            layer.num_blank = num_blank
        one, other = self._views(blank_image(self._spec.image_size) if num_blank else batch, epoch)
        with autocast(self._settings):
            losses, outputs = self._distributed(one, other)
        losses, outputs = losses[num_blank:], outputs[num_blank:]
        minimised = losses.sum() * (world_size() / batch.total)
        torch.autograd.backward(self._scaler.scale(minimised))
        self._scaler.step(self._optimizer)
        self._scaler.update()
        # Sums over all ranks: every rank comes to the same verdict, and none waits for another.
        return float(sum_over_ranks(losses.detach().double().sum())), spread(outputs)

    def _views(self, batch: ImageBatch, epoch: int) -> tuple[Tensor, Tensor]:
        device = self._settings.device
        pair = view_pair(batch.pixels, batch.keys, epoch, self._config, self._settings.order_seed, device=device)
        one, other = (preprocess(view, self._spec, device) for view in pair)
        return one, other

    def _set_rates(self, done: float) -> None:
        """Set the rates of a step before which the share `done` of the training lies."""
        rate = self._hyperparameters.learning_rate
        for group in self._optimizer.param_groups:
            group["lr"] = rate * (rate_factor(self._hyperparameters, done) if group[_FALLS] else 1.0)


def simsiam_hyperparameters(config: SimSiamConfig) -> Hyperparameters:
    """Give the hyperparameters that a training by SimSiam has; the learning rate is that of the batch size."""
    return Hyperparameters(
        freeze_depth=0,
        learning_rate=config.learning_rate * config.batch_size / _RATED_BATCH,
        epochs=config.epochs,
        batch_size=config.batch_size,
        optimizer=config.optimizer,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        schedule="cosine",
    )


def _optimizer(model: SimSiam, hyperparameters: Hyperparameters, *, is_scaled: bool) -> Optimizer:
    """Create an optimizer whose rate falls, but for the predictor's, which has to follow the latest outputs."""
    falling = [*model.backbone.parameters(), *model.projector.parameters()]
    groups = [{"params": falling, _FALLS: True}, {"params": list(model.predictor.parameters()), _FALLS: False}]
    return create_optimizer(groups, hyperparameters, scaled=is_scaled)


def _require_trainable(num_images: int, config: SimSiamConfig) -> None:
    least = 2 * world_size()
    for what, found in (
        ("pretrain.simsiam.batch_size", config.batch_size),
        ("the number of training images", num_images),
    ):
        if found < least:
            raise TrainingError(
                f"{what} must be at least {least} for BatchNorm on {world_size()} workers",
                value=found,
                remedy="Raise it, or lower train.num_workers.",
            )


def _require_sound(metrics: SimSiamEpoch) -> None:
    if not math.isfinite(metrics.loss):
        raise DivergedError(
            "the loss must stay finite",
            value=f"{metrics.loss} at epoch {metrics.epoch}",
            remedy="Lower pretrain.simsiam.learning_rate.",
        )
    if metrics.spread < LEAST_SPREAD:
        raise CollapsedError(
            f"outputs of different images must differ: the spread must be at least {LEAST_SPREAD:g} of 1",
            value=f"{metrics.spread:.3g} at epoch {metrics.epoch}",
            remedy="Lower pretrain.simsiam.learning_rate, or raise its batch_size; images that are all alike cannot be "
            "learnt from.",
        )
