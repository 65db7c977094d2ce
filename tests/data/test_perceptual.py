from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from orchestrator.data.decoding import decode_image
from orchestrator.data.identity import pixel_digest
from orchestrator.data.perceptual import NEAR_DISTANCE, near_pairs, parse_hashes, perceptual_hash


def a_picture(number: int) -> NDArray[np.uint8]:
    """Cut a piece of 160 x 160 out of a photo; pieces of other numbers do not overlap."""
    photo: NDArray[np.uint8] = load_sample_image("china.jpg")
    top, left = 107 + 160 * (number // 4), 160 * (number % 4)
    return np.ascontiguousarray(photo[top : top + 160, left : left + 160])


def encoded(rgb: NDArray[np.uint8], format: str, **options: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format=format, **options)
    return decode_image(buffer.getvalue())


def distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    one, other = parse_hashes([perceptual_hash(first), perceptual_hash(second)])
    return int(np.bitwise_count(one ^ other).sum())


def all_pairs(hashes: NDArray[np.uint64], max_distance: int) -> set[tuple[int, int]]:
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2, dtype=np.int64)
    return {(int(a), int(b)) for a, b in zip(*np.nonzero(distances <= max_distance), strict=True) if a < b}


def found_pairs(hashes: NDArray[np.uint64], max_distance: int) -> set[tuple[int, int]]:
    return {
        (min(a, b), max(a, b))
        for left, right in near_pairs(hashes, max_distance)
        for a, b in zip(left.tolist(), right.tolist(), strict=True)
    }


@pytest.mark.parametrize("number", range(8))
def test_a_picture_that_is_encoded_again_or_resized_is_near_itself(number: int) -> None:
    picture = encoded(a_picture(number), "JPEG", quality=95)
    width = picture.shape[1]
    versions = [
        encoded(picture, "JPEG", quality=60),
        encoded(picture, "WEBP", quality=60),
        np.asarray(Image.fromarray(picture).resize((2 * width, 2 * width), Image.Resampling.BICUBIC)),
    ]
    for version in versions:
        assert pixel_digest(version) != pixel_digest(picture)
        assert distance(picture, version) <= NEAR_DISTANCE


def test_mirrored_pictures_and_others_of_the_same_scene_are_not_near() -> None:
    assert distance(a_picture(0), np.ascontiguousarray(a_picture(0)[:, ::-1])) > 2 * NEAR_DISTANCE
    assert distance(a_picture(0), a_picture(1)) > 2 * NEAR_DISTANCE


def shades(number: int) -> NDArray[np.uint8]:
    """Draw a picture that goes evenly from one shade to a brighter one."""
    rise = np.linspace(40, 60 + 10 * number, 96)
    return np.repeat(np.repeat(rise[:, None, None], 96, axis=1), 3, axis=2).astype(np.uint8)


def test_plain_pictures_have_no_hash_that_would_make_them_all_alike() -> None:
    for colour in (0, 90, 255):
        plain = np.full((50, 70, 3), colour, dtype=np.uint8)
        assert perceptual_hash(plain) == perceptual_hash(encoded(plain, "JPEG", quality=75)) == ""
    assert [perceptual_hash(shades(number)) for number in range(3)] == [""] * 3
    assert perceptual_hash(np.zeros((1, 1, 3), dtype=np.uint8)) == ""


def test_a_faded_picture_and_one_of_noise_still_have_looks() -> None:
    faded = (120 + a_picture(0) / 50).astype(np.uint8)
    noise = np.random.default_rng(0).normal(100, 1.5, size=(160, 160, 1)).repeat(3, axis=2).astype(np.uint8)
    assert perceptual_hash(faded) and perceptual_hash(noise)


def test_a_hash_is_read_as_it_is_written() -> None:
    text = perceptual_hash(a_picture(0))
    assert len(text) == 64
    (words,) = parse_hashes([text])
    assert "".join(f"{int(word):016x}" for word in words) == text
    assert parse_hashes([]).shape == (0, 4)


@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([(4, 16), (4, 3), (1, 4), (1, 0)]))
@settings(max_examples=60, deadline=None)
def test_banding_finds_the_pairs_that_comparing_all_finds(seed: int, count: int, shape: tuple[int, int]) -> None:
    (words, max_distance), rng = shape, np.random.default_rng(seed)
    originals = rng.integers(0, 2**64, size=(max(1, count // 4), words), dtype=np.uint64)
    bits = np.unpackbits(originals[rng.integers(0, len(originals), count)].view(np.uint8), axis=1)
    # Flips around the bound: hashes just within and just beyond it.
    for row in bits:
        row[rng.choice(len(row), size=int(rng.integers(0, max_distance + 2)), replace=False)] ^= 1
    hashes = np.packbits(bits, axis=1).view(np.uint64)
    assert found_pairs(hashes, max_distance) == all_pairs(hashes, max_distance)


def test_pictures_that_all_share_a_band_are_all_compared() -> None:
    hashes = np.zeros((70, 4), dtype=np.uint64)
    hashes[:, 0] = np.arange(70, dtype=np.uint64)
    assert found_pairs(hashes, 2) == all_pairs(hashes, 2)
