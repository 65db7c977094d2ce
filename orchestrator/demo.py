"""Makes the embedded data sets: handwritten digits at eight sites, and rendered digits as source task."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_digits

from orchestrator import storage
from orchestrator.config import DEMO_URI, SOURCE_URI, DataConfig
from orchestrator.errors import ConfigError

SCHEME = "demo://"
IMAGE_SIZE = 32
NUM_RENDERED = 6000
# Raise this when any written byte changes: data of an older version is left alone and made anew beside it.
_VERSION = 1
_NUM_SHARDS = 8
_MARKER = "_SUCCESS"

# Images of each digit at each site: few and many classes, even and skewed, small and large. A digit occurs
# 174 times or more in scikit-learn's set, and its column here sums to less.
_SITES: Mapping[str, tuple[int, ...]] = {
    #                0   1   2   3   4   5   6   7   8   9
    "two-skewed": (0, 0, 0, 80, 0, 0, 0, 0, 12, 0),
    "two-even": (30, 0, 0, 0, 0, 0, 30, 0, 0, 0),
    "three-skewed": (0, 70, 0, 0, 24, 0, 0, 26, 0, 0),
    "four-even": (0, 0, 25, 0, 0, 25, 0, 0, 25, 25),
    "five-skewed": (60, 0, 80, 0, 0, 22, 0, 40, 0, 18),
    "seven-even": (20, 20, 0, 0, 20, 20, 20, 20, 0, 20),
    "ten-skewed": (12, 26, 20, 44, 60, 50, 74, 34, 46, 24),
    "ten-even": (40, 40, 40, 40, 40, 40, 40, 40, 40, 40),
}

# Faces of matplotlib's bundled DejaVu and STIX families that hold plain digits.
_FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSansMono-BoldOblique.ttf",
    "DejaVuSansMono-Oblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-BoldItalic.ttf",
    "DejaVuSerif-Italic.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralBolIta.ttf",
    "STIXGeneralItalic.ttf",
)
_GLYPH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class _Sample:
    image: bytes
    label: str
    id: str
    site: str | None = None


def resolve_demo(config: DataConfig, directory: str | Path) -> DataConfig:
    """Put the data that a `demo://` URI names below `directory` and give a config that reads it.

    The Parquet shards are written once; a later call finds them. Columns that the config leaves out are
    filled in. `directory` is a local path or a URI that every node can read. Other URIs come back unchanged.
    Raises ConfigError for an unknown name and StorageError when `directory` cannot be written.
    """
    if not config.uri.startswith(SCHEME):
        return config
    if config.uri not in (DEMO_URI, SOURCE_URI):
        raise ConfigError(
            "data.uri names no embedded data set",
            value=config.uri,
            remedy=f"Use {DEMO_URI} or {SOURCE_URI}, or the path of your own data.",
        )
    root = storage.join(str(directory), f"{config.uri.removeprefix(SCHEME)}-{_VERSION}")
    marker = storage.join(root, _MARKER)
    if not storage.exists(marker):
        _write_shards(root, _handwritten() if config.uri == DEMO_URI else _rendered())
        storage.write_bytes(marker, f"{_VERSION}\n".encode())
    return config.model_copy(
        update={
            "uri": root,
            "format": "parquet",
            "image": config.image or "image",
            "label": config.label or "label",
            "subset": config.subset or ("site" if config.uri == DEMO_URI else None),
            "id": config.id or "id",
        }
    )


def _write_shards(root: str, samples: Iterable[_Sample]) -> None:
    dealt = list(samples)
    # Sites are spread over the shards, as uploads from many sites would be.
    order = np.random.default_rng(0).permutation(len(dealt))
    for number, positions in enumerate(np.array_split(order, _NUM_SHARDS)):
        chosen = [dealt[position] for position in positions]
        columns = {
            "image": pa.array([sample.image for sample in chosen], pa.binary()),
            "label": pa.array([sample.label for sample in chosen], pa.string()),
            "id": pa.array([sample.id for sample in chosen], pa.string()),
        }
        if chosen[0].site is not None:
            columns["site"] = pa.array([sample.site for sample in chosen], pa.string())
        stream = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), stream)
        shard = f"part-{number:05}-of-{_NUM_SHARDS:05}.parquet"
        storage.write_bytes(storage.join(root, shard), stream.getvalue().to_pybytes())


def _handwritten() -> Iterable[_Sample]:
    """Deal scikit-learn's handwritten digits out to the sites; an image goes to one site at most."""
    digits = load_digits()
    images: NDArray[np.float64] = digits.images
    labels: NDArray[np.int64] = digits.target
    generator = np.random.default_rng(0)
    pools = {digit: list(generator.permutation(np.flatnonzero(labels == digit))) for digit in range(10)}
    for site, counts in _SITES.items():
        for digit, count in enumerate(counts):
            for _ in range(count):
                position = int(pools[digit].pop())
                yield _Sample(
                    image=_encode(_enlarge(images[position])),
                    label=str(digit),
                    id=f"handwritten-{position:04}",
                    site=site,
                )


