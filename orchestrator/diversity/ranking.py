"""Ranks candidate backbones by how well their features part the classes of every subset, and says how surely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from orchestrator.diversity.feature_sums import FeatureSums
from orchestrator.diversity.features import hash_ids
from orchestrator.diversity.transferability import fisher_ratio, log_evidence, shrunk_h_score
from orchestrator.diversity.vendi import on_own_axes, unit_directions
from orchestrator.errors import DataError
from orchestrator.records import BackboneRanking, CandidateMeasures, CandidateScores, RankedCandidate, SubsetRank

NUM_HALVES = 50
_LOWEST, _HIGHEST = 0.025, 0.975


@dataclass(frozen=True, kw_only=True, eq=False)
class SubsetSample:
    """Name images of one subset, by their places among all sampled rows, their labels, and what they stand for.

    `rows` are int64 [n], `labels` as long; `num_images` counts all training images of the subset.
    """

    subset: str
    rows: NDArray[np.int64]
    labels: Sequence[str]
    num_images: int


def score_candidate(
    features: NDArray[np.floating], subsets: Sequence[SubsetSample], *, seed: int
) -> list[CandidateScores]:
    """Score one candidate's features [n, d] on every subset with two classes or more, and on halves of its images.

    The halves depend on the subset and the seed alone: candidates are compared on the same images.
    """
    return [
        _score(sample.subset, unit_directions(features[sample.rows]), sample, seed)
        for sample in subsets
        if len(set(sample.labels)) > 1
    ]


def _score(subset: str, directions: NDArray[np.float64], sample: SubsetSample, seed: int) -> CandidateScores:
    own = on_own_axes(directions)
    sums = FeatureSums.of(own, sample.labels)
    labels = np.asarray(sample.labels)
    ratio = fisher_ratio(sums)
    return CandidateScores(
        subset=subset,
        num_images=sample.num_images,
        num_sampled=len(sample.rows),
        num_classes=len(sums.classes),
        log_evidence=log_evidence(sums),
        h_score=shrunk_h_score(sums, directions.shape[1]),
        fisher_ratio=ratio if math.isfinite(ratio) else None,
        log_evidence_of_halves=[
            log_evidence(FeatureSums.of(on_own_axes(own[half]), labels[half].tolist()))
            for half in half_samples(sample.labels, seed=int(hash_ids([f"{seed} {subset}"])[0]))
        ],
    )


def half_samples(labels: Sequence[str], *, seed: int, count: int = NUM_HALVES) -> list[NDArray[np.int64]]:
    """Draw random halves of images without replacement, each with half of every class, rounded up: indices, ascending.

    A score spreads over halves as that of all images does over fresh images (half-samples: McCarthy,
    "Pseudo-replication: half samples", 1969). Resampling with replacement would not do: a repeated image fits itself.
    """
    classes = np.unique(np.asarray(labels), return_inverse=True)[1]
    members = [np.flatnonzero(classes == index) for index in range(classes.max(initial=-1) + 1)]
    halves = []
    for number in range(count):
        generator = np.random.default_rng([seed, number])
        drawn = [generator.permutation(rows)[: (len(rows) + 1) // 2] for rows in members]
        halves.append(np.sort(np.concatenate(drawn)))
    return halves


def mean_ranks(scores: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the weighted mean [..., candidates] over subsets of each candidate's rank from 1, the highest score's.

    Scores are [..., subsets, candidates], weights [subsets]; equal scores share the mean of their ranks.
    """
    ranks = rankdata(-scores, axis=-1)
    mean: NDArray[np.float64] = np.average(ranks, axis=-2, weights=weights)
    return mean


