"""Predicts any images and corrects the probabilities for how frequent classes are among them, in passes over parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator import storage
from orchestrator.cluster.inference import inference_plan, predict_with_model, require_empty
from orchestrator.cluster.passes import PassPlan, run_pass
from orchestrator.config import InputFormat
from orchestrator.data.identity import sample_keys
from orchestrator.errors import ConfigError, DataError
from orchestrator.evaluation.class_calibration import ClassCalibration
from orchestrator.evaluation.label_shift import Source, estimate_shift
from orchestrator.evaluation.metrics import Measures, predict_classes
from orchestrator.evaluation.shift_judging import describe_frequencies
from orchestrator.evaluation.target_sums import TargetSums
from orchestrator.finetune.models import load_card
from orchestrator.finetune.validation import load_thinned_validation
from orchestrator.records import PredictedFrequencies, ShiftMethod

FREQUENCIES = "_label_shift.json"

_RAW = "_raw"
_RESAMPLES = 400
_BLOCK_PARTS = 16
# Summing up a prediction, correcting and writing it took one core 3.5 microseconds for ten classes.
_ROW_S = 5e-6


def predict_and_correct(
    model_uri: str,
    input_uri: str,
    output_uri: str,
    *,
    method: ShiftMethod,
    subset: str | None = None,
    image_column: str,
    format: InputFormat,
    use_gpu: bool | None,
) -> tuple[int, int, PredictedFrequencies]:
    """Predict with a saved model, estimate class frequencies over all images, and correct every prediction for them.

    Gives the counts of predicted and of bad images, and the frequencies. Predictions go to a hidden folder of the
    output, `_raw`, first; what the estimate needs of them is summed up part by part, and of a bounded size; then each
    part is corrected and written to its place. So no file of the output is ever without its correction, and the
    record of the frequencies, `_label_shift.json`, is written when all are there. `_raw` is removed last; of a command
    that was cut short, it and what was written from it are removed first. `subset` names the one that the images are
    of: then its validation images alone say what classes are taken for.

    To the columns of `predict_images` come `corrected_label` and a `corrected_probability_<class>` for each class.
    Raises StorageError when the output is not empty, RecordError when the model has no predictions on validation
    images, and DataError when none of these are of the subset, no image could be predicted, or the model is of any
    number of labels.
    """
    card = load_card(model_uri)
    if card.is_multi_label:
        raise DataError(
            "a correction for class frequencies needs a model of one class an image",
            value=f"{model_uri}, of any number of labels",
            remedy="Predict without --label-shift.",
        )
    if card.heads == "subset":
        raise ConfigError(
            "--label-shift must be none where subsets have heads of their own",
            value=method,
            remedy="Their classes differ: predict without it.",
        )
    plan = inference_plan(model_uri, use_gpu)
    source = Source.of(load_thinned_validation(model_uri, card, subset))
    output = storage.absolute(output_uri).rstrip("/")
    raw = storage.join(output, _RAW)
    _remove_unfinished(output, raw)
    require_empty(output)
    num_predicted, num_bad = predict_with_model(
        model_uri, input_uri, raw, image_column=image_column, format=format, use_gpu=use_gpu
    )
    if num_predicted == 0:
        raise DataError("an image must be readable to be predicted", value=f"{num_bad:,} that are not in {input_uri}")
    run = PassPlan(
        what="the correction for class frequencies",
        stall_timeout_s=plan.stall_timeout_s,
        expected_s=lambda: (num_predicted + num_bad) * _ROW_S,
    )
    blocks = _blocks([name for name in storage.list_names(raw) if name.endswith(".parquet")])
    summed = reduce(add, run_pass(blocks, _SumUp(raw, card.classes, with_probabilities=method == "em"), run))
    found = estimate_shift(source, summed.target(), method, bootstrap_samples=_RESAMPLES, seed=0)
    correct = _Correct(raw, output, card.classes, source.calibration, found.frequencies)
    record = PredictedFrequencies(
        method=method,
        subset=subset,
        weights_digest=card.weights_digest,
        num_images=sum(run_pass(blocks, correct, run)),
        num_validation=source.num_images,
        is_converged=found.is_converged,
        frequencies=describe_frequencies(card.classes, source, found),
    )
    storage.write_bytes(storage.join(output, FREQUENCIES), record.to_json().encode())
    storage.delete(raw)
    return num_predicted, num_bad, record


def _remove_unfinished(output: str, raw: str) -> None:
    """Remove what a command that was cut short has left; whatever else there is stays."""
    left = storage.list_names(raw)
    if not storage.exists(storage.join(output, FREQUENCIES)):
        for name in set(left) & set(storage.list_names(output)):
            storage.delete(storage.join(output, name))
    storage.delete(raw)


def corrected_table(
    table: pa.Table, classes: Sequence[str], calibration: ClassCalibration, frequencies: Measures
) -> pa.Table:
    """Add to a table of predictions what they are for class frequencies [K]; rows with an error get null."""
    good = _is_predicted(table)
    spread = np.full((table.num_rows, len(classes)), np.nan, dtype=np.float32)
    spread[good] = calibration.apply(_probabilities(table, classes)[good], frequencies)
    labels = np.full(table.num_rows, None, dtype=object)
    labels[good] = np.asarray(classes, dtype=object)[predict_classes(spread[good])]
    columns = {"corrected_label": pa.array(labels, type=pa.string())}
    for index, name in enumerate(classes):
        columns[f"corrected_probability_{name}"] = pa.array(spread[:, index], mask=~good)
    kept = {name: table.column(name) for name in table.column_names if name != "error"}
    return pa.table({**kept, **columns, "error": table.column("error")})


def _blocks(parts: Sequence[str]) -> list[pa.Table]:
    names = pa.table({"part": pa.array(parts, type=pa.string())})
    return [names.slice(start, _BLOCK_PARTS) for start in range(0, len(parts), _BLOCK_PARTS)]


def _is_predicted(table: pa.Table) -> NDArray[np.bool_]:
    return np.asarray(pc.is_null(table.column("error")), dtype=bool)


def _probabilities(table: pa.Table, classes: Sequence[str]) -> NDArray[np.float32]:
    columns = [np.asarray(table.column(f"probability_{name}"), dtype=np.float32) for name in classes]
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class _SumUp:
    """Sum up what an estimate needs of the predictions in some parts, in a worker."""

    raw_uri: str
    classes: Sequence[str]
    with_probabilities: bool

    def __call__(self, block: pa.Table) -> TargetSums:
        return reduce(add, (self._sum_up(name) for name in block.column("part").to_pylist()))

    def _sum_up(self, name: str) -> TargetSums:
        table = storage.read_table(storage.join(self.raw_uri, name))
        table = table.filter(pc.is_null(table.column("error")))
        rows = zip(table.column("file").to_pylist(), table.column("row").to_pylist(), strict=True)
        keys = sample_keys([f"{file}\n{row}" for file, row in rows] if self.with_probabilities else [])
        return TargetSums.of(_probabilities(table, self.classes), keys)


@dataclass(frozen=True)
class _Correct:
    """Correct the predictions in some parts in a worker, and write each to its place; give the number of images."""

    raw_uri: str
    output_uri: str
    classes: Sequence[str]
    calibration: ClassCalibration
    frequencies: Measures

    def __call__(self, block: pa.Table) -> int:
        return sum(self._correct(name) for name in block.column("part").to_pylist())

    def _correct(self, name: str) -> int:
        table = storage.read_table(storage.join(self.raw_uri, name))
        corrected = corrected_table(table, self.classes, self.calibration, self.frequencies)
        storage.write_table(storage.join(self.output_uri, name), corrected)
        return int(_is_predicted(table).sum())
