"""Measure for which pictures a perceptual hash says something, and what the bound of plain pictures costs.

    python tests/benchmarks/plain_pictures.py DATA [--pictures 300]

DATA is a folder of Parquet shards with a column `image`. Prints one JSON object for each kind of picture: the median of
the magnitudes that are hashed over the bound (its median over pictures, and the least), the share that is hashed, how
many pairs of different pictures are near by all hashes and by those above the bound, and the share of hashed ones
that stay near themselves as JPEG of quality 90. No two pictures of a kind are copies, except in DATA itself.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path

import imagehash
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from orchestrator.data.decoding import decode_image
from orchestrator.data.perceptual import NEAR_DISTANCE, near_pairs, parse_hashes, perceptual_hash, structure

Picture = NDArray[np.uint8]
SIDE = 128


def read_pictures(folder: Path, count: int) -> list[Picture]:
    """Take as many images from each shard."""
    shards = sorted(folder.glob("*.parquet"))
    each = -(-count // len(shards))
    contents = [
        content for shard in shards for content in pq.read_table(shard, columns=["image"])[0].to_pylist()[:each]
    ]
    return [decode_image(content) for content in contents[:count]]


def as_picture(values: NDArray[np.float64]) -> Picture:
    return np.broadcast_to(np.clip(np.round(values), 0, 255), (SIDE, SIDE, 3)).astype(np.uint8)


def faded(pictures: Sequence[Picture], contrast: float, rng: np.random.Generator) -> list[Picture]:
    levels = ((picture - picture.mean()) * contrast + rng.integers(30, 220) for picture in pictures)
    return [np.clip(np.round(level), 0, 255).astype(np.uint8) for level in levels]


def made(count: int, rng: np.random.Generator) -> dict[str, list[Picture]]:
    """Draw pictures with little in them."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j][..., None]

    def colour() -> NDArray[np.float64]:
        return rng.uniform(60, 200, size=3)

    def with_speck() -> Picture:
        picture = as_picture(colour())
        top, left = rng.integers(0, SIDE - 4, size=2)
        picture[top : top + 4, left : left + 4] = 0
        return picture

    return {
        "one colour": [as_picture(colour()) for _ in range(count)],
        "even shade": [as_picture(colour() + rng.uniform(3, 30) * x + rng.uniform(3, 30) * y) for _ in range(count)],
        "vignette": [as_picture(colour() - rng.uniform(10, 60) * (x**2 + y**2)) for _ in range(count)],
        "noise of 1 level": [as_picture(colour() + rng.normal(0, 1, (SIDE, SIDE, 1))) for _ in range(count)],
        "a speck": [with_speck() for _ in range(count)],
    }


def num_near(hashes: Sequence[str]) -> int:
    pairs = {
        (min(pair), max(pair))
        for left, right in near_pairs(parse_hashes(hashes))
        for pair in zip(left.tolist(), right.tolist(), strict=True)
    }
    return len(pairs)


def encoded_again(picture: Picture) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    return decode_image(buffer.getvalue())


def stays_near(picture: Picture, hashed: str) -> bool:
    again = perceptual_hash(encoded_again(picture))
    return bool(again) and int(np.bitwise_count(parse_hashes([hashed]) ^ parse_hashes([again])).sum()) <= NEAR_DISTANCE


def measure(kind: str, pictures: Sequence[Picture]) -> dict[str, object]:
    hashes = [perceptual_hash(picture) for picture in pictures]
    hashed = [(picture, found) for picture, found in zip(pictures, hashes, strict=True) if found]
    structures = [structure(picture) for picture in pictures]
    return {
        "kind": kind,
        "pictures": len(pictures),
        "structure": round(float(np.median(structures)), 2),
        "least_structure": round(min(structures), 2),
        "hashed": round(len(hashed) / len(pictures), 3),
        "near_by_all_hashes": num_near([str(imagehash.phash(Image.fromarray(p), hash_size=16)) for p in pictures]),
        "near": num_near([found for _, found in hashed]),
        "near_itself": round(float(np.mean([stays_near(*pair) for pair in hashed])), 3) if hashed else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=int, default=300)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    pictures = read_pictures(options.data, options.pictures)
    kinds = {f"contrast {contrast}": faded(pictures, contrast, rng) for contrast in (0.01, 0.02, 0.04, 0.08, 0.15, 0.3)}
    for kind, found in {"as they are": pictures, **kinds, **made(options.pictures, rng)}.items():
        print(json.dumps(measure(kind, found)), flush=True)


if __name__ == "__main__":
    main()
