"""Bootstrap intervals of means, of paired differences, and of whatever follows from sums over images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from orchestrator.errors import DataError

CONFIDENCE = 0.95
_CHUNK_CELLS = 2**22

Sums = NDArray[np.float64]
Estimates = NDArray[np.float64]
Units = NDArray[np.integer]
Measure = Callable[[Sums], Estimates]


def resample(
    rows: NDArray[np.floating] | csr_array,
    counts: NDArray[np.int64],
    samples: int,
    seed: int,
    measure: Measure,
) -> Estimates:
    """Give `measure` [samples, ...] of bootstrap resamples of what is drawn as one: an image, or images of one kin.

    What is drawn has sums [S]; `rows` [D, S] are the different ones, `counts` [D] how many have each. A resample of as
    many as there are depends only on how often each row is drawn, and that is multinomial: drawing it is exact, and
    costs nothing per image. `measure` turns sums [b, S] of b resamples into estimates [b, ...].
    """
    generator = np.random.default_rng(seed)
    total = int(counts.sum())
    # Rows that are all different make samples x n counts: a chunk at a time keeps them within 32 MiB.
    chunk = max(1, _CHUNK_CELLS // max(rows.shape))
    found = [
        measure(generator.multinomial(total, counts / total, size=min(chunk, samples - start)) @ rows)
        for start in range(0, samples, chunk)
    ]
    return np.concatenate(found)


def percentile_interval(estimates: Estimates) -> tuple[float, float]:
    """Give the central 95% of the estimates [samples] of resamples.

    The percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).
    """
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(estimates, [tail, 1.0 - tail])
    return float(low), float(high)


def finite_interval(estimates: Estimates) -> tuple[float, float] | None:
    """Give the central 95% of the estimates that are defined; None where none is."""
    defined = estimates[np.isfinite(estimates)]
    return percentile_interval(defined) if len(defined) else None


def bootstrap_interval(values: ArrayLike, samples: int, seed: int, units: Units | None = None) -> tuple[float, float]:
    """Bound the mean of `values` [n] by the central 95% of the means of `samples` resamples.

    Images are drawn one by one, or with all that share their number in `units` [n], counted from 0. Raises DataError
    for no values, or values not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not sample.size or not np.isfinite(sample).all():
        raise DataError("a bootstrap needs one or more finite values in one dimension", value=sample.shape)
    if units is None:
        units = np.arange(len(sample))
    sums = np.stack([np.bincount(units, sample), np.bincount(units).astype(np.float64)], axis=1)
    return mean_interval(*np.unique(sums, axis=0, return_counts=True), samples, seed)


def mean_interval(rows: NDArray[np.float64], counts: NDArray[np.int64], samples: int, seed: int) -> tuple[float, float]:
    """Bound the mean over images of what is drawn as one: `rows` [D, 2] hold a sum and a number of images."""
    return percentile_interval(resample(rows, counts, samples, seed, means))


def paired_gain(
    correct_a: ArrayLike, correct_b: ArrayLike, samples: int, seed: int, units: Units | None = None
) -> tuple[float, tuple[float, float]]:
    """Give how much more accurate a is than b on the same n images, with the bootstrap interval of that gain.

    `correct_a` and `correct_b` [n] are booleans in the same order of images; images are resampled as pairs, so
    what makes an image hard for both cancels. `units` as in `bootstrap_interval`. Raises DataError for unequal lengths
    or no images.
    """
    first, second = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if first.shape != second.shape:
        raise DataError("paired results must cover the same images", value=(first.shape, second.shape))
    differences = first.astype(np.int64) - second.astype(np.int64)
    interval = bootstrap_interval(differences, samples, seed, units)
    return float(differences.mean()), interval


def by_unit(units: Units, places: NDArray[np.integer], values: NDArray[np.number], num_places: int) -> csr_array:
    """Sum up the values [n] of images by the unit [n] that they are drawn with and by place [n]: [units, places]."""
    shape = (int(units.max()) + 1, num_places)
    return csr_array((values.astype(np.float64), (units, places)), shape=shape)


def means(sums: Sums) -> Estimates:
    """Give the means [b] of resamples from sums [b, 2] of a value and of the images."""
    found: Estimates = sums[:, 0] / sums[:, 1]
    return found