def _enlarge(image: NDArray[np.float64]) -> Image.Image:
    """Scale an 8 x 8 image of values 0..16 to IMAGE_SIZE and 0..255."""
    small = Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8))
    return small.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)


def _rendered() -> Iterable[_Sample]:
    """Draw every digit equally often in random faces under random distortion."""
    generator = np.random.default_rng(0)
    for number in range(NUM_RENDERED):
        digit = number % 10
        font = _FONTS[int(generator.integers(len(_FONTS)))]
        image = _distort(_glyph(font, digit), generator)
        yield _Sample(image=_encode(image), label=str(digit), id=f"rendered-{number:05}")


@cache
def _glyph(font: str, digit: int) -> Image.Image:
    """Draw a digit light on dark, its ink filling the square as that of the handwritten ones does."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / font
    face = ImageFont.truetype(str(path), _GLYPH_SIZE)
    left, top, right, bottom = face.getbbox(str(digit))
    ink = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(ink).text((-left, -top), str(digit), fill=255, font=face)
    width = max(_GLYPH_SIZE // 2, round(ink.width * _GLYPH_SIZE / ink.height))
    return ink.resize((min(width, _GLYPH_SIZE), _GLYPH_SIZE), Image.Resampling.BILINEAR)


def _distort(glyph: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Give a glyph a random place, size, slant, rotation, blur, contrast and noise."""
    angle, shear = generator.uniform(-0.25, 0.25), generator.uniform(-0.3, 0.3)
    # Handwritten digits fill their square from top to bottom, and are narrower than printed ones.
    scale = _GLYPH_SIZE / IMAGE_SIZE / generator.uniform((0.6, 0.85), (0.95, 1.05))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # Pillow maps places of the output back to places of the input.
    inverse = np.diag(scale) @ rotation @ np.array([[1.0, shear], [0.0, 1.0]])
    centre = np.array([glyph.width, glyph.height]) / 2
    shift = centre - inverse @ (IMAGE_SIZE / 2 + generator.uniform(-2.0, 2.0, size=2))
    affine = (inverse[0, 0], inverse[0, 1], shift[0], inverse[1, 0], inverse[1, 1], shift[1])
    size = (IMAGE_SIZE, IMAGE_SIZE)
    placed = glyph.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    blurred = placed.filter(ImageFilter.GaussianBlur(float(generator.uniform(0.8, 2.2))))
    pixels = np.asarray(blurred, dtype=np.float32) * generator.uniform(0.8, 1.3)
    pixels += generator.normal(0.0, generator.uniform(0.0, 16.0), size=pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _encode(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    # These images are tiny: a faster compression writes 6,000 of them in half the time for a few bytes more.
    image.save(stream, format="PNG", compress_level=1)
    return stream.getvalue()
