"""Percentile bootstrap intervals of means and of paired differences, over images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestrator.errors import DataError

CONFIDENCE = 0.95
_CHUNK_CELLS = 2**22


def bootstrap_interval(values: ArrayLike, samples: int, seed: int) -> tuple[float, float]:
    """Bound the mean of `values` [n] by the central 95% of the means of `samples` resamples of n.

    The percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). A
    resample's mean depends only on how often each distinct value is drawn, and these counts are multinomial:
    drawing them is exact and costs nothing per image. Raises DataError for no values, or values not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not sample.size or not np.isfinite(sample).all():
        raise DataError("a bootstrap needs one or more finite values in one dimension", value=sample.shape)
    distinct, counts = np.unique(sample, return_counts=True)
    means = _resampled_means(distinct, counts, samples, seed)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def paired_gain(
    correct_a: ArrayLike, correct_b: ArrayLike, samples: int, seed: int
) -> tuple[float, tuple[float, float]]:
    """Give how much more accurate a is than b on the same n images, with the bootstrap interval of that gain.

    `correct_a` and `correct_b` [n] are booleans in the same order of images; images are resampled as pairs, so
    what makes an image hard for both cancels. Raises DataError for unequal lengths or no images.
    """
    first, second = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if first.shape != second.shape:
        raise DataError("paired results must cover the same images", value=(first.shape, second.shape))
    differences = first.astype(np.int64) - second.astype(np.int64)
    interval = bootstrap_interval(differences, samples, seed)
    return float(differences.mean()), interval


def _resampled_means(
    distinct: NDArray[np.float64], counts: NDArray[np.int64], samples: int, seed: int
) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    total = int(counts.sum())
    means = np.empty(samples, dtype=np.float64)
    # Values that are all different make samples x n counts: a chunk at a time keeps them within 32 MiB.
    chunk = max(1, _CHUNK_CELLS // len(distinct))
    for start in range(0, samples, chunk):
        stop = min(start + chunk, samples)
        drawn = generator.multinomial(total, counts / total, size=stop - start)
        means[start:stop] = drawn @ distinct / total
    return means
