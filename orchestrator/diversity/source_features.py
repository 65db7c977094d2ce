"""Keeps the features of some images of a source task, so that later runs know the source without its images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError
from sklearn.neighbors import NearestNeighbors

from orchestrator.errors import WeightsError

_NEIGHBOURS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceFeatures:
    """Hold the features float32 [n, d] of images in random order, and their labels [n], empty where they have none."""

    features: NDArray[np.float32]
    labels: Sequence[str]

    def to_bytes(self) -> bytes:
        """Write them as safetensors: the names of the labels are the UTF-8 of a JSON list."""
        names, classes = np.unique(np.asarray(self.labels, dtype=str), return_inverse=True)
        tensors: dict[str, NDArray[Any]] = {
            "features": np.ascontiguousarray(self.features, dtype=np.float32),
            "classes": classes.astype(np.int64),
            "names": np.frombuffer(json.dumps(names.tolist()).encode(), dtype=np.uint8),
        }
        content: bytes = safetensors.numpy.save(tensors)
        return content

    @classmethod
    def from_bytes(cls, content: bytes, *, source: str) -> SourceFeatures:
        """Read them. Raises WeightsError naming `source` when the content is damaged."""
        try:
            tensors = safetensors.numpy.load(content)
            names = np.asarray(json.loads(tensors["names"].tobytes()), dtype=str)
            return cls(features=tensors["features"], labels=names[tensors["classes"]].tolist())
        except (SafetensorError, LookupError, ValueError) as error:
            raise WeightsError(
                "features of a source must be whole safetensors", value=source, remedy=f"Copy the file again: {error}."
            ) from error

    def neighbour_accuracy(self) -> float | None:
        """Give how often the label that most of an image's 20 nearest others have is its own; None for one label.

        Nearness is the cosine of features less their mean: rectified features all point one way. Images without a label
        count for nothing; of equally frequent labels the first by name is taken.
        """
        is_named = np.asarray([bool(label) for label in self.labels], dtype=bool)
        names, classes = np.unique(np.asarray(self.labels, dtype=str)[is_named], return_inverse=True)
        if len(names) < 2:
            return None
        rows = self.features[is_named].astype(np.float64)
        nearest = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(rows) - 1), metric="cosine")
        places = nearest.fit(rows - rows.mean(axis=0)).kneighbors(return_distance=False)
        votes = (classes[places][:, :, None] == np.arange(len(names))).sum(axis=1)
        return float((votes.argmax(axis=1) == classes).mean())
