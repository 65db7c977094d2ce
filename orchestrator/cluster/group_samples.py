"""Holds one group's samples for the workers that train on them: pixels, kept activations, and fresh re-splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.activations import StoredActivations
from orchestrator.data.samples import CachedSamples
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.contracts import Activations, Inputs, Layout, StoredType, TrainingSettings
from orchestrator.finetune.freezing import freeze
from orchestrator.finetune.heads import Features
from orchestrator.finetune.prefix import Prefix, open_sources
from orchestrator.records import BackboneSpec
from orchestrator.search.resplits import resplit


@dataclass(frozen=True, kw_only=True)
class KeptDepth:
    """Hold what is kept of a group's samples at one freeze depth: the outputs of the frozen stages.

    `pool` has the image itself of every training and then every validation sample, for re-splits; None where
    training samples are varied, which validation samples never are.
    """

    layout: Layout
    dtype: StoredType
    train: StoredActivations
    validation: StoredActivations
    pool: StoredActivations | None


@dataclass(frozen=True, kw_only=True)
class GroupSamples:
    """Hold one group's label space, its cached training and validation samples, and what is kept of them by depth.

    `units` [n_train + n_validation] are hashes of what must stay on one side of a split. Small and picklable: files
    are opened where they are read.
    """

    group: str
    classes: tuple[str, ...]
    train: CachedSamples
    validation: CachedSamples
    units: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    kept: Mapping[int, KeptDepth] = field(default_factory=dict)

    def activations(self, depth: int) -> Activations | None:
        """Give what is kept at a freeze depth."""
        kept = self.kept.get(depth)
        if kept is None:
            return None
        return Activations(
            depth=depth, layout=kept.layout, dtype=kept.dtype, train=kept.train, validation=kept.validation
        )

    def resplit(self, number: int, *, seed: int) -> GroupSamples:
        """Divide the training and validation samples anew, as many for validation as before, up to rounding."""
        pool = CachedSamples.joined(self.train, self.validation)
        train, validation = resplit(
            pool.labels, self.units, num_validation=len(self.validation), seed=seed, number=number
        )
        return replace(
            self,
            train=pool.select(train),
            validation=pool.select(validation),
            units=self.units[np.concatenate([train, validation])],
            kept={depth: found for depth, kept in self.kept.items() if (found := _parted(kept, train, validation))},
        )

    def features(
        self, classifier: Classifier, spec: BackboneSpec, settings: TrainingSettings
    ) -> tuple[list[Features], Features, Inputs]:
        """Give the pooled features of training samples, a set for each view, and of validation samples.

        The third value says whether they were kept activations or are computed from pixels here.
        """
        depth = classifier.backbone.num_stages
        prefix = Prefix(stages=freeze(classifier, depth)[0], spec=spec, settings=settings)
        sources, _ = open_sources(prefix, self.train, self.validation, self.activations(depth))
        assert sources.train is not None
        train = [
            Features(rows=sources.train.take(_all(self.train), view), labels=self.train.labels)
            for view in range(max(1, settings.augment.views))
        ]
        validation = Features(rows=sources.validation.take(_all(self.validation), 0), labels=self.validation.labels)
        return train, validation, sources.name


def _all(samples: CachedSamples) -> NDArray[np.int64]:
    return np.arange(len(samples), dtype=np.int64)


def _parted(kept: KeptDepth, train: NDArray[np.int64], validation: NDArray[np.int64]) -> KeptDepth | None:
    pool = kept.pool
    if pool is None:
        return None
    return replace(kept, train=_select(pool, train), validation=_select(pool, validation), pool=None)


def _select(stored: StoredActivations, positions: NDArray[np.int64]) -> StoredActivations:
    return replace(stored, shards=stored.shards[positions], rows=stored.rows[positions])
