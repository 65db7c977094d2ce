"""A profile as one would write it by hand: one process, a torch DataLoader of two workers, one decode an image."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.linalg import eigvalsh
from sizes import IMAGE_SIZE, WIDTH, Place
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.models import mobilenet_v2
from torchvision.transforms.v2 import functional

NUM_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """Hold an encoded image with its label and subset."""

    content: bytes
    label: str
    subset: str


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """Hold what is tuned: images a batch, and threads of the process that runs the backbone."""

    batch_size: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class PeerProfile:
    """Hold the measures of one subset, entropies in nats."""

    label_entropy: float
    pixel_entropy: float
    vendi_score: float


class Images(Dataset[tuple[Tensor, NDArray[np.int64], int]]):
    """Decode an image once, for its histogram of luminance and its pixels of the working size."""

    def __init__(self, images: list[EncodedImage]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, NDArray[np.int64], int]:
        pixels = decode(self.images[index].content)
        grey = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).convert("L")
        return resize(pixels), np.array(grey.histogram()), index


def decode(content: bytes) -> Tensor:
    """Decode a JPEG to RGB [3, h, w]."""
    return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)


def resize(pixels: Tensor) -> Tensor:
    """Resize square pixels to the working size."""
    return functional.resize(pixels, [IMAGE_SIZE, IMAGE_SIZE], antialias=True)


def read_images(data: Path) -> list[EncodedImage]:
    """Read the shards into memory, off the peer's clock."""
    rows = pq.read_table(data, columns=["image", "label", "domain"]).to_pylist()
    return [EncodedImage(content=row["image"], label=row["label"], subset=row["domain"]) for row in rows]


def load_backbone(weights: Path) -> nn.Module:
    """Build the trunk without its head."""
    model = mobilenet_v2(width_mult=WIDTH)
    model.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    model.classifier = nn.Identity()
    return model.eval().to(memory_format=torch.channels_last)


def features_of(backbone: nn.Module, pixels: Tensor) -> Tensor:
    """Run uint8 pixels [n, 3, S, S] through the backbone."""
    with torch.inference_mode():
        return backbone((pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last))


def best_settings(images: list[EncodedImage], place: Place) -> PeerSettings:
    """Find the fastest settings on some of the images."""
    some = images[:: max(1, len(images) // place.sizes.tuning_images)]
    candidates = [
        PeerSettings(batch_size=batch_size, threads=threads)
        for batch_size, threads in product(place.sizes.batch_sizes, range(1, place.cores + 1))
    ]
    return min(candidates, key=lambda settings: profile_with_dataloader(some, place.weights, settings)[0])


def profile_with_dataloader(
    images: list[EncodedImage], weights: Path, settings: PeerSettings
) -> tuple[float, dict[str, PeerProfile]]:
    """Give the wall seconds of a profile, and the measures of every subset."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    started = time.perf_counter()
    subsets = sorted({image.subset for image in images})
    outer: dict[str, NDArray[np.float64] | float] = dict.fromkeys(subsets, 0.0)
    entropies: dict[str, list[float]] = {subset: [] for subset in subsets}
    backbone = load_backbone(weights)
    loader = DataLoader(Images(images), batch_size=settings.batch_size, num_workers=NUM_WORKERS)
    for pixels, histograms, indices in loader:
        directions = nn.functional.normalize(features_of(backbone, pixels).double()).numpy()
        names = np.array([images[index].subset for index in indices.tolist()])
        found = _entropies(histograms.numpy())
        for subset in np.unique(names).tolist():
            chosen = directions[names == subset]
            outer[subset] = outer[subset] + chosen.T @ chosen
            entropies[subset] += found[names == subset].tolist()
    profiles = {}
    for subset in subsets:
        labels = Counter(image.label for image in images if image.subset == subset)
        eigenvalues = eigvalsh(outer[subset] / len(entropies[subset]))
        profiles[subset] = PeerProfile(
            label_entropy=float(_entropies(np.array([list(labels.values())]))[0]),
            pixel_entropy=float(np.mean(entropies[subset])),
            vendi_score=float(np.exp(-(eigenvalues[eigenvalues > 0] * np.log(eigenvalues[eigenvalues > 0])).sum())),
        )
    seconds = time.perf_counter() - started
    torch.set_num_threads(before)
    return seconds, profiles


def _entropies(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    shares = counts / counts.sum(axis=1, keepdims=True)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return -(shares * logarithms).sum(axis=1)
