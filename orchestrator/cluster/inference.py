"""Predicts with saved models in Ray Data passes: the test split of a group, or any images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from orchestrator import storage
from orchestrator.cluster.failures import translated
from orchestrator.cluster.head_choice import ANY_HEAD, HeadChoice, require_head
from orchestrator.cluster.passes import PassPlan, run_pass
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
from orchestrator.evaluation.heads import by_own_heads
from orchestrator.evaluation.metrics import predict_labels
from orchestrator.evaluation.outliers import tell_outliers
from orchestrator.evaluation.predictions import OUTLIER_COLUMN
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


# Takes the positions [n] of images, their probabilities [n, K] and their outlier scores [n], if there are some.
Keep = Callable[[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64] | None], None]


def predict_rows(blocks: Sequence[pa.Table], reader: PixelReader, plan: InferencePlan, keep: Keep) -> DirectionSums:
    """Predict numbered catalogue rows, and sum up the unit features of each class.

    Samples come from the cache, or from their files. As soon as a block is done `keep` gets its positions [n] in the
    catalogue's order, the probabilities [n, K_1 + ... + K_T] of all tasks, over the classes alone where the model has
    learned to reject, and the outlier scores [n], None where the model has none. Heads of subsets are one task: a row
    has the answer of its subset's, over the group's classes. Where images have any number of labels no features are
    summed up.
    """
    directions = DirectionSums(counts={}, sums={})
    for block, found in _predicted(blocks, reader, plan, what="the test pass"):
        keep(np.asarray(block.column("position")), found.probabilities, found.outlier_scores)
        directions += found.directions
    return directions


def score_outliers(blocks: Sequence[pa.Table], reader: PixelReader, plan: InferencePlan) -> NDArray[np.float64]:
    """Give the scores [n] of catalogue rows by a model that tells what is none of its classes, block by block."""
    found = [result.outlier_scores for _, result in _predicted(blocks, reader, plan, what="the pass over the source")]
    return np.concatenate([np.zeros(0), *(scores for scores in found if scores is not None)])


def _predicted(
    blocks: Sequence[pa.Table], reader: PixelReader, plan: InferencePlan, *, what: str
) -> Iterator[tuple[pa.Table, _PredictedBlock]]:
    run = PassPlan(what=what, stall_timeout_s=plan.stall_timeout_s, use_gpu=plan.use_gpu)
    yield from zip(blocks, run_pass(blocks, _Predict(reader, plan), run), strict=True)


@dataclass(frozen=True, eq=False)
class _PredictedBlock:
    """Hold the probabilities [n, K] of a block's rows, and the sums of their unit features by class.

    `outlier_scores` [n] are None where the model has none.
    """

    probabilities: NDArray[np.float32]
    directions: DirectionSums
    outlier_scores: NDArray[np.float64] | None


@dataclass(frozen=True)
class _Predict:
    """Predict one block of catalogue rows in a worker."""

    reader: PixelReader
    plan: InferencePlan

    def __call__(self, block: pa.Table) -> _PredictedBlock:
        classifier, card = loaded_model(self.plan.model_uri, self.plan.weights_digest)
        probabilities, features = predict_with_features(
            classifier, card.backbone, self.reader.read(block), device=self.plan.device
        )
        directions = DirectionSums(counts={}, sums={})
        if not card.is_multi_label:
            directions = DirectionSums.of(unit_directions(features), block.column("label").to_pylist())
        probabilities, scores = tell_outliers(probabilities, card.negatives)
        if card.heads == "subset":
            probabilities = by_own_heads(probabilities, block.column("subset").to_pylist(), card.tasks, card.classes)
        return _PredictedBlock(probabilities, directions, scores)


@lru_cache(maxsize=2)
def loaded_model(uri: str, weights_digest: str) -> tuple[Classifier, ModelCard]:
    """Give a saved model, loaded once for each process: do not train it."""
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
    model_uri: str,
    input_uri: str,
    output_uri: str,
    *,
    image_column: str,
    format: InputFormat,
    use_gpu: bool | None,
    head: HeadChoice = ANY_HEAD,
) -> tuple[int, int]:
    """Predict with a saved model on the connected cluster; see `inference_plan` and `predict_images`.

    Raises what `HeadChoice.require_fit` raises where `head` does not tell the head of an image.
    """
    head.require_fit(load_card(model_uri))
    plan = inference_plan(model_uri, use_gpu)
    data = head.data(storage.absolute(input_uri), format, image_column)
    return predict_images(data, storage.absolute(output_uri), plan, head)


def predict_images(
    data: DataConfig, output_uri: str, plan: InferencePlan, head: HeadChoice = ANY_HEAD
) -> tuple[int, int]:
    """Predict any images to Parquet and give the counts of predicted and of bad images.

    One output file for each fragment of the input, written where it is predicted. Columns: file, row, label, a
    column `probability_<class>` for each class, `out_of_distribution` where the model tells what is none of its classes
    (see `evaluation.outliers`), and error, which says why an image has no prediction. Raises StorageError when the
    output is not empty. A further task has the columns `label[<task>]` and `probability[<task>]_<class>`. Heads of
    subsets write the columns of the group's classes, 0 for those that an image's head does not know; an image of a
    subset without a head has an error.
    Where images may have any number of labels, the column `labels` has the list of those with a probability of 0.5 or
    more, in place of label.
    """
    require_empty(output_uri)
    fragments = list_fragments(data)
    listing = ray.put(fragments)
    keys = [{"fragment": fragment.key} for fragment in fragments]
    written = ray.data.from_items(keys, override_num_blocks=len(keys)).map_batches(
        _PredictFragment(data, listing, output_uri, plan, head), batch_size=1, num_cpus=1, num_gpus=plan.num_gpus
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
    head: HeadChoice

    def __call__(self, batch: Any) -> dict[str, Any]:
        use_threads(1)
        fragments: list[Fragment] = ray.get(self.listing)
        counts = [self._predict(fragments[int(key)]) for key in batch["fragment"]]
        return {"predicted": [predicted for predicted, _ in counts], "bad": [bad for _, bad in counts]}

    def _predict(self, fragment: Fragment) -> tuple[int, int]:
        classifier, card = loaded_model(self.plan.model_uri, self.plan.weights_digest)
        rows = read_fragment(fragment, self.data, with_image=True)
        subsets = self.head.subsets(rows)
        pixels, errors = _decode_all(rows, card, subsets)
        probabilities = predict_probabilities(classifier, card.backbone, pixels, device=self.plan.device)
        if card.heads == "subset":
            own = [name or "" for name, error in zip(subsets, errors, strict=True) if error is None]
            probabilities = by_own_heads(probabilities, own, card.tasks, card.classes)
        table = prediction_table(rows, probabilities, errors, card)
        storage.write_table(storage.join(self.output_uri, f"part-{fragment.key:05d}.parquet"), table)
        return len(pixels), rows.num_rows - len(pixels)


def _decode_all(
    rows: pa.Table, card: ModelCard, subsets: Sequence[str | None]
) -> tuple[NDArray[np.uint8], list[str | None]]:
    """Decode what can be decoded and has a head: the pixels of the good rows, and each row's error or None."""
    spec = card.backbone
    pixels: list[NDArray[np.uint8]] = []
    errors: list[str | None] = []
    for content, subset in zip(rows.column("image").to_pylist(), subsets, strict=True):
        try:
            if card.heads == "subset":
                require_head(subset, card)
            if content is None:
                raise DataError("the image is missing")
            pixels.append(resize_image(decode_image(content), spec.image_size, spec.resize))
            errors.append(None)
        except DataError as error:
            errors.append(str(error))
    size = spec.image_size
    return np.stack(pixels) if pixels else np.zeros((0, size, size, 3), dtype=np.uint8), errors


