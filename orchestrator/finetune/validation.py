"""Keeps beside a model what it predicted on validation images: what telling other class frequencies needs."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow.compute as pc

from orchestrator import storage
from orchestrator.errors import DataError, RecordError
from orchestrator.evaluation.answered_images import AnsweredImages
from orchestrator.evaluation.label_shift import thinned
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.evaluation.predictions import PROBABILITIES, Predictions
from orchestrator.records import ModelCard, ModelValidation

_RECORD = "validation.json"
_TABLES = "validation"


def task_folder(model_uri: str, number: int) -> str:
    """Give where beside a model its validation predictions of a further task are kept; the first of those is 1."""
    return storage.join(model_uri, "tasks", str(number))


def has_validation(model_uri: str) -> bool:
    """Tell whether predictions on validation images are kept there."""
    return storage.exists(storage.join(model_uri, _RECORD))


def save_validation(model_uri: str, card: ModelCard, validation: PredictionParts, *, fingerprint: str) -> None:
    """Write the table of predictions below `validation/`, then `validation.json`; what stood there before goes."""
    name = f"{fingerprint}.parquet"
    uri = storage.join(model_uri, _TABLES, name)
    storage.write_table_parts(uri, (part.to_table() for part in validation.parts()))
    record = ModelValidation(
        fingerprint=fingerprint,
        weights_digest=card.weights_digest,
        table=f"{_TABLES}/{name}",
        digest=storage.digest_file(uri),
        num_images=len(validation),
    )
    storage.write_bytes(storage.join(model_uri, _RECORD), record.to_json().encode())
    for other in storage.list_names(storage.join(model_uri, _TABLES)):
        if other != name:
            storage.delete(storage.join(model_uri, _TABLES, other))


def load_thinned_validation(model_uri: str, card: ModelCard, subset: str | None = None) -> Predictions:
    """Read what a model predicted on validation images, or those of one subset: at most 20,000, at even distances.

    Raises what `load_validation_answers` raises, and DataError for a subset without validation images.
    """
    table = _checked_table(model_uri, card)
    num_images = sum(len(part) for part in _read(table, subset))
    return thinned(_read(table, subset), num_images)


def load_validation_answers(model_uri: str, card: ModelCard) -> Iterator[AnsweredImages]:
    """Read part by part which validation images a model got right, in the catalogue's order.

    Raises RecordError when there is nothing, or what there is belongs to other weights or is damaged.
    """
    table = _checked_table(model_uri, card)
    return (AnsweredImages.from_table(part) for part in storage.read_table_parts(table, without=[PROBABILITIES]))


def _checked_table(model_uri: str, card: ModelCard) -> str:
    """Give the path of the table beside a model that is of its weights and as it was written."""
    source = storage.join(model_uri, _RECORD)
    remedy = (
        "Take a model of a run, `groups/<group>/model` or one that its report names for a subset: `orchestrator "
        "evaluate` writes them beside it. Keep the folder of a model together."
    )
    if not storage.exists(source):
        raise RecordError(
            "a correction for class frequencies needs the model's predictions on validation images",
            value=f"no {_RECORD} in {model_uri}",
            remedy=remedy,
        )
    record = ModelValidation.from_json(storage.read_bytes(source), source=source)
    if record.weights_digest != card.weights_digest:
        raise RecordError(
            f"{_RECORD} must be of the weights {card.weights_digest}", value=record.weights_digest, remedy=remedy
        )
    table = storage.join(model_uri, record.table)
    if storage.digest_file(table) != record.digest:
        raise RecordError(f"{record.table} must have the digest {record.digest}", value=table, remedy=remedy)
    return table


def _read(table: str, subset: str | None) -> Iterator[Predictions]:
    """Read all predictions, or those of a subset, part by part."""
    if subset is None:
        yield from (Predictions.from_table(part) for part in storage.read_table_parts(table))
        return
    known: set[str] = set()
    for part in storage.read_table_parts(table):
        known.update(pc.unique(part.column("subset")).to_pylist())
        yield Predictions.from_table(part.filter(pc.equal(part.column("subset"), subset)))
    if subset not in known:
        raise DataError(
            "a subset must be one of the model's with validation images",
            value=subset,
            remedy=f"There are {', '.join(sorted(known))}.",
        )
