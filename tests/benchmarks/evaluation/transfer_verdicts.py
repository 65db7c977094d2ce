"""Measure how often verdicts on transfer are right, by kind of truth, number of test images and images of one kin.

    python tests/benchmarks/evaluation/transfer_verdicts.py [--studies N] [--resamples B]

A study draws what five models of known true accuracies get right on the same images: a latent hardness that all models
share makes their errors correlated (60% of the variance), and that of kin alike (half of it). Prints a table in
Markdown: the share of right verdicts, and of those that take one side where the truth is another.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from orchestrator.evaluation.transfer import compare_on_split, judge_transfer

SHARED = 0.6
KINDS: dict[str, dict[str, float]] = {
    "no_difference": {"group": 0.8, "from_scratch": 0.8, "head_only": 0.8, "subset_only": 0.8, "pooled": 0.8},
    "helps": {"group": 0.9, "from_scratch": 0.7, "head_only": 0.85, "subset_only": 0.78, "pooled": 0.9},
    "hurts": {"group": 0.75, "from_scratch": 0.6, "head_only": 0.72, "subset_only": 0.88, "pooled": 0.75},
}
SIZES = ((20, 1), (50, 1), (100, 1), (200, 1), (400, 1), (400, 4), (1000, 1))


def answers(
    accuracies: Mapping[str, float], num_images: int, kin: int, rng: np.random.Generator
) -> dict[str, NDArray[np.bool_]]:
    """Draw what models of these accuracies get right; `kin` images in a row are alike in hardness."""
    of_kin = np.repeat(rng.normal(size=-(-num_images // kin)), kin)[:num_images]
    hardness = of_kin if kin == 1 else np.sqrt(0.5) * (of_kin + rng.normal(size=num_images))
    own = rng.normal(size=(len(accuracies), num_images))
    difficulty = np.sqrt(SHARED) * hardness + np.sqrt(1 - SHARED) * own
    return {name: row < stats.norm.ppf(accuracies[name]) for name, row in zip(accuracies, difficulty, strict=True)}


def judge(kind: str, num_images: int, kin: int, studies: int, resamples: int) -> Counter[str | None]:
    """Count the verdicts of simulated studies."""
    rng = np.random.default_rng(1)
    together = [f"kin{image // kin}" if kin > 1 else "" for image in range(num_images)]
    verdicts: Counter[str | None] = Counter()
    for _ in range(studies):
        models = answers(KINDS[kind], num_images, kin, rng)
        group = models.pop("group")
        verdicts[judge_transfer(compare_on_split(group, models, together, bootstrap_samples=resamples, seed=0))] += 1
    return verdicts


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    print("| Truth | Test images | Of one kin | helps | no difference | hurts |\n|---|---|---|---|---|---|")
    for kind in KINDS:
        for num_images, kin in SIZES:
            found = judge(kind, num_images, kin, arguments.studies, arguments.resamples)
            shares = [found[verdict] / arguments.studies for verdict in ("helps", "no_difference", "hurts")]
            print(f"| {kind} | {num_images} | {kin} | {' | '.join(f'{share:.3f}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
