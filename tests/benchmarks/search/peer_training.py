"""Trains one configuration the way a careful user of PyTorch writes it: what all peers share.

The network, the preprocessing, the optimiser, BatchNorm on its running statistics and a fresh order every epoch are
those of `fine_tune`. Tuned: pixels mapped into memory and fetched a batch at a time, channels last, a fused optimiser,
no gradients through frozen stages, as many threads as there are cores, and the number of workers that is fastest here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from protocol import BATCH_SIZE, WIDTH, PhotoTask
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler
from torchvision.models import mobilenet_v2

VALIDATION_BATCH = 64
# features[:end] are frozen at each depth, from 0 to 6: the cuts of orchestrator.finetune.families.
FROZEN_FEATURES = (0, 2, 4, 7, 14, 18, 19)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Hold what a trial is given."""

    freeze_depth: int
    learning_rate: float
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Hold what an epoch found."""

    epoch: int
    val_loss: float
    val_accuracy: float


class PixelDataset(Dataset[tuple[Tensor, Tensor]]):
    """Give whole batches of a split: one copy a batch instead of one an image."""

    def __init__(self, task: PhotoTask, split: str) -> None:
        self._pixels = task.pixels(split)
        self._labels = task.labels(split)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self._pixels[indices]), torch.from_numpy(self._labels[indices])


def _whole(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch


def create_loader(task: PhotoTask, split: str, *, seed: int, num_workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Iterate over a split: training in a fresh order every epoch, validation in the stored one."""
    dataset = PixelDataset(task, split)
    if split == "train":
        generator = torch.Generator().manual_seed(seed)
        order = BatchSampler(RandomSampler(dataset, generator=generator), BATCH_SIZE, drop_last=False)
    else:
        order = BatchSampler(SequentialSampler(dataset), VALIDATION_BATCH, drop_last=False)
    return DataLoader(
        dataset, batch_sampler=order, collate_fn=_whole, num_workers=num_workers, persistent_workers=num_workers > 0
    )


def fastest_num_workers(task: PhotoTask, candidates: Sequence[int] = (0, 1, 2)) -> int:
    """Measure an epoch at depth 4 with each number of workers, after one that starts them."""
    seconds = {}
    for num_workers in candidates:
        training = PeerTraining(task, Configuration(freeze_depth=4, learning_rate=1e-3, epochs=2), 0, num_workers)
        training.run_epoch()
        started = time.perf_counter()
        training.run_epoch()
        seconds[num_workers] = time.perf_counter() - started
    return min(seconds, key=seconds.__getitem__)


def normalise(pixels: Tensor) -> Tensor:
    """Turn uint8 [n, S, S, 3] into images [n, 3, S, S] in [-1, 1], channels last in memory."""
    return ((pixels.float() / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)


def build_network(task: PhotoTask, freeze_depth: int, seed: int) -> nn.Module:
    """Build the pretrained network with a new head, its first stages frozen."""
    torch.manual_seed(seed)
    network = mobilenet_v2(width_mult=WIDTH)
    state = torch.load(task.weights, weights_only=True)
    outcome = network.load_state_dict(state, strict=False)
    unexpected = [name for name in (*outcome.missing_keys, *outcome.unexpected_keys) if "classifier" not in name]
    if unexpected:
        raise ValueError(f"the weights must be those of MobileNetV2 {WIDTH}, got other names: {unexpected[:3]}")
    network.classifier = nn.Linear(network.last_channel, task.num_classes)
    network.features[: FROZEN_FEATURES[freeze_depth]].requires_grad_(False)
    # Evaluation mode throughout: BatchNorm keeps its statistics, and nothing else here behaves differently.
    return network.to(memory_format=torch.channels_last).eval()


class PeerTraining:
    """Hold one training; `run_epoch` trains and validates."""

    def __init__(self, task: PhotoTask, configuration: Configuration, seed: int, num_workers: int) -> None:
        torch.set_num_threads(task.threads)
        self.network = build_network(task, configuration.freeze_depth, seed)
        learned = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(learned, lr=configuration.learning_rate, fused=True)
        self._train = create_loader(task, "train", seed=seed, num_workers=num_workers)
        self._validation = create_loader(task, "val", seed=seed, num_workers=num_workers)
        self._epoch = 0

    def run_epoch(self) -> Epoch:
        """Train one epoch and validate it."""
        self._epoch += 1
        for pixels, labels in self._train:
            train_step(self.network, self._optimizer, normalise(pixels), labels)
        batches = ((normalise(pixels), labels) for pixels, labels in self._validation)
        return validate(self.network, batches, self._epoch)


def train_step(network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor) -> None:
    """Take one step."""
    optimizer.zero_grad()
    cross_entropy(network(inputs), labels).backward()
    optimizer.step()


def validate(network: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], epoch: int) -> Epoch:
    """Give the mean loss and the accuracy."""
    loss, right, count = 0.0, 0, 0
    with torch.inference_mode():
        for inputs, labels in batches:
            logits = network(inputs)
            loss += float(cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(dim=1) == labels).sum())
            count += len(labels)
    return Epoch(epoch=epoch, val_loss=loss / count, val_accuracy=right / count)


class HandCachedHeads:
    """Compute the pooled features once, at the first head-only trial, and train heads on them in memory."""

    def __init__(self, task: PhotoTask, seed: int) -> None:
        self._task = task
        self._seed = seed
        self._features: dict[str, tuple[Tensor, Tensor]] = {}

    def train(self, configuration: Configuration) -> Iterator[Epoch]:
        """Train one head and give every epoch."""
        torch.set_num_threads(self._task.threads)
        network = build_network(self._task, len(FROZEN_FEATURES) - 1, self._seed)
        head = network.classifier
        assert isinstance(head, nn.Linear)
        if not self._features:
            self._features = {split: self._extract(network, split) for split in ("train", "val")}
        optimizer = torch.optim.Adam(head.parameters(), lr=configuration.learning_rate, fused=True)
        features, labels = self._features["train"]
        order = np.random.default_rng(self._seed)
        for epoch in range(1, configuration.epochs + 1):
            for batch in _batches(order.permutation(len(labels))):
                train_step(head, optimizer, features[batch], labels[batch])
            yield validate(head, iter([self._features["val"]]), epoch)

    def _extract(self, network: nn.Module, split: str) -> tuple[Tensor, Tensor]:
        mapped, found = self._task.pixels(split), []
        with torch.no_grad():
            for start in range(0, len(mapped), VALIDATION_BATCH):
                # A copy: the mapped file cannot be written to, which torch warns of.
                pixels = torch.from_numpy(np.array(mapped[start : start + VALIDATION_BATCH]))
                found.append(self._pool(network, pixels))
        return torch.cat(found), torch.from_numpy(self._task.labels(split))

    def _pool(self, network: nn.Module, pixels: Tensor) -> Tensor:
        features = network.features
        assert isinstance(features, nn.Module)
        pooled: Tensor = features(normalise(pixels)).mean(dim=(2, 3))
        return pooled


def _batches(order: NDArray[np.int64]) -> list[Tensor]:
    return list(torch.from_numpy(order).split(BATCH_SIZE))
