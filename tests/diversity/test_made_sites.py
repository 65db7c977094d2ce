"""Sites that were made to differ in diversity are found in the order that they were made in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from diversity_examples import identities
from numpy.typing import NDArray

from orchestrator.config import DiversityMeasure
from orchestrator.diversity.category_counts import count_rows
from orchestrator.diversity.profiling import ProfileSettings, finish
from orchestrator.diversity.statistics import ImageMeasures, PartialProfile, merge_partials
from orchestrator.records import SubsetProfile

PACS = Path(os.environ.get("ORCHESTRATOR_PACS", Path(__file__).parents[3] / "shared/data/pacs"))
DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
CLASSES = [f"class-{index}" for index in range(7)]


def measured(
    sites: Sequence[str], labels: Sequence[str], images: ImageMeasures, *measures: DiversityMeasure
) -> dict[str, SubsetProfile]:
    ids = identities(len(sites))
    block = PartialProfile.of_block(key=0, subsets=sites, labels=labels, ids=ids, images=images)
    settings = ProfileSettings(num_labels=7, measures=measures, split="train", min_images=10, seed=0)
    counts = count_rows(pa.table({"subset": sites, "label": labels}))
    return {subset.subset: subset for subset in finish(counts, merge_partials([block]), settings).subsets}


def order_by(profiles: Mapping[str, SubsetProfile], measure: str) -> list[str]:
    return sorted(profiles, key=lambda site: getattr(profiles[site], measure))


def dealt(counts: Mapping[str, Sequence[int]]) -> tuple[list[str], list[str]]:
    """Give the site and the label of every image: so many of each class at each site."""
    sites = [site for site, numbers in counts.items() for _ in range(sum(numbers))]
    labels = [label for numbers in counts.values() for label in np.repeat(CLASSES[: len(numbers)], numbers).tolist()]
    return sites, labels


def class_features(labels: Sequence[str], noise: float) -> NDArray[np.float32]:
    """Put every class in a direction of its own, with noise around it."""
    generator = np.random.default_rng(0)
    directions = np.eye(7, 16)[[CLASSES.index(label) for label in labels]]
    return (directions + noise * generator.normal(size=directions.shape)).astype(np.float32)


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_sites_of_one_to_seven_classes_stand_in_that_order_by_labels_and_by_features(noise: float) -> None:
    # The more classes, the fewer images: what counts is not how much there is of a site.
    counts = {f"{number} classes": [420 // number**2 + 12] * number for number in range(1, 8)}
    sites, labels = dealt(counts)
    profiles = measured(
        sites, labels, ImageMeasures(features=class_features(labels, noise)), "label_entropy", "feature_diversity"
    )
    for measure in ("label_entropy", "feature_diversity"):
        assert order_by(profiles, measure) == list(counts)


def test_the_more_skewed_a_site_is_the_less_diverse_it_is_found() -> None:
    counts = {f"skew {power}": [round(200 * (rank + 1) ** -power) + 2 for rank in range(7)] for power in (3, 2, 1, 0)}
    sites, labels = dealt(counts)
    profiles = measured(
        sites, labels, ImageMeasures(features=class_features(labels, 0.1)), "label_entropy", "feature_diversity"
    )
    for measure in ("label_entropy", "normalized_label_entropy", "effective_classes", "feature_diversity"):
        assert order_by(profiles, measure) == list(counts)


@pytest.mark.skipif(not PACS.is_dir(), reason=f"the PACS shards are not at {PACS}")
def test_pacs_by_site_is_in_the_order_that_its_sites_were_made_in() -> None:
    """Two classes, three skewed, five or all seven skewed, all evenly: in each of four domains."""
    tables = [pq.read_table(path, columns=["site", "label"]) for path in sorted(PACS.glob("*.parquet"))]
    columns = {
        name: [text for table in tables for text in table.column(name).to_pylist()] for name in ("site", "label")
    }
    profiles = measured(columns["site"], columns["label"], ImageMeasures(), "label_entropy")
    for domain in DOMAINS:
        two, three, five, skewed, even = (profiles[f"{domain}-{number}"].label_entropy for number in range(5))
        assert two < three < min(five, skewed) <= max(five, skewed) < even
