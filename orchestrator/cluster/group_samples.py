"""Holds one group's samples for the workers that train on them: pixels, kept activations, re-splits and folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import HeadsBy, weights_by_name
from orchestrator.data.activations import StoredActivations
from orchestrator.data.head_labels import labels_of_one_head
from orchestrator.data.samples import CachedSamples
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.contracts import Activations, Inputs, Labels, Layout, StoredType, TrainingSettings
from orchestrator.finetune.freezing import freeze
from orchestrator.finetune.heads import Features, FeatureSplit
from orchestrator.finetune.multi_label import is_multi_label, rarest_labels
from orchestrator.finetune.prefix import Prefix, open_sources
from orchestrator.finetune.tasks import class_indices, first_task, strata
from orchestrator.records import BackboneSpec, Hyperparameters, TaskClasses
from orchestrator.search.folds import deal_folds
from orchestrator.search.resplits import resplit


@dataclass(frozen=True, kw_only=True)
class KeptDepth:
    """Hold what is kept of a group's samples at one freeze depth: the outputs of the frozen stages.

    `pool` has every training and then every validation sample, for re-splits and folds; None where training samples
    are kept in more views than validation samples.
    """

    layout: Layout
    dtype: StoredType
    train: StoredActivations
    validation: StoredActivations
    pool: StoredActivations | None


@dataclass(frozen=True, kw_only=True)
class GroupSamples:
    """Hold one group's label space, its cached training and validation samples, and what is kept of them by depth.

    `units` [n_train + n_validation] are hashes of what must stay on one side of a split. `folds`, of the same length,
    are the folds that trials are cross-validated on; it is empty where they are judged on the split as it is.
    `tasks` lists all tasks where there are several; `classes` are those of the first. `companion` holds the source that
    models are trained together with, if there is one. `is_learnt` says that the pretrained weights know the labels of
    the training samples: then these judge nothing. Where `heads` is subset, `tasks` are the
    heads of subsets, and `classes` those of the group. Small and picklable: files are opened where they are read.
    """

    group: str
    classes: tuple[str, ...]
    train: CachedSamples
    validation: CachedSamples
    units: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    folds: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    kept: Mapping[int, KeptDepth] = field(default_factory=dict)
    tasks: tuple[TaskClasses, ...] = ()
    companion: Companion | None = None
    is_learnt: bool = False
    heads: HeadsBy = "column"

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Count the classes of every task."""
        return tuple(len(found.classes) for found in self.tasks) or (len(self.classes),)

    @property
    def output_counts(self) -> tuple[int, ...]:
        """Count for every task the outputs of a head that is trained with the companion: it may bring more of them."""
        if self.companion is None:
            return self.class_counts
        return (len(self.classes) + self.companion.num_extra,)

    def weighted(self, hyperparameters: Hyperparameters) -> Hyperparameters:
        """Give a recipe with fixed weights of heads by name as one with those of this group's, in their order.

        A head that is not named has 1. Every other recipe stays as it is.
        """
        by_name = weights_by_name(hyperparameters.task_weighting)
        if by_name is None or not self.tasks:
            return hyperparameters
        weights = tuple(by_name.get(head.task, 1.0) for head in self.tasks)
        return hyperparameters.model_copy(update={"task_weighting": weights})

    def with_one_head(self) -> GroupSamples:
        """Give samples of several subsets' heads for one head over the group's classes.

        Those that no subset's head judges are left out of validation; kept activations are of no more use.
        """
        train, validation = (
            replace(found, labels=labels_of_one_head(class_indices(found.labels), self.tasks, self.classes))
            for found in (self.train, self.validation)
        )
        is_judged = validation.labels >= 0
        kept_units = np.concatenate([np.ones(len(train), dtype=bool), is_judged])
        return replace(
            self,
            train=train,
            validation=validation.select(np.flatnonzero(is_judged)),
            units=self.units[kept_units],
            folds=self.folds[:0],
            kept={},
            tasks=(),
            heads="column",
        )

    def activations(self, depth: int) -> Activations | None:
        """Give what is kept at a freeze depth."""
        kept = self.kept.get(depth)
        if kept is None:
            return None
        return Activations(
            depth=depth, layout=kept.layout, dtype=kept.dtype, train=kept.train, validation=kept.validation
        )

    def resplit(self, number: int, *, seed: int) -> GroupSamples:
        """Divide the training and validation samples anew, as many for validation as before, up to rounding.

        Where training samples are learnt, validation stays as it is: of training each re-split leaves out another part,
        of the share that validation has.
        """
        if self.is_learnt:
            return self._thinned(number, seed=seed)
        train, validation = resplit(
            self._labels, self.units, num_validation=len(self.validation), seed=seed, number=number
        )
        return self._divided(train, validation)

    def _thinned(self, number: int, *, seed: int) -> GroupSamples:
        count, total = len(self.train), len(self.train) + len(self.validation)
        left_out = round(count * len(self.validation) / total)
        labels, units = self._labels[:count], self.units[:count]
        train, _ = resplit(labels, units, num_validation=left_out, seed=seed, number=number)
        return self._divided(train, np.arange(count, total, dtype=np.int64))

    def with_folds(self, count: int, *, seed: int) -> GroupSamples:
        """Deal the samples into `count` folds; with one, the split stays as it is. Raises ConfigError for too many."""
        if count == 1:
            return self
        return replace(self, folds=deal_folds(self._labels, self.units, count=count, seed=seed))

    def parts(self) -> list[GroupSamples]:
        """Give the samples as a trial is judged on them: with each fold for validation, or the split as it is."""
        if len(self.folds) == 0:
            return [self]
        in_fold = [self.folds == number for number in range(int(self.folds.max()) + 1)]
        return [self._divided(np.flatnonzero(~held_out), np.flatnonzero(held_out)) for held_out in in_fold]

    def features(
        self, classifier: Classifier, spec: BackboneSpec, settings: TrainingSettings
    ) -> tuple[FeatureSplit, Inputs]:
        """Give the pooled features of training samples, a set for each view, and of validation samples.

        The second value says whether they were kept activations or are computed from pixels here.
        """
        depth = classifier.backbone.num_stages
        prefix = Prefix(stages=freeze(classifier, depth)[0], spec=spec, settings=settings)
        sources, _ = open_sources(prefix, self.train, self.validation, self.activations(depth))
        assert sources.train is not None
        train = [
            Features(rows=sources.train.take(_all(self.train), view), labels=first_task(self.train.labels))
            for view in range(max(1, settings.augment.views))
        ]
        judged = sources.validation.take(_all(self.validation), 0)
        validation = Features(rows=judged, labels=first_task(self.validation.labels))
        return FeatureSplit(train=train, validation=validation), sources.name

    @property
    def _labels(self) -> NDArray[np.int64]:
        """Give what splits and folds hold alike shares of: labels of the first task or each head, or rarest labels."""
        labels: Labels = np.concatenate([self.train.labels, self.validation.labels])
        return rarest_labels(labels) if is_multi_label(labels) else strata(labels)

    def _divided(self, train: NDArray[np.int64], validation: NDArray[np.int64]) -> GroupSamples:
        """Take other positions of the training and validation samples together for the one and the other."""
        pool = CachedSamples.joined(self.train, self.validation)
        return replace(
            self,
            train=pool.select(train),
            validation=pool.select(validation),
            units=self.units[np.concatenate([train, validation])],
            folds=self.folds[:0],
            kept={depth: found for depth, kept in self.kept.items() if (found := _parted(kept, train, validation))},
        )


def _all(samples: CachedSamples) -> NDArray[np.int64]:
    return np.arange(len(samples), dtype=np.int64)


def _parted(kept: KeptDepth, train: NDArray[np.int64], validation: NDArray[np.int64]) -> KeptDepth | None:
    pool = kept.pool
    if pool is None:
        return None
    return replace(kept, train=_select(pool, train), validation=_select(pool, validation), pool=None)


def _select(stored: StoredActivations, positions: NDArray[np.int64]) -> StoredActivations:
    return replace(stored, shards=stored.shards[positions], rows=stored.rows[positions])
