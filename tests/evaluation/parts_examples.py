"""Predictions that are given in parts of any size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.predictions import Predictions


@dataclass(frozen=True)
class InParts:
    """Predictions in parts of a given size."""

    images: Predictions
    size: int

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        return self.images.num_classes

    @property
    def is_multi_label(self) -> bool:
        return self.images.is_multi_label

    @property
    def subset_names(self) -> list[str]:
        return self.images.subset_names

    @property
    def num_units(self) -> int:
        return self.images.num_units

    @property
    def baselines(self) -> Mapping[str, NDArray[np.bool_]]:
        return self.images.baselines

    def with_baselines(self, correct: Mapping[str, NDArray[np.bool_]]) -> Self:
        return replace(self, images=self.images.with_baselines(correct))

    def has_kin(self, subset: str | None = None) -> bool:
        return self.images.has_kin(subset)

    def parts(self, subset: str | None = None) -> Iterator[Predictions]:
        chosen = self.images if subset is None else self.images.for_subset(subset)
        for start in range(0, max(1, len(chosen)), self.size):
            yield chosen.at(np.arange(start, min(start + self.size, len(chosen))))

    def scored(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        for part in self.parts():
            yield part.probabilities, part.truth
