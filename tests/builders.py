"""Tiny data sets for tests: images whose classes can be learned, in the layouts that users have."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

SubsetCounts = dict[str, dict[str, int]]

NOT_AN_IMAGE = b"this is not an image"


def class_image(label: str, rng: np.random.Generator, image_px: int) -> NDArray[np.uint8]:
    """Draw a wave whose frequency, direction and colour depend on the label, with noise: [px, px, 3]."""
    traits = np.random.default_rng(zlib.crc32(label.encode()))
    angle, waves, colour = traits.uniform(0, np.pi), traits.uniform(1, 4), traits.uniform(40, 215, size=3)
    y, x = np.mgrid[0:image_px, 0:image_px] / image_px
    wave = np.sin(2 * np.pi * (waves * (np.cos(angle) * x + np.sin(angle) * y) + rng.uniform()))
    noisy = colour + 40 * wave[..., None] + rng.normal(0, 20, size=(image_px, image_px, 3))
    pixels: NDArray[np.uint8] = noisy.clip(0, 255).astype(np.uint8)
    return pixels


def encode_image(array: NDArray[np.uint8], format: str = "PNG") -> bytes:
    """Encode [h, w, 3] or [h, w] pixels in a format that Pillow writes."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=format)
    return buffer.getvalue()


def build_rows(*, subsets: SubsetCounts, image_px: int = 32, seed: int = 0) -> list[dict[str, object]]:
    """Make the rows image (PNG bytes), label, subset, id: shuffled, and each image as if drawn on its own."""
    rows: list[dict[str, object]] = []
    for subset, labels in subsets.items():
        for label, count in labels.items():
            for number in range(count):
                identity = f"{subset}/{label}/{number}"
                rng = np.random.default_rng([seed, zlib.crc32(identity.encode())])
                image = encode_image(class_image(label, rng, image_px))
                rows.append({"image": image, "label": label, "subset": subset, "id": identity})
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[index] for index in order]


def write_parquet_shards(
    directory: Path,
    *,
    subsets: SubsetCounts,
    num_shards: int = 2,
    image_px: int = 32,
    seed: int = 0,
    bad_rows: int = 0,
) -> Path:
    """Write shards with the columns image, label, subset and id; `subsets` maps subset to label to count.

    `bad_rows` more rows hold bytes that are no image, under the first subset and label. Gives the directory.
    """
    rows = build_rows(subsets=subsets, image_px=image_px, seed=seed)
    subset = next(iter(subsets))
    label = next(iter(subsets[subset]))
    rows += [
        {"image": NOT_AN_IMAGE, "label": label, "subset": subset, "id": f"bad/{number}"} for number in range(bad_rows)
    ]
    directory.mkdir(parents=True, exist_ok=True)
    for shard in range(num_shards):
        path = directory / f"part-{shard:05}-of-{num_shards:05}.parquet"
        pq.write_table(pa.Table.from_pylist(rows[shard::num_shards], schema=ROW_SCHEMA), path)
    return directory


def write_image_folder(
    directory: Path,
    *,
    subsets: SubsetCounts,
    template: str = "{subset}/{label}/{name}",
    image_px: int = 32,
    seed: int = 0,
    format: str = "PNG",
) -> Path:
    """Write one file for each image at the path that `template` gives. Gives the directory."""
    for row in build_rows(subsets=subsets, image_px=image_px, seed=seed):
        name = f"{str(row['id']).rpartition('/')[2]}.{format.lower()}"
        path = directory / template.format(subset=row["subset"], label=row["label"], name=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = row["image"]
        assert isinstance(content, bytes)
        if format != "PNG":
            content = encode_image(np.asarray(Image.open(io.BytesIO(content))), format)
        path.write_bytes(content)
    return directory


ROW_SCHEMA = pa.schema([("image", pa.binary()), ("label", pa.string()), ("subset", pa.string()), ("id", pa.string())])
