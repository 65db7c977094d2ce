"""Trains under torchrun the way a careful user of PyTorch writes it: DDP, a share of every epoch for each rank.

    torchrun --standalone --nproc-per-node 2 peer_torchrun.py TASK WEIGHTS NUM_CLASSES EPOCHS LEARNING_RATE

Rank 0 prints the mean seconds of the epochs after the first, validation included, as a JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

sys.path.append(str(Path(__file__).resolve().parents[1] / "search"))

from peer_training import VALIDATION_BATCH, build_network, normalise, train_step
from protocol import BATCH_SIZE, PhotoTask
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler


class Ranked:
    """Hold what one rank trains with."""

    def __init__(self, task: PhotoTask, learning_rate: float) -> None:
        torch.set_num_threads(task.threads)
        # BatchNorm keeps its statistics: there are no buffers to broadcast.
        self._network = DistributedDataParallel(build_network(task, 0, 0), broadcast_buffers=False)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=learning_rate, fused=True)
        self._pixels = {split: task.pixels(split) for split in ("train", "val")}
        self._labels = {split: torch.from_numpy(task.labels(split)) for split in ("train", "val")}
        self._order = DistributedSampler(range(len(self._labels["train"])), shuffle=True, seed=0)

    def run_epoch(self, epoch: int) -> float:
        """Train one epoch and give the validation accuracy."""
        self._order.set_epoch(epoch)
        for positions in torch.tensor(list(self._order)).split(BATCH_SIZE // dist.get_world_size()):
            train_step(self._network, self._optimizer, *self._batch("train", positions))
        return self._validate(self._network.module)

    def _validate(self, network: nn.Module) -> float:
        count = len(self._labels["val"])
        totals = torch.zeros(2, dtype=torch.float64)
        with torch.inference_mode():
            for positions in torch.arange(dist.get_rank(), count, dist.get_world_size()).split(VALIDATION_BATCH):
                inputs, labels = self._batch("val", positions)
                logits = network(inputs)
                totals[0] += cross_entropy(logits, labels, reduction="sum")
                totals[1] += (logits.argmax(dim=1) == labels).sum()
        dist.all_reduce(totals)
        return float(totals[1]) / count

    def _batch(self, split: str, positions: Tensor) -> tuple[Tensor, Tensor]:
        pixels = np.ascontiguousarray(self._pixels[split][positions.numpy()])
        return normalise(torch.from_numpy(pixels)), self._labels[split][positions]


def main() -> None:
    """Train and print."""
    directory, weights, num_classes, epochs, learning_rate = sys.argv[1:]
    dist.init_process_group("gloo")
    task = PhotoTask(directory=Path(directory), weights=Path(weights), num_classes=int(num_classes), threads=1)
    training = Ranked(task, float(learning_rate))
    ends = []
    for epoch in range(1 + int(epochs)):
        accuracy = training.run_epoch(epoch)
        ends.append(time.perf_counter())
    if dist.get_rank() == 0:
        print(json.dumps({"epoch_s": (ends[-1] - ends[0]) / int(epochs), "val_accuracy": accuracy}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
