"""Predicts any images and corrects the probabilities for how frequent classes are among them, in passes over parts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce

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
from orchestrator.finetune.validation import has_validation, load_thinned_validation, task_folder
from orchestrator.records import ModelCard, PredictedFrequencies, ShiftMethod, TaskFrequencies

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

    To the columns of `predict_images` come `corrected_label` and a `corrected_probability_<class>` for each class; of a
    further task `corrected_label[<task>]` and `corrected_probability[<task>]_<class>`, where some validation image has
    a label for it. Raises StorageError when the output is not empty, RecordError when the model has no predictions on
    validation images, and DataError when none of these are of the subset, no image could be predicted, or the model is
    of any number of labels.
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
    known = _known_tasks(model_uri, card, subset)
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
    sum_up = _SumUp(raw, [task for task, _ in known], with_probabilities=method == "em")
    summed = reduce(_added, run_pass(blocks, sum_up, run))
    corrections: list[_Correction] = []
    frequencies: list[TaskFrequencies] = []
    for (task, source), sums in zip(known, summed, strict=True):
        found = estimate_shift(source, sums.target(), method, bootstrap_samples=_RESAMPLES, seed=0)
        corrections.append(_Correction(task=task, calibration=source.calibration, frequencies=found.frequencies))
        described = TaskFrequencies(
            task=task.name,
            num_validation=source.num_images,
            is_converged=found.is_converged,
            frequencies=describe_frequencies(task.classes, source, found),
        )
        frequencies.append(described)
    first, *further = frequencies
    record = PredictedFrequencies(
        method=method,
        subset=subset,
        weights_digest=card.weights_digest,
        num_images=sum(run_pass(blocks, _Correct(raw, output, corrections), run)),
        num_validation=first.num_validation,
        is_converged=first.is_converged,
        frequencies=first.frequencies,
        tasks=further,
    )
    storage.write_bytes(storage.join(output, FREQUENCIES), record.to_json().encode())
    storage.delete(raw)
    return num_predicted, num_bad, record


@dataclass(frozen=True, kw_only=True)
class _Task:
    """Name a task as the columns of its predictions do: the first one's bear no name."""

    name: str
    classes: list[str]
    is_first: bool = False

    @property
    def suffix(self) -> str:
        """Give what follows `label` and `probability` in the names of its columns."""
        return "" if self.is_first else f"[{self.name}]"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Correction:
    """Hold what the predictions of a task are corrected by; `frequencies` are of its K classes."""

    task: _Task
    calibration: ClassCalibration
    frequencies: Measures


def _known_tasks(model_uri: str, card: ModelCard, subset: str | None) -> list[tuple[_Task, Source]]:
    """Give each task with what its estimate stands on: of further ones those that validation images are labelled for.

    Raises what `load_thinned_validation` raises for the first.
    """
    first = _Task(name=card.tasks[0].task if card.tasks else "", classes=card.classes, is_first=True)
    known = [(first, Source.of(load_thinned_validation(model_uri, card, subset)))]
    for number, task in enumerate(card.further_tasks, start=1):
        folder = task_folder(model_uri, number)
        if has_validation(folder):
            # No validation image of the subset may have a label for this task.
            with suppress(DataError):
                source = Source.of(load_thinned_validation(folder, card, subset))
                known.append((_Task(name=task.task, classes=task.classes), source))
    return known


def _added(one: list[TargetSums], other: list[TargetSums]) -> list[TargetSums]:
    return [of_one + of_other for of_one, of_other in zip(one, other, strict=True)]


def _remove_unfinished(output: str, raw: str) -> None:
    """Remove what a command that was cut short has left; whatever else there is stays."""
    left = storage.list_names(raw)
    if not storage.exists(storage.join(output, FREQUENCIES)):
        for name in set(left) & set(storage.list_names(output)):
            storage.delete(storage.join(output, name))
    storage.delete(raw)


def corrected_table(
    table: pa.Table,
    classes: Sequence[str],
    calibration: ClassCalibration,
    frequencies: Measures,
    *,
    suffix: str = "",
) -> pa.Table:
    """Add to a table of predictions what they are for class frequencies [K]; rows with an error get null.

    `suffix` names a further task as its columns do, `[<task>]`.
    """
    good = _is_predicted(table)
    spread = np.full((table.num_rows, len(classes)), np.nan, dtype=np.float32)
    spread[good] = calibration.apply(_probabilities(table, classes, suffix)[good], frequencies)
    labels = np.full(table.num_rows, None, dtype=object)
    labels[good] = np.asarray(classes, dtype=object)[predict_classes(spread[good])]
    columns = {f"corrected_label{suffix}": pa.array(labels, type=pa.string())}
    for index, name in enumerate(classes):
        columns[f"corrected_probability{suffix}_{name}"] = pa.array(spread[:, index], mask=~good)
    kept = {name: table.column(name) for name in table.column_names if name != "error"}
    return pa.table({**kept, **columns, "error": table.column("error")})


def _blocks(parts: Sequence[str]) -> list[pa.Table]:
    names = pa.table({"part": pa.array(parts, type=pa.string())})
    return [names.slice(start, _BLOCK_PARTS) for start in range(0, len(parts), _BLOCK_PARTS)]


def _is_predicted(table: pa.Table) -> NDArray[np.bool_]:
    return np.asarray(pc.is_null(table.column("error")), dtype=bool)


def _probabilities(table: pa.Table, classes: Sequence[str], suffix: str) -> NDArray[np.float32]:
    columns = [np.asarray(table.column(f"probability{suffix}_{name}"), dtype=np.float32) for name in classes]
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class _SumUp:
    """Sum up what estimates need of the predictions in some parts, in a worker: for each task in their order."""

    raw_uri: str
    tasks: Sequence[_Task]
    with_probabilities: bool

    def __call__(self, block: pa.Table) -> list[TargetSums]:
        return reduce(_added, (self._sum_up(name) for name in block.column("part").to_pylist()))

    def _sum_up(self, name: str) -> list[TargetSums]:
        table = storage.read_table(storage.join(self.raw_uri, name))
        table = table.filter(pc.is_null(table.column("error")))
        rows = zip(table.column("file").to_pylist(), table.column("row").to_pylist(), strict=True)
        keys = sample_keys([f"{file}\n{row}" for file, row in rows] if self.with_probabilities else [])
        return [TargetSums.of(_probabilities(table, task.classes, task.suffix), keys) for task in self.tasks]


@dataclass(frozen=True)
class _Correct:
    """Correct the predictions in some parts in a worker, and write each to its place; give the number of images."""

    raw_uri: str
    output_uri: str
    corrections: Sequence[_Correction]

    def __call__(self, block: pa.Table) -> int:
        return sum(self._correct(name) for name in block.column("part").to_pylist())

    def _correct(self, name: str) -> int:
        table = storage.read_table(storage.join(self.raw_uri, name))
        for found in self.corrections:
            task = found.task
            table = corrected_table(table, task.classes, found.calibration, found.frequencies, suffix=task.suffix)
        storage.write_table(storage.join(self.output_uri, name), table)
        return int(_is_predicted(table).sum())
