"""Finds the weighted mean direction of every class in two passes over features, and makes a head of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.finetune.cosine import CosineHead
from orchestrator.finetune.distributed import sum_over_ranks

# Quarter octaves, between which the loss hardly changes, up to where a few samples without a mistake would take it.
_SCALES = tuple(2 ** (step / 4) for step in range(25))
# What no image can tell: one image a class leaves nothing to judge a scale by.
_UNKNOWN_SCALE = 10.0
_ABSENT_LOGIT = -10.0


@dataclass(frozen=True, kw_only=True)
class LabelledFeatures:
    """Hold features [n, d] with class indices [n]; each counts by `weight`, those of the target by 1."""

    rows: Tensor
    labels: Tensor
    weight: float = 1.0
    is_target: bool = True


@dataclass(frozen=True, kw_only=True)
class Prototypes:
    """Hold the unit mean directions [K, d] float64 of the classes, zero for a class without samples.

    `scale` turns cosines into logits, `length` is the mean length of a feature, `loss` the mean cross-entropy in nats
    of the target's samples, each judged without its own part in its class's prototype; ln K where every sample is the
    only one of its class.
    """

    directions: Tensor
    scale: float
    length: float
    loss: float

    @property
    def present(self) -> Tensor:
        """Tell for every class [K] whether it has samples."""
        return self.directions.square().sum(dim=1) > 0

    @torch.no_grad()
    def write_to(self, head: nn.Linear) -> None:
        """Make a head [K, d] of the prototypes, in place.

        A linear head gets the rows s (c_k - m) / L with the scale s, the mean m of the prototypes and the mean length L
        of features, which leaves the softmax as it is with rows s c_k / L: the class of the nearest prototype has the
        highest logit, in squared Euclidean distance between unit vectors (Snell, Swersky and Zemel, "Prototypical
        Networks for Few-shot Learning", 2017: with that distance the head is linear). A class without samples has the
        logit -10, those of the others being 0 on average. A cosine head gets c_k and s (Qi, Brown and Lowe, "Low-Shot
        Learning with Imprinted Weights", 2018); its rows of absent classes stay.
        """
        present = self.present
        if isinstance(head, CosineHead):
            head.weight[present] = self.directions[present].to(head.weight.dtype)
            head.scale.fill_(self.scale)
            return
        mean = self.directions[present].mean(dim=0)
        rows = torch.where(present[:, None], self.directions - mean, 0.0) * (self.scale / self.length)
        head.weight.copy_(rows)
        head.bias.copy_(torch.where(present, 0.0, _ABSENT_LOGIT))


def find_prototypes(
    features: Callable[[], Iterable[LabelledFeatures]], num_classes: int, feature_dim: int, *, device: str, linear: bool
) -> Prototypes:
    """Find the prototypes of features [n, d] with class indices [n], which are gone through twice.

    A prototype is the direction of the weighted mean of its class's unit features: one long feature has no more say
    than any. That mean is what minimises the weighted sum of squared distances to them (Banerjee, Merugu, Dhillon and
    Ghosh, "Clustering with Bregman Divergences", 2005). The scale is the one of the least weighted cross-entropy when
    each sample is judged by prototypes that were made without it, as far as half of its class or more is left: what a
    prototype of other samples, which count little, is taken for says nothing of it. Logits are s cos(f, c_k), and for a
    `linear` head s |f| / L cos(f, c_k). Ranks go through their own features and come to the same result.
    """
    sums = torch.zeros(num_classes, feature_dim, dtype=torch.float64, device=device)
    # By class the weights of all samples, and the number of the target's.
    masses = torch.zeros(2, num_classes, dtype=torch.float64, device=device)
    lengths = torch.zeros(1, dtype=torch.float64, device=device)
    for part in _precisely(features()):
        sums.index_add_(0, part.labels, functional.normalize(part.rows), alpha=part.weight)
        counts = torch.bincount(part.labels, minlength=num_classes)
        masses += torch.stack([part.weight * counts, part.is_target * counts])
        lengths += part.weight * part.rows.norm(dim=1).sum()
    sum_over_ranks(sums)
    masses = sum_over_ranks(masses)
    length = max(float(sum_over_ranks(lengths) / masses[0].sum()), 1e-12)
    scale, loss = _fit_scale(features, sums, masses, length=length if linear else None)
    return Prototypes(directions=functional.normalize(sums), scale=scale, length=length, loss=loss)


def _fit_scale(
    features: Callable[[], Iterable[LabelledFeatures]], sums: Tensor, masses: Tensor, *, length: float | None
) -> tuple[float, float]:
    """Give the scale of the least weighted mean loss, and the mean loss of the target's samples with it.

    The scale is unknown where no sample of a class that the target has could be judged.
    """
    scales = torch.tensor(_SCALES, dtype=torch.float64, device=sums.device)
    # Of all samples by their weights, of the target's alone, and of all that are of its classes.
    totals = torch.zeros(3, len(scales) + 1, dtype=torch.float64, device=sums.device)
    present, of_target = masses > 0
    for part in _precisely(features()):
        # The only image of its class has no prototype without it.
        judged = 2 * part.weight <= masses[0][part.labels] * (1 + 1e-9)
        rows, labels = part.rows[judged], part.labels[judged]
        cosines = _without_own(functional.normalize(rows), labels, sums, weight=part.weight)
        factors = torch.ones_like(rows[:, 0]) if length is None else rows.norm(dim=1) / length
        logits = scales[:, None, None] * (factors[:, None] * cosines).masked_fill(~present, -math.inf)
        chosen = logits.log_softmax(dim=2).gather(2, labels[None, :, None].expand(len(scales), -1, 1))
        found = torch.cat([-chosen.sum(dim=(1, 2)), sums.new_tensor([len(rows)])])
        is_known = bool(of_target[labels].any())
        totals += torch.stack([part.weight * found, part.is_target * found, is_known * found])
    everyone, target, known = sum_over_ranks(totals)
    unjudged = math.log(max(1, sums.shape[0]))
    if known[-1] == 0:
        return _UNKNOWN_SCALE, unjudged
    best = int((everyone[:-1] / everyone[-1]).argmin())
    return _SCALES[best], float(target[best] / target[-1]) if target[-1] else unjudged


def _without_own(units: Tensor, labels: Tensor, sums: Tensor, *, weight: float) -> Tensor:
    """Give the cosines [n, K] of unit features with the prototypes, that of its class made without the feature."""
    cosines = units @ functional.normalize(sums).T
    own = functional.normalize(sums[labels] - weight * units)
    return cosines.scatter(1, labels[:, None], (units * own).sum(dim=1, keepdim=True))


def _precisely(features: Iterable[LabelledFeatures]) -> Iterator[LabelledFeatures]:
    for part in features:
        yield replace(part, rows=part.rows.double())
