"""Changes the learning rate over the steps of a training: pure functions of how much of it is done."""

from __future__ import annotations

import math

from orchestrator.records import Hyperparameters

BASE_BATCH_SIZE = 32
"""The batch size at which `rate_scaling` leaves the learning rate as it is."""

# Of Smith and Topin's schedule as torch.optim.lr_scheduler.OneCycleLR has it by default.
_RISE = 0.3
_FIRST_FACTOR = 1 / 25
_LAST_FACTOR = _FIRST_FACTOR / 1e4


def base_rate(hyperparameters: Hyperparameters) -> float:
    """Give the learning rate for the batch size, and for all batches of a step together.

    `linear` multiplies by the samples of a step over 32 (Goyal et al., "Accurate, Large Minibatch SGD", 2017), `sqrt`
    by the root of that ratio (Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014).
    """
    ratio = hyperparameters.batch_size * hyperparameters.accumulate / BASE_BATCH_SIZE
    factors = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}
    return hyperparameters.learning_rate * factors[hyperparameters.rate_scaling]


def is_constant(hyperparameters: Hyperparameters) -> bool:
    """Tell whether the rate never changes."""
    return hyperparameters.schedule == "constant" and hyperparameters.warmup == 0


def rate_factor(hyperparameters: Hyperparameters, progress: float) -> float:
    """Give what the base rate is multiplied by when the share `progress` in [0, 1] of a training is done.

    It rises linearly from 0 over the share `warmup`. `cosine` then falls to 0 (Loshchilov and Hutter, "SGDR", 2017,
    without restarts); `one_cycle` rises from a 25th along a cosine over three tenths and falls to a 250,000th (Smith
    and Topin, "Super-Convergence", 2018; the rate alone, not the momentum).
    """
    if progress < hyperparameters.warmup:
        return progress / hyperparameters.warmup
    left = min(1.0, (progress - hyperparameters.warmup) / (1 - hyperparameters.warmup))
    match hyperparameters.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return _between(1.0, 0.0, left)
        case "one_cycle":
            if left < _RISE:
                return _between(_FIRST_FACTOR, 1.0, left / _RISE)
            return _between(1.0, _LAST_FACTOR, (left - _RISE) / (1 - _RISE))


def _between(start: float, end: float, share: float) -> float:
    """Go from one value to another along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
