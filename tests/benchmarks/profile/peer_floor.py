"""The bare work on every core: each image is decoded, resized and run through the backbone, and nothing is counted."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from peer_dataloader import EncodedImage, PeerSettings, decode, features_of, load_backbone, resize
from sizes import Place

_START_S = 300.0


def time_floor(images: list[EncodedImage], place: Place, settings: PeerSettings) -> float:
    """Give the wall seconds from when every process is ready until the last has ended."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(place.cores + 1)
    contents = [image.content for image in images]
    workers = [
        context.Process(target=_work, args=(contents[core :: place.cores], place.weights, settings.batch_size, ready))
        for core in range(place.cores)
    ]
    for worker in workers:
        worker.start()
    ready.wait(_START_S)
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a process of the floor failed")
    return time.perf_counter() - started


def _work(contents: list[bytes], weights: Path, batch_size: int, ready: Barrier) -> None:
    torch.set_num_threads(1)
    backbone = load_backbone(weights)
    ready.wait(_START_S)
    for start in range(0, len(contents), batch_size):
        features_of(
            backbone, torch.stack([resize(decode(content)) for content in contents[start : start + batch_size]])
        )
