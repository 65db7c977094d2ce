"""Ten thousand images measured in parts give what SciPy and NumPy give for the whole, whatever the parts."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from builders import encode_image
from diversity_examples import brute_force_vendi, identities
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import entropy

from orchestrator.data.decoding import luminance_histogram
from orchestrator.diversity.category_counts import count_rows, merge_counts
from orchestrator.diversity.entropy import histogram_entropy
from orchestrator.diversity.profiling import ProfileSettings, finish
from orchestrator.diversity.statistics import ImageMeasures, PartialProfile, merge_partials
from orchestrator.records import Profile, SubsetProfile

SITES = {"large": 6000, "middle": 3000, "small": 1000}
LABELS = ("bird", "cat", "dog", "fox", "hen")
IMAGE_PX = 16
DIMENSIONS = 24
BLOCK_ROWS = 512
NUM_BLOCKS = 21  # of 7 shards of 1,429 images or one less


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Hold all images in one order: encoded, with their sites, labels, identities and features."""

    contents: list[bytes]
    sites: NDArray[np.str_]
    labels: NDArray[np.str_]
    ids: NDArray[np.str_]
    features: NDArray[np.float32]
    pixel_entropies: NDArray[np.float64]


@cache
def images() -> Images:
    """Draw noise of a contrast that differs between images; features are a random layer over the pixels."""
    generator = np.random.default_rng(0)
    total = sum(SITES.values())
    contrasts = generator.uniform(2.0, 60.0, size=(total, 1, 1, 1))
    noise = generator.normal(size=(total, IMAGE_PX, IMAGE_PX, 3))
    pixels = (128 + contrasts * noise).clip(0, 255).astype(np.uint8)
    contents = [encode_image(image) for image in pixels]
    layer = generator.normal(size=(IMAGE_PX * IMAGE_PX * 3, DIMENSIONS)) * np.geomspace(1.0, 0.1, DIMENSIONS)
    order = generator.permutation(total)
    return Images(
        contents=contents,
        sites=np.repeat(list(SITES), list(SITES.values()))[order],
        labels=generator.choice(LABELS, size=total, p=[0.5, 0.25, 0.15, 0.07, 0.03]),
        ids=np.array(identities(total)),
        features=np.maximum(0.0, pixels.reshape(total, -1) / 255.0 @ layer).astype(np.float32),
        pixel_entropies=histogram_entropy(np.stack([luminance_histogram(content) for content in contents])),
    )


@cache
def partials(num_shards: int) -> list[tuple[pa.Table, PartialProfile]]:
    """Count labels and measure images block by block, dealt out to shards."""
    found = images()
    shards = [np.arange(len(found.ids))[shard::num_shards] for shard in range(num_shards)]
    blocks = [shard[begin : begin + BLOCK_ROWS] for shard in shards for begin in range(0, len(shard), BLOCK_ROWS)]
    return [
        (
            count_rows(pa.table({"subset": found.sites[rows].tolist(), "label": found.labels[rows].tolist()})),
            PartialProfile.of_block(
                key=key,
                subsets=found.sites[rows].tolist(),
                labels=found.labels[rows].tolist(),
                ids=found.ids[rows].tolist(),
                images=ImageMeasures(pixel_entropies=found.pixel_entropies[rows], features=found.features[rows]),
            ),
        )
        for key, rows in enumerate(blocks)
    ]


def profile_of(parts: list[tuple[pa.Table, PartialProfile]]) -> Profile:
    return finish(
        merge_counts([counts for counts, _ in parts]),
        merge_partials(partial for _, partial in parts),
        ProfileSettings(
            num_labels=len(LABELS),
            measures=("label_entropy", "pixel_entropy", "feature_diversity"),
            split="train",
            min_images=10,
            seed=0,
        ),
    )


@pytest.fixture(scope="module")
def in_one_shard() -> dict[str, SubsetProfile]:
    return {subset.subset: subset for subset in profile_of(partials(1)).subsets}


@pytest.mark.parametrize("site", SITES)
def test_entropies_are_those_of_scipy_to_the_last_digits(site: str, in_one_shard: dict[str, SubsetProfile]) -> None:
    found = images()
    members = np.flatnonzero(found.sites == site)
    counts = np.unique(found.labels[members], return_counts=True)[1]
    assert in_one_shard[site].label_entropy == pytest.approx(entropy(counts), abs=1e-12, rel=0)
    greys = [np.asarray(Image.open(io.BytesIO(found.contents[index])).convert("L")) for index in members]
    histograms = np.stack([np.bincount(grey.ravel(), minlength=256) for grey in greys])
    expected = math.fsum(entropy(histograms, axis=1)) / len(members)
    assert in_one_shard[site].pixel_entropy == pytest.approx(expected, abs=1e-12, rel=0)


@pytest.mark.parametrize("site", SITES)
def test_the_vendi_score_is_that_of_all_features_at_once(site: str, in_one_shard: dict[str, SubsetProfile]) -> None:
    features = images().features[images().sites == site].astype(np.float64)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(unit.T @ unit / len(unit))
    expected = math.exp(-sum(value * math.log(value) for value in eigenvalues if value > 0))
    assert in_one_shard[site].raw_feature_diversity == pytest.approx(expected, rel=1e-9)
    if site == "small":
        assert expected == pytest.approx(brute_force_vendi(features), rel=1e-9)


@settings(max_examples=8)
@given(st.permutations(range(NUM_BLOCKS)))
def test_any_order_of_arrival_gives_the_same_bits(order: list[int]) -> None:
    assert profile_of([partials(7)[key] for key in order]).to_json() == _in_order()


@cache
def _in_order() -> str:
    return profile_of(partials(7)).to_json()


@pytest.mark.parametrize("num_shards", [2, 7])
def test_other_shardings_agree_in_every_measure(num_shards: int, in_one_shard: dict[str, SubsetProfile]) -> None:
    for subset in profile_of(partials(num_shards)).subsets:
        expected = in_one_shard[subset.subset].model_dump()
        for name, value in subset.model_dump(exclude={"subset", "closest_classes"}, exclude_none=True).items():
            assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-9), name
        closest = subset.model_dump()["closest_classes"]
        assert closest == expected["closest_classes"] | {"distance": pytest.approx(closest["distance"], abs=1e-9)}
