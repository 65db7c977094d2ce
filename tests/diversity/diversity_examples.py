import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.diversity.category_counts import count_rows, merge_counts
from orchestrator.diversity.estimators import NORMAL_95
from orchestrator.diversity.statistics import PartialProfile
from orchestrator.records import Profile, SubsetProfile


def brute_force_vendi(features: NDArray[np.floating]) -> float:
    """Follow the definition: the eigenvalues of all N x N cosine similarities divided by N."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvals(unit @ unit.T / len(unit)).real
    return math.exp(-sum(value * math.log(value) for value in eigenvalues if value > 1e-14))


def identities(num_images: int, prefix: str = "image") -> list[str]:
    return [f"{prefix}-{index}" for index in range(num_images)]


def label_table(**labels: Sequence[str]) -> pa.Table:
    """Count the labels of subsets, one label an image."""
    rows = [{"subset": subset, "label": label} for subset, names in labels.items() for label in names]
    schema = pa.schema([("subset", pa.string()), ("label", pa.string())])
    return count_rows(pa.Table.from_pylist(rows, schema))


def random_parts(
    num_partials: int, seed: int = 0, images_each: int = 7, dimensions: int = 5
) -> tuple[pa.Table, list[PartialProfile]]:
    """Make the label counts and partial profiles of the subsets a, b and c with every statistic."""
    rng = np.random.default_rng(seed)
    counts, partials = [], []
    for key in range(num_partials):
        partial = PartialProfile(key=key)
        for subset in rng.permutation(["a", "b", "c"])[: rng.integers(1, 4)]:
            count = int(rng.integers(1, images_each + 1))
            labels = rng.choice(["cat", "dog", "fox"], size=count).tolist()
            counts.append(label_table(**{str(subset): labels}))
            partial.add_histograms(subset, rng.integers(0, 50, size=(count, 256)))
            features = rng.normal(size=(count, dimensions)).astype(np.float32)
            partial.add_features(subset, features, identities(count, f"{subset}-{key}"), labels)
        partials.append(partial)
    return merge_counts([label_table(), *counts]), partials


def random_partials(num_partials: int, seed: int = 0) -> list[PartialProfile]:
    """Make partial profiles of the subsets a, b and c with every statistic."""
    return random_parts(num_partials, seed)[1]


def a_profile(
    label_entropies: Sequence[float],
    *,
    sizes: Sequence[int] | None = None,
    pixel_entropies: Sequence[float] | None = None,
    reach: float | None = None,
) -> Profile:
    """Make a profile of the subsets s00, s01, ... with these measures; `reach` is half of every entropy's interval."""
    subsets = []
    for index, entropy in enumerate(label_entropies):
        num_images = 100 if sizes is None else sizes[index]
        subsets.append(
            SubsetProfile(
                subset=f"s{index:02d}",
                num_images=num_images,
                num_classes=1,
                label_counts={"cat": num_images},
                label_entropy=entropy,
                label_entropy_interval=None if reach is None else (entropy - reach, entropy + reach),
                deviations={} if reach is None else {"label_entropy": reach / NORMAL_95},
                normalized_label_entropy=0.0,
                effective_classes=1.0,
                pixel_entropy=None if pixel_entropies is None else pixel_entropies[index],
            )
        )
    return Profile(subsets=subsets, split="train")