def rank_candidates(measured: Sequence[CandidateMeasures]) -> BackboneRanking:
    """Rank candidates by LogME: the mean over subsets of their ranks, weighted by training images.

    LogME is an evidence for each image, and so comparable between features of different dimensions; the H-score is
    shown beside it. The first is chosen, unless a candidate of fewer FLOPs cannot be told from it: one whose mean rank
    is no worse in at least 2.5% of the halves. Of those the cheapest is chosen. Raises DataError where no subset has
    two classes.
    """
    names = [found.subset for found in measured[0].subsets]
    if not names:
        raise DataError(
            "a subset must have training images of two classes for backbones to be ranked",
            value="none",
            remedy="Name one backbone instead of candidates.",
        )
    scores = np.array([[found.log_evidence for found in candidate.subsets] for candidate in measured]).T
    of_halves = np.array([[found.log_evidence_of_halves for found in candidate.subsets] for candidate in measured])
    weights = np.array([found.num_images for found in measured[0].subsets], dtype=np.float64)
    overall = mean_ranks(scores, weights)
    halves = of_halves.transpose(2, 1, 0)
    overall_of_halves = mean_ranks(halves, weights)
    order = sorted(range(len(measured)), key=lambda index: (overall[index], measured[index].forward_flops, index))
    first = order[0]
    gaps = np.quantile(overall_of_halves - overall_of_halves[:, [first]], (_LOWEST, _HIGHEST), axis=0).T
    equal = [index for index in order if index == first or gaps[index, 0] <= 0.0]
    chosen = min(equal, key=lambda index: (measured[index].forward_flops, order.index(index)))
    wins = _wins(overall_of_halves)
    subset_ranks, subset_wins = rankdata(-scores, axis=-1), _wins(-halves)
    return BackboneRanking(
        chosen=measured[chosen].title,
        reason=_reason(measured, chosen, first, equal, wins),
        num_halves=len(halves),
        candidates=[
            RankedCandidate(
                title=measured[index].title,
                parameters=measured[index].parameters,
                forward_flops=measured[index].forward_flops,
                images_per_second=measured[index].images_per_second,
                feature_dim=measured[index].feature_dim,
                mean_rank=float(overall[index]),
                win_share=float(wins[index]),
                gap_interval=None if index == first else (float(gaps[index, 0]), float(gaps[index, 1])),
                is_equal_to_first=index in equal,
                subsets=_subset_ranks(measured[index].subsets, subset_ranks[:, index], subset_wins[:, index]),
            )
            for index in order
        ],
    )


def _subset_ranks(
    found: Sequence[CandidateScores], ranks: NDArray[np.float64], wins: NDArray[np.float64]
) -> list[SubsetRank]:
    return [
        SubsetRank(
            subset=scores.subset,
            num_sampled=scores.num_sampled,
            rank=rank,
            win_share=share,
            log_evidence=scores.log_evidence,
            h_score=scores.h_score,
            fisher_ratio=scores.fisher_ratio,
        )
        for scores, rank, share in zip(found, ranks.tolist(), wins.tolist(), strict=True)
    ]


def _wins(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the share [..., candidates] of the halves [halves, ..., candidates] in which each is lowest; ties share."""
    is_lowest = ranks == ranks.min(axis=-1, keepdims=True)
    shares: NDArray[np.float64] = (is_lowest / is_lowest.sum(axis=-1, keepdims=True)).mean(axis=0)
    return shares


def _reason(
    measured: Sequence[CandidateMeasures], chosen: int, first: int, equal: Sequence[int], wins: NDArray[np.float64]
) -> str:
    best = f"{measured[first].title} ranks first by LogME, in {wins[first]:.0%} of random halves of the images"
    if len(measured) == 1:
        return "it is the only candidate"
    if len(equal) == 1:
        return f"{best}, and every other is clearly behind"
    if chosen == first:
        return f"{best}; it is also the cheapest of the {len(equal)} that cannot be told apart"
    saved = 1 - measured[chosen].forward_flops / measured[first].forward_flops
    return f"{best}; {measured[chosen].title} cannot be told from it and takes {saved:.0%} fewer FLOPs"
