"""Takes the optimizer's steps of a training: forward, loss, penalty, backward, clipping, rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from orchestrator.errors import TrainingError
from orchestrator.finetune.averaging import RunningMean
from orchestrator.finetune.compilation import compiled
from orchestrator.finetune.contracts import TrainingSettings
from orchestrator.finetune.distributed import distribute, world_size
from orchestrator.finetune.freezing import Suffix
from orchestrator.finetune.joint import JointLoss, JointNetwork
from orchestrator.finetune.losses import Objective
from orchestrator.finetune.optimizers import create_optimizer, rate_groups, set_rate
from orchestrator.finetune.phases import Phase
from orchestrator.finetune.prefix import autocast
from orchestrator.finetune.regularization import penalty, sparsity
from orchestrator.finetune.schedules import base_rate, is_constant, rate_factor
from orchestrator.finetune.shared_batch_norm import share_batch_norms
from orchestrator.finetune.steps import Step
from orchestrator.finetune.tasks import TaskObjective
from orchestrator.records import Hyperparameters

# No step of an optimizer ends at zero itself.
_NEXT_TO_NOTHING = 1e-3


class Stepper:
    """Hold what steps change: a suffix, its optimizer, and the running mean of its weights where one is kept.

    `compiles` sends the suffix through torch.compile. `joint` says what a source adds to the loss, where there is one.
    In fp16 losses are scaled so that small gradients stay, and steps whose gradients overflow are skipped; weights are
    fp32 at any precision (Micikevicius et al., "Mixed Precision Training", 2018).
    """

    def __init__(
        self,
        suffix: Suffix,
        hyperparameters: Hyperparameters,
        settings: TrainingSettings,
        objective: Objective | TaskObjective,
        start: Mapping[str, Tensor],
        *,
        compiles: bool = False,
        joint: JointLoss | None = None,
    ) -> None:
        self._suffix = suffix
        self._hyperparameters = hyperparameters
        self._settings = settings
        self._objective = objective
        self._start = start
        self._compiles = compiles
        self._joint = joint
        self._shared = share_batch_norms(suffix) if settings.batch_norm == "sync" and world_size() > 1 else []
        self._optimizer = create_optimizer(
            rate_groups(suffix, hyperparameters), hyperparameters, scaled=settings.precision == "fp16"
        )
        set_rate(self._optimizer, base_rate(hyperparameters))
        self._scaler = torch.amp.GradScaler(settings.device.partition(":")[0], enabled=settings.precision == "fp16")
        decay = hyperparameters.ema_decay
        self.mean = None if decay is None else RunningMean(suffix, decay)
        self._phase: Phase | None = None
        self._penalised: dict[str, Tensor] = {}
        self._model: Callable[..., Any] = suffix

    @property
    def trained(self) -> nn.Module:
        """Give what is validated and kept: the suffix, or the one with averaged weights."""
        return self._suffix if self.mean is None else self.mean.module

    @property
    def trainable(self) -> tuple[str, ...]:
        """Name the parameters that are trained now."""
        return tuple(name for name, parameter in self._suffix.named_parameters() if parameter.requires_grad)

    def enter(self, phase: Phase) -> None:
        """Free what a phase trains and hold the rest; nothing happens in the middle of one.

        DDP decides when it wraps a module which gradients it waits for: every phase has a wrapper of its own.
        """
        # Whoever has looked at the network since may have left its stages in another mode.
        self._suffix.train()
        if phase == self._phase:
            return
        self._suffix.free(phase.depth, head=phase.trains_head)
        if not self.trainable:
            raise TrainingError(
                f"a phase must train something, but the stages from {phase.depth} on have no weights",
                value=self._hyperparameters.strategy,
                remedy="Lower freeze_depth, or take another strategy.",
            )
        if self.mean is not None:
            self.mean.follow()
        self._penalised = {name: weight for name, weight in self._bound_weights().items() if weight.requires_grad}
        # Its hooks on the parameters go with the wrapper.
        self._model = self._suffix
        self._model = self._wrapped()
        self._phase = phase

    def step(self, batches: Iterable[Step], *, done: Callable[[Step], float]) -> Tensor:
        """Take one step over the batches that go together, each made when its turn comes; `enter` comes first.

        Gives the sum of the losses of this rank's samples, and their number [2]. `done` tells for a batch what share of
        the training is behind it.
        """
        assert self._phase is not None
        self._optimizer.zero_grad()
        totals = torch.zeros(2, dtype=torch.float64, device=self._settings.device)
        behind = 0.0
        for number, batch in enumerate(batches, start=1):
            is_last = number == batch.together
            with nullcontext() if is_last else self._without_averaging():
                totals[0] += self._backward(batch, with_penalty=is_last)
            totals[1] += batch.count
            behind = done(batch)
        if not is_constant(self._hyperparameters):
            factor = rate_factor(self._hyperparameters, behind)
            set_rate(self._optimizer, factor * base_rate(self._hyperparameters))
        if self._hyperparameters.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            clip_grad_norm_(self._suffix.parameters(), self._hyperparameters.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self.mean is not None:
            self.mean.update()
        return totals

    def state(self) -> dict[str, Any]:
        """Give the state of the optimizer and of the scaler of gradients, which is empty where none is needed."""
        return {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    def _wrapped(self) -> Callable[..., Any]:
        if self._joint is not None:
            return distribute(JointNetwork(self._suffix))
        return compiled(self._suffix) if self._compiles else distribute(self._suffix)

    def _without_averaging(self) -> AbstractContextManager[object]:
        # Gradients of the batches of a step add up; ranks average them once.
        no_sync = getattr(self._model, "no_sync", None)
        return nullcontext() if no_sync is None else no_sync()

    def _backward(self, batch: Step, *, with_penalty: bool) -> Tensor:
        assert self._phase is not None
        self._set_mode(batch, self._phase.depth)
        logits, added = self._forward(batch)
        loss = self._objective.sum_of_losses(logits.float(), batch.targets)
        minimised = loss * (batch.scale / batch.together)
        if added is not None:
            minimised = minimised + added / batch.together
        if with_penalty and self._hyperparameters.regularizer != "none":
            minimised = minimised + self._penalty()
        torch.autograd.backward(self._scaler.scale(minimised))
        # A rank without samples had a blank image instead.
        return loss.detach() if batch.count else torch.zeros_like(loss)

    def _set_mode(self, batch: Step, depth: int) -> None:
        """Put the suffix into training mode; one sample has no variance to normalise by, and a blank image is none."""
        count = batch.count + (0 if batch.source is None else len(batch.source.inputs))
        # Shared statistics are those of the global batch: all ranks must take part, or none.
        is_enough = batch.total > 1 if self._shared else batch.count > 0 and count > 1
        self._suffix.set_mode(depth, self._settings.batch_norm if is_enough else "frozen")
        for layer in self._shared:
            layer.num_blank = 0 if batch.count else len(batch.inputs)

    def _forward(self, batch: Step) -> tuple[Tensor, Tensor | None]:
        """Give the logits of the target's samples, and what a source adds to their loss."""
        with autocast(self._settings):
            if self._joint is None:
                return self._model(batch.inputs), None
            outputs = self._joint.forward(self._model, batch)
        return outputs.target, self._joint.added(outputs, batch)

    def sparsity(self) -> float | None:
        """Give the share of the weights under an L1 penalty that are at most 0.001; None without one."""
        if self._hyperparameters.regularizer != "l1":
            return None
        return sparsity(self._bound_weights(), _NEXT_TO_NOTHING)

    def _bound_weights(self) -> dict[str, Tensor]:
        """Give the weights that are regularised while they are trained, by name."""
        return {name: parameter for name, parameter in self._suffix.named_parameters() if self._is_bound(name)}

    def _penalty(self) -> Tensor:
        found = penalty(self._hyperparameters.regularizer, self._penalised, self._start)
        return self._hyperparameters.regularizer_weight * found.to(self._settings.device)

    def _is_bound(self, name: str) -> bool:
        if self._suffix.is_log_variance(name):
            return False
        is_head = name.startswith(self._suffix.head_prefix)
        return {"backbone": not is_head, "head": is_head, "both": True}[self._hyperparameters.regularizer_scope]
