"""Predicts with saved models in Ray Data passes: the test split of a group, or any images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from orchestrator import storage
from orchestrator.cluster.failures import translated
from orchestrator.cluster.passes import PassPlan, rehearsed_seconds, run_pass
from orchestrator.cluster.resources import observe_cluster
from orchestrator.cluster.watchdog import Watchdog, watched
from orchestrator.cluster.workers import use_threads, worker_device
from orchestrator.config import ClusterConfig, DataConfig, InputFormat
from orchestrator.data.decoding import decode_image, resize_image
from orchestrator.data.reader import PixelReader
from orchestrator.data.sources import Fragment, list_fragments, read_fragment
from orchestrator.diversity.feature_sums import DirectionSums
from orchestrator.diversity.vendi import unit_directions
from orchestrator.errors import DataError, StorageError
from orchestrator.evaluation.predictions import Predictions
from orchestrator.finetune.classifier import Classifier, predict_probabilities, predict_with_features
from orchestrator.finetune.models import load_card, load_model
from orchestrator.records import ModelCard


@dataclass(frozen=True, kw_only=True)
class InferencePlan:
    """Say which model predicts, and with what."""

    model_uri: str
    weights_digest: str
    use_gpu: bool
    stall_timeout_s: float

    @property
    def device(self) -> str:
        """Give the device of a worker."""
        return worker_device(self.use_gpu)

    @property
    def num_gpus(self) -> int | None:
        """Give the GPUs of a task that predicts."""
        return 1 if self.use_gpu else None


def predict_samples(
    blocks: Sequence[pa.Table], reader: PixelReader, plan: InferencePlan, classes: Sequence[str]
) -> tuple[Predictions, DirectionSums]:
    """Predict numbered catalogue rows, in the catalogue's order, and sum up the unit features of each class.

    Samples come from the cache, or from their files.
    """
    directions = DirectionSums(counts={}, sums={})
    truth = {label: index for index, label in enumerate(classes)}
    probabilities = np.zeros((sum(block.num_rows for block in blocks), len(classes)), dtype=np.float32)
    predict = _Predict(reader, plan)
    run = PassPlan(
        what="the test pass",
        stall_timeout_s=plan.stall_timeout_s,
        use_gpu=plan.use_gpu,
        expected_s=lambda: rehearsed_seconds(blocks, predict),
    )
    for block, found in zip(blocks, run_pass(blocks, predict, run), strict=True):
        probabilities[np.asarray(block.column("position"))] = found.probabilities
        directions += found.directions
    rows = pa.concat_tables(blocks).sort_by("position").to_pylist() if blocks else []
    predictions = Predictions(
        ids=[row["id"] for row in rows],
        subsets=[row["subset"] for row in rows],
        together=[row["together"] for row in rows],
        truth=np.array([truth[row["label"]] for row in rows], dtype=np.int64),
        probabilities=probabilities,
    )
    return predictions, directions


@dataclass(frozen=True, eq=False)
class _PredictedBlock:
    """Hold the probabilities [n, K] of a block's rows, and the sums of their unit features by class."""

    probabilities: NDArray[np.float32]
    directions: DirectionSums


@dataclass(frozen=True)
class _Predict:
    """Predict one block of catalogue rows in a worker."""

    reader: PixelReader
    plan: InferencePlan

    def __call__(self, block: pa.Table) -> _PredictedBlock:
        classifier, card = _model(self.plan.model_uri, self.plan.weights_digest)
        probabilities, features = predict_with_features(
            classifier, card.backbone, self.reader.read(block), device=self.plan.device
        )
        directions = DirectionSums.of(unit_directions(features), block.column("label").to_pylist())
        return _PredictedBlock(probabilities, directions)


@lru_cache(maxsize=2)
def _model(uri: str, weights_digest: str) -> tuple[Classifier, ModelCard]:
    # The digest is part of the key: a worker that lives on must not predict with an older model of that name.
    return load_model(uri)


def _wanted(plan: InferencePlan) -> dict[str, float]:
    return {"CPU": 1.0, "GPU": 1.0} if plan.use_gpu else {"CPU": 1.0}


def inference_plan(model_uri: str, use_gpu: bool | None) -> InferencePlan:
    """Plan to predict with a saved model on the connected cluster; `use_gpu` None is yes when that has a GPU."""
    shape = observe_cluster(elastic=False)
    return InferencePlan(
        model_uri=storage.absolute(model_uri),
        weights_digest=load_card(model_uri).weights_digest,
        use_gpu=shape.total("GPU") > 0 if use_gpu is None else use_gpu,
        stall_timeout_s=ClusterConfig().stall_timeout_s,
    )