def prediction_table(
    rows: pa.Table, probabilities: NDArray[np.float32], errors: list[str | None], card: ModelCard
) -> pa.Table:
    """Make the output table of rows: `predict_images` says its columns.

    `probabilities` [m, K] are those of the rows without an error, `errors` [n] say of each why it has no prediction.
    """
    probabilities, scores = tell_outliers(probabilities, card.negatives)
    good = np.array([error is None for error in errors], dtype=bool)
    columns = {"file": rows.column("file"), "row": rows.column("row")}
    parts = np.split(probabilities, np.cumsum([len(names) for names in card.predicted_classes])[:-1], axis=1)
    if card.is_multi_label:
        columns |= _columns_of_labels(card.classes, parts[0], good)
    else:
        columns |= _columns_of_task("", card.classes, parts[0], good)
    for task, part in zip(card.further_tasks, parts[1:], strict=True):
        columns |= _columns_of_task(f"[{task.task}]", task.classes, part, good)
    if scores is not None:
        outlying = np.full(len(errors), np.nan)
        outlying[good] = scores
        columns[OUTLIER_COLUMN] = pa.array(outlying, mask=~good)
    return pa.table({**columns, "error": pa.array(errors, type=pa.string())})


def _columns_of_task(
    suffix: str, classes: Sequence[str], probabilities: NDArray[np.float32], good: NDArray[np.bool_]
) -> dict[str, pa.Array]:
    """Give the columns of one task, null where a row is bad; none for a task without classes."""
    if not classes:
        return {}
    labels = np.full(len(good), None, dtype=object)
    labels[good] = np.asarray(classes, dtype=object)[probabilities.argmax(axis=1)]
    columns = {f"label{suffix}": pa.array(labels, type=pa.string())}
    return columns | _columns_of_probabilities(suffix, classes, probabilities, good)


def _columns_of_labels(
    classes: Sequence[str], probabilities: NDArray[np.float32], good: NDArray[np.bool_]
) -> dict[str, pa.Array]:
    """Give the list of labels of every image and the probability of each, null where a row is bad."""
    said = iter(predict_labels(probabilities))
    labels = [np.asarray(classes, dtype=object)[next(said)].tolist() if is_good else None for is_good in good]
    columns = {"labels": pa.array(labels, type=pa.list_(pa.string()))}
    return columns | _columns_of_probabilities("", classes, probabilities, good)


def _columns_of_probabilities(
    suffix: str, classes: Sequence[str], probabilities: NDArray[np.float32], good: NDArray[np.bool_]
) -> dict[str, pa.Array]:
    spread = np.full((len(good), len(classes)), np.nan, dtype=np.float32)
    spread[good] = probabilities
    return {f"probability{suffix}_{name}": pa.array(spread[:, index], mask=~good) for index, name in enumerate(classes)}
