"""Explains predictions of saved models as Ray tasks, one a group, where the pixels can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from orchestrator.cluster.failures import translate
from orchestrator.cluster.watchdog import Watchdog, gather
from orchestrator.cluster.workers import use_threads
from orchestrator.data.reader import PixelReader
from orchestrator.errors import OrchestratorError
from orchestrator.evaluation.heads import output_of
from orchestrator.finetune.explanations import explanation_method, heat_maps
from orchestrator.finetune.models import load_model
from orchestrator.records import ExplanationMethod, ModelCard


@dataclass(frozen=True, kw_only=True)
class ExplanationJob:
    """Say which images to explain with which model: n catalogue rows, and for each the index of one of its classes."""

    model_uri: str
    rows: pa.Table
    classes: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class ExplainedImage:
    """Hold pixels uint8 [S, S, 3] and their heat map float32 [S, S] in [0, 1]."""

    pixels: NDArray[np.uint8]
    heat_map: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ExplainedImages:
    """Hold what became of each image of a job: its heat map, or the words why it could not be read."""

    method: ExplanationMethod
    images: list[ExplainedImage | str]


def explain_images(
    jobs: Sequence[ExplanationJob], reader: PixelReader, *, stall_timeout_s: float
) -> Iterator[tuple[int, ExplainedImages | OrchestratorError]]:
    """Give (index, images or error) of each job as it finishes.

    A few images are worth no GPU: each job takes one CPU.
    """
    task: Any = ray.remote(num_cpus=1, max_retries=2)(_explain)
    submissions = [partial(task.remote, job, reader) for job in jobs]
    with Watchdog("the explanations", wanted={"CPU": 1.0}, stall_timeout_s=stall_timeout_s) as watchdog:
        for index, outcome in gather(submissions, watchdog=watchdog):
            yield index, translate(outcome, "an explanation") if isinstance(outcome, Exception) else outcome


def _explain(job: ExplanationJob, reader: PixelReader) -> ExplainedImages:
    use_threads(1)
    classifier, card = load_model(job.model_uri)
    images: list[ExplainedImage | str] = []
    for row, index in enumerate(job.classes):
        pixels = _read(reader, job.rows.slice(row, 1))
        if not isinstance(pixels, str):
            output = _output(card, job.rows.column("subset")[row].as_py(), index)
            (heat_map,) = heat_maps(classifier, card.backbone, pixels[None], np.array([output]))
            images.append(ExplainedImage(pixels=pixels, heat_map=heat_map))
        else:
            images.append(pixels)
    return ExplainedImages(method=explanation_method(classifier.backbone), images=images)


def _output(card: ModelCard, subset: str, index: int) -> int:
    """Give the output of the network that speaks for a class."""
    return output_of(subset, card.classes[index], card.tasks) if card.heads == "subset" else index


def _read(reader: PixelReader, row: pa.Table) -> NDArray[np.uint8] | str:
    """Read one image [S, S, 3], or say why that cannot be done."""
    try:
        pixels: NDArray[np.uint8] = reader.read(row)[0]
    except (OrchestratorError, OSError) as error:
        return str(error)
    return pixels
