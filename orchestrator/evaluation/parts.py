"""What judging needs of predictions: it takes them part by part, so that not all of them need be in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluation.metrics import ClassIndices, Probabilities
from orchestrator.evaluation.predictions import Predictions

PART_ROWS = 2**16
"""The most images of a part, for those who cut them."""

Scored = tuple[Probabilities, ClassIndices]


class PredictionParts(Protocol):
    """Give the predictions on any number of images over K classes in parts, in one order, as often as wanted.

    `Predictions` are such parts: one.
    """

    def __len__(self) -> int:
        """Count the images."""
        ...

    @property
    def num_classes(self) -> int:
        """Count the classes K."""
        ...

    @property
    def is_multi_label(self) -> bool:
        """Tell whether images have any number of the classes."""
        ...

    @property
    def subset_names(self) -> list[str]:
        """List the subsets that have images, sorted."""
        ...

    @property
    def num_units(self) -> int:
        """Count what a bootstrap draws as one: an image, or images that are kin."""
        ...

    @property
    def baselines(self) -> Mapping[str, NDArray[np.bool_]]:
        """Give which images [n] baselines, by name, got right."""
        ...

    def with_baselines(self, correct: Mapping[str, NDArray[np.bool_]]) -> Self:
        """Add baselines: by name, which of these images [n], in this order, each got right."""
        ...

    def has_kin(self, subset: str | None = None) -> bool:
        """Tell whether some images, or some of a subset, are drawn as one."""
        ...

    def parts(self, subset: str | None = None) -> Iterator[Predictions]:
        """Iterate over the predictions, or those of a subset; there is always a part, which may be empty."""
        ...

    def scored(self) -> Iterator[Scored]:
        """Iterate over probabilities [n, K] and true class indices [n] alone."""
        ...


def count_images(predictions: PredictionParts, subset: str | None = None) -> int:
    """Count the images, or those of a subset."""
    return len(predictions) if subset is None else sum(len(part) for part in predictions.parts(subset))


def whole(predictions: PredictionParts) -> Predictions:
    """Put all parts together, in memory."""
    return joined(list(predictions.parts()))


def joined(parts: list[Predictions]) -> Predictions:
    """Put parts together in their order; a single one is given as it is."""
    if len(parts) == 1:
        return parts[0]
    scores = [part.outlier_scores for part in parts if part.outlier_scores is not None]
    return Predictions(
        ids=[name for part in parts for name in part.ids],
        subsets=[name for part in parts for name in part.subsets],
        together=[name for part in parts for name in part.together],
        truth=np.concatenate([part.truth for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        baselines={name: np.concatenate([part.baselines[name] for part in parts]) for name in parts[0].baselines},
        outlier_scores=np.concatenate(scores) if scores else None,
    )
