"""Creates optimizers by their names in the experiment file, with a rate for every stage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer

from orchestrator.finetune.freezing import Suffix
from orchestrator.records import Hyperparameters

FACTOR = "rate_factor"
"""What the rate of a group of parameters is multiplied by; a key of `Optimizer.param_groups`."""

Parameters = Iterable[Parameter] | Iterable[dict[str, Any]]


def create_optimizer(parameters: Parameters, hyperparameters: Hyperparameters, *, scaled: bool = False) -> Optimizer:
    """Create SGD, Adam or AdamW, at the learning rate, weight decay and momentum of the hyperparameters.

    Weight decay is an L2 penalty for SGD and Adam, and decoupled for AdamW; momentum is SGD's alone, and there is none
    of Nesterov's without it. `scaled` says that a scaler of gradients may skip steps.

    Both momenta: Sutskever et al., "On the Importance of Initialization and Momentum in Deep Learning", 2013. Adam:
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015. AdamW: Loshchilov and Hutter, "Decoupled Weight
    Decay Regularization", 2019.
    """
    rate, decay = hyperparameters.learning_rate, hyperparameters.weight_decay
    # Fused kernels take a sixth of the time of a loop over tensors, on the CPU too.
    match hyperparameters.optimizer:
        case "sgd":
            momentum = hyperparameters.momentum
            return SGD(
                parameters,
                lr=rate,
                weight_decay=decay,
                momentum=momentum,
                nesterov=hyperparameters.nesterov and momentum > 0,
                # A skipped first step would leave fused SGD with momenta that nothing was written to.
                fused=not scaled,
            )
        case "adam":
            return Adam(parameters, lr=rate, weight_decay=decay, fused=True)
        case "adamw":
            return AdamW(parameters, lr=rate, weight_decay=decay, fused=True)


def rate_groups(suffix: Suffix, hyperparameters: Hyperparameters) -> list[dict[str, Any]]:
    """Give the parameters of a suffix in groups of one rate: the head's factor is 1, that of stages before it less.

    Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018: a stage learns at
    `layer_decay` times the rate of the one after it.
    """
    if suffix.log_variances is not None:
        # They are no weights of the network: nothing pulls them to 0.
        weighing: list[dict[str, Any]] = [{"params": [suffix.log_variances], FACTOR: 1.0, "weight_decay": 0.0}]
        return _rate_groups_of_weights(suffix, hyperparameters) + weighing
    return _rate_groups_of_weights(suffix, hyperparameters)


def _rate_groups_of_weights(suffix: Suffix, hyperparameters: Hyperparameters) -> list[dict[str, Any]]:
    layer_decay = hyperparameters.layer_decay
    # Fused SGD begins the momenta of a group together: stages that begin to learn one by one need groups of their own.
    if layer_decay == 1 and hyperparameters.strategy == "freeze":
        named = suffix.named_parameters()
        return [{"params": [found for name, found in named if not suffix.is_log_variance(name)], FACTOR: 1.0}]
    stages = suffix.stages
    groups = [
        {"params": list(stage.parameters()), FACTOR: layer_decay ** (len(stages) - number)}
        for number, stage in enumerate(stages)
    ]
    return [*groups, {"params": list(suffix.head.parameters()), FACTOR: 1.0}]


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of every group to its factor of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[FACTOR]