def require_empty(output_uri: str) -> None:
    """Raise StorageError when there are files where predictions are to go; hidden ones do not count."""
    if storage.exists(output_uri) and storage.list_files(output_uri):
        raise StorageError(
            "the output of a prediction must be empty", value=output_uri, remedy="Remove it or name another."
        )


def predict_with_model(
    model_uri: str, input_uri: str, output_uri: str, *, image_column: str, format: InputFormat, use_gpu: bool | None
) -> tuple[int, int]:
    """Predict with a saved model on the connected cluster; see `inference_plan` and `predict_images`."""
    plan = inference_plan(model_uri, use_gpu)
    data = DataConfig(uri=storage.absolute(input_uri), format=format, image=image_column, path="{name}")
    return predict_images(data, storage.absolute(output_uri), plan)


def predict_images(data: DataConfig, output_uri: str, plan: InferencePlan) -> tuple[int, int]:
    """Predict any images to Parquet and give the counts of predicted and of bad images.

    One output file for each fragment of the input, written where it is predicted. Columns: file, row, label, a
    column `probability_<class>` for each class, and error, which says why an image has no prediction. Raises
    StorageError when the output is not empty.
    """
    require_empty(output_uri)
    fragments = list_fragments(data)
    listing = ray.put(fragments)
    keys = [{"fragment": fragment.key} for fragment in fragments]
    written = ray.data.from_items(keys, override_num_blocks=len(keys)).map_batches(
        _PredictFragment(data, listing, output_uri, plan), batch_size=1, num_cpus=1, num_gpus=plan.num_gpus
    )
    with (
        translated("prediction"),
        Watchdog("prediction", wanted=_wanted(plan), stall_timeout_s=plan.stall_timeout_s) as watchdog,
    ):
        counts = [(row["predicted"], row["bad"]) for row in watched(written.iter_rows(), watchdog)]
    return sum(int(predicted) for predicted, _ in counts), sum(int(bad) for _, bad in counts)


@dataclass(frozen=True)
class _PredictFragment:
    """Predict the images of one fragment in a worker and write its output file."""

    data: DataConfig
    listing: Any
    output_uri: str
    plan: InferencePlan

    def __call__(self, batch: Any) -> dict[str, Any]:
        use_threads(1)
        fragments: list[Fragment] = ray.get(self.listing)
        counts = [self._predict(fragments[int(key)]) for key in batch["fragment"]]
        return {"predicted": [predicted for predicted, _ in counts], "bad": [bad for _, bad in counts]}

    def _predict(self, fragment: Fragment) -> tuple[int, int]:
        classifier, card = _model(self.plan.model_uri, self.plan.weights_digest)
        rows = read_fragment(fragment, self.data, with_image=True)
        pixels, errors = _decode_all(rows, card)
        probabilities = predict_probabilities(classifier, card.backbone, pixels, device=self.plan.device)
        table = _prediction_table(rows, probabilities, errors, card)
        storage.write_table(storage.join(self.output_uri, f"part-{fragment.key:05d}.parquet"), table)
        return len(pixels), rows.num_rows - len(pixels)


def _decode_all(rows: pa.Table, card: ModelCard) -> tuple[NDArray[np.uint8], list[str | None]]:
    """Decode what can be decoded: the pixels of the good rows, and each row's error or None."""
    spec = card.backbone
    pixels: list[NDArray[np.uint8]] = []
    errors: list[str | None] = []
    for content in rows.column("image").to_pylist():
        try:
            if content is None:
                raise DataError("the image is missing")
            pixels.append(resize_image(decode_image(content), spec.image_size, spec.resize))
            errors.append(None)
        except DataError as error:
            errors.append(str(error))
    size = spec.image_size
    return np.stack(pixels) if pixels else np.zeros((0, size, size, 3), dtype=np.uint8), errors


def _prediction_table(
    rows: pa.Table, probabilities: NDArray[np.float32], errors: list[str | None], card: ModelCard
) -> pa.Table:
    good = np.array([error is None for error in errors], dtype=bool)
    spread = np.full((len(errors), len(card.classes)), np.nan, dtype=np.float32)
    spread[good] = probabilities
    best = spread[good].argmax(axis=1)
    labels = np.full(len(errors), None, dtype=object)
    labels[good] = np.asarray(card.classes, dtype=object)[best]
    columns = {
        "file": rows.column("file"),
        "row": rows.column("row"),
        "label": pa.array(labels, type=pa.string()),
    }
    for index, name in enumerate(card.classes):
        columns[f"probability_{name}"] = pa.array(spread[:, index], mask=~good)
    return pa.table({**columns, "error": pa.array(errors, type=pa.string())})
