"""Draws the source samples that a target is trained together with, and adds their part to every training step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.config import DomainPenalty
from orchestrator.errors import TrainingError
from orchestrator.finetune.batches import share
from orchestrator.finetune.classifier import EVALUATION_BATCH
from orchestrator.finetune.contracts import Labels, Samples
from orchestrator.finetune.distributed import rank, world_size
from orchestrator.finetune.label_counts import LabelCounts
from orchestrator.finetune.prefix import Prefix, kept_inputs
from orchestrator.finetune.source_streams import SourceStream, StreamedDraws
from orchestrator.finetune.steps import SourcePart, Step
from orchestrator.finetune.views import draw_of

# Keeps the order of the source apart from that of the target, which the same seed gives.
_SALT = 0x50C3
# What a small target's own few samples leave open is far more than what the rest of a source would settle.
_ENOUGH_FOR_MEANS = 2048


@dataclass(frozen=True, kw_only=True)
class Companion:
    """Hold the source samples that a target is trained together with, and how they count.

    Labels are outputs of the head: first the target's classes, then `num_extra` more, which are never the truth of a
    target sample; the finished model has them where `keeps_extra`. `is_uniform` asks for equal probabilities on the
    source instead, whatever the labels. Where the source is larger than what is held of it, `stream` gives all of it,
    and is what is learnt; `samples` are held then for what has to be known before. `config.SourceConfig` says what the
    other fields are.
    """

    samples: Samples
    stream: SourceStream | None = None
    num_extra: int = 0
    keeps_extra: bool = False
    batch_share: float = 0.5
    weight: float = 1.0
    penalty: DomainPenalty = "none"
    penalty_weight: float = 1.0
    is_uniform: bool = False

    def is_idle(self, *, has_one_pass: bool = False) -> bool:
        """Tell whether the source counts for nothing, and is not looked at: a penalty counts in steps alone."""
        return self.weight == 0 and (self.penalty == "none" or has_one_pass)

    @property
    def label_counts(self) -> LabelCounts:
        """Count the labels of all that is learnt."""
        return LabelCounts.of(self.samples.labels) if self.stream is None else self.stream.count_labels()

    @property
    def num_dropped(self) -> int:
        """Count the outputs that the finished model leaves out."""
        return 0 if self.keeps_extra else self.num_extra

    def drawn(self, num_target: int) -> int:
        """Count the source samples that are drawn beside the first `num_target` target samples of a training."""
        return int(num_target * (self.batch_share / (1 - self.batch_share)))

    def looked_at(self, num_target: int) -> int:
        """Count the source samples that prototypes alone are made of, beside so many target samples.

        All that are held, but at most 2,048, or as many as the target has where these are more: a mean over them is as
        sure as one over the target then.
        """
        return min(len(self.samples), max(_ENOUGH_FOR_MEANS, num_target))

    def shown(self, num_target: int, seed: int) -> Companion:
        """Give the companion with those samples alone that prototypes alone are made of, in the order of the seed."""
        chosen = _permutation(len(self.samples), seed, 0)[: self.looked_at(num_target)]
        return replace(self, samples=ChosenSamples(samples=self.samples, positions=np.sort(chosen)))


class CompanionFeed:
    """Give every step its part of the source.

    The source is drawn in one endless row of permutations, each seeded by the seed and its number: over a training all
    of its samples occur equally often, or once more, and a resumed epoch draws what it would have drawn. A global
    batch's part is divided over the ranks as that of the target is. What the frozen stages give for the samples that
    the training will draw is computed once where it fits into `most_bytes`, else whenever they are drawn.

    Of a streamed source as many are drawn beside each batch; `StreamedDraws` says which.

    Where `epochs` is None nothing is drawn, for no steps are taken: as many samples that are held are looked at as
    prototypes take, the first ones of that row.
    """

    def __init__(
        self, companion: Companion, prefix: Prefix, *, num_target: int, epochs: int | None, most_bytes: int
    ) -> None:
        if len(companion.samples) == 0:
            raise TrainingError("a source must have training samples", value=0, remedy="Check the source's data.")
        self._companion = companion
        self._prefix = prefix
        self._num_target = num_target
        total = companion.looked_at(num_target) if epochs is None else companion.drawn(epochs * num_target)
        # A short training shows a part of a large source: only that is run through the frozen stages.
        self._wanted = np.unique(self._draw(0, min(total, len(companion.samples))))
        chosen = ChosenSamples(samples=companion.samples, positions=self._wanted)
        stream = None if epochs is None else companion.stream
        self._streamed = None if stream is None else StreamedDraws(stream, prefix)
        # What is held of a streamed source starts the head at most.
        most_bytes = most_bytes if self._streamed is None else 0
        # Where nothing is drawn the first view alone is looked at.
        self._inputs = kept_inputs(prefix, chosen, most_bytes=most_bytes, most_views=1 if epochs is None else None)

    def join(self, steps: Iterable[Step], epoch: int) -> Iterator[Step]:
        """Add its part of the source to each step of an epoch, counted from 1."""
        seen = (epoch - 1) * self._num_target
        for step in steps:
            first, last = (self._companion.drawn(count) for count in (seen, seen + step.total))
            seen += step.total
            mine = self._mine(first, last, epoch)
            if mine is not None:
                inputs, targets = mine
                part = SourcePart(inputs=inputs, targets=targets, scale=world_size() / (last - first))
                step = replace(step, source=part)
            yield step

    def close(self) -> None:
        """Let go of a streamed source."""
        if self._streamed is not None:
            self._streamed.close()

    @property
    def is_uniform(self) -> bool:
        """Tell whether the source has no labels: equal probabilities are asked for on it."""
        return self._companion.is_uniform

    @property
    def sample_weight(self) -> float:
        """Give the weight of a sample that `labelled_from` gives, where one of the target has the weight 1.

        In the mean target loss plus `weight` times the mean source loss each target sample counts 1 / its number, and
        each source sample `weight` / theirs.
        """
        return self._companion.weight * self._num_target / max(1, len(self._wanted))

    def labelled_from(self, label: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the suffix's inputs and the labels [n] of the samples with this label or a higher one.

        Each that is ever drawn, or looked at, is given once, as the first epoch shows it, divided over the ranks; of a
        streamed source those alone that are held.
        """
        labels = self._companion.samples.labels
        mine = share(self._wanted[labels[self._wanted] >= label], rank(), world_size())
        for start in range(0, len(mine), EVALUATION_BATCH):
            yield self._shown(mine[start : start + EVALUATION_BATCH], epoch=1)

    def _mine(self, first: int, last: int, epoch: int) -> tuple[Tensor, Tensor] | None:
        """Give the suffix's inputs and the labels [n] of this rank's part of some draws; None where it has none."""
        if self._streamed is not None:
            return self._streamed.take(first, last, epoch)
        positions = share(self._draw(first, last), rank(), world_size())
        return self._shown(positions, epoch) if len(positions) else None

    def _shown(self, positions: NDArray[np.int64], epoch: int) -> tuple[Tensor, Tensor]:
        """Give the suffix's inputs and the labels [n] of samples as an epoch shows them."""
        settings = self._prefix.settings
        inputs = self._inputs.take(np.searchsorted(self._wanted, positions), draw_of(epoch, settings.augment))
        return inputs, torch.from_numpy(self._companion.samples.labels[positions]).to(settings.device)

    def _draw(self, first: int, last: int) -> NDArray[np.int64]:
        """Give the positions of the draws from `first` to before `last`."""
        size, seed = len(self._companion.samples), self._prefix.settings.order_seed
        turns = range(first // size, -(-last // size))
        drawn = [np.zeros(0, dtype=np.int64), *(_permutation(size, seed, turn) for turn in turns)]
        start = turns.start * size
        return np.concatenate(drawn)[first - start : last - start]


@dataclass(frozen=True, kw_only=True)
class ChosenSamples:
    """Show some of the samples as samples of their own, by their positions [n]."""

    samples: Samples
    positions: NDArray[np.int64]

    @property
    def labels(self) -> Labels:
        """Give the labels of the chosen samples."""
        return self.samples.labels[self.positions]

    @property
    def keys(self) -> NDArray[np.uint64]:
        """Give the keys of the chosen samples."""
        return self.samples.keys[self.positions]

    def __len__(self) -> int:
        """Count the chosen samples."""
        return len(self.positions)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Give the pixels of chosen samples, by their positions among these."""
        return self.samples.take(self.positions[positions])


@lru_cache(maxsize=4)
def _permutation(size: int, seed: int, turn: int) -> NDArray[np.int64]:
    order = np.random.default_rng([seed, _SALT, turn]).permutation(size).astype(np.int64)
    order.flags.writeable = False
    return order
