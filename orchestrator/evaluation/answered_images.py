"""Which images a model and others got right: what comparisons need of a table of predictions, part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.errors import RecordError
from orchestrator.evaluation.paired_answers import Correct, PairedAnswers, add_up_by_name
from orchestrator.evaluation.predictions import answers_of_table, baselines_of_table


@dataclass(frozen=True, kw_only=True, eq=False)
class AnsweredImages:
    """Hold which of n images a model got right, and which its baselines, by name; `together` is empty without kin."""

    ids: pa.ChunkedArray
    subsets: pa.ChunkedArray
    together: pa.ChunkedArray
    correct: Correct
    baselines: Mapping[str, Correct]

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Read what `Predictions.to_table` made; it may lack probabilities. Raises RecordError for another form."""
        return cls(
            correct=answers_of_table(table),
            baselines=baselines_of_table(table),
            ids=table.column("id"),
            subsets=table.column("subset"),
            together=table.column("together"),
        )

    def by_subset(self) -> Iterator[tuple[str, Self]]:
        """Give each subset that has images, and them in their order."""
        for name, places in places_by(self.subsets).items():
            yield name, self._at(places)

    def _at(self, places: NDArray[np.int64]) -> Self:
        rows = pa.array(places)
        return replace(
            self,
            correct=self.correct[places],
            baselines={name: correct[places] for name, correct in self.baselines.items()},
            ids=self.ids.take(rows),
            subsets=self.subsets.take(rows),
            together=self.together.take(rows),
        )


def in_order(parts: Iterable[AnsweredImages], ids: pa.ChunkedArray) -> Iterator[AnsweredImages]:
    """Give the parts again. Raises RecordError where all together they are not of these images [n] in this order."""
    seen = 0
    for part in parts:
        if not part.ids.equals(ids.slice(seen, len(part.ids))):
            raise _other_images(f"others from image {seen} on")
        seen += len(part.ids)
        yield part
    if seen != len(ids):
        raise _other_images(f"{seen} images of {len(ids)}")


def add_up_by_subset(parts: Iterable[AnsweredImages]) -> dict[str, PairedAnswers]:
    """Add up, for each subset that has images, what the model and its baselines got right."""
    return add_up_by_name(
        (name, PairedAnswers.of(images.correct, images.baselines, images.together))
        for part in parts
        for name, images in part.by_subset()
    )


def right_by_subset(parts: Iterable[AnsweredImages]) -> dict[str, Correct]:
    """Tell, for each subset that has images, which of them the model got right, in their order: a byte an image."""
    found: dict[str, list[Correct]] = {}
    for part in parts:
        for name, images in part.by_subset():
            found.setdefault(name, []).append(images.correct)
    return {name: np.concatenate(correct) for name, correct in found.items()}


def places_by(names: pa.ChunkedArray) -> dict[str, NDArray[np.int64]]:
    """Give by name the places, ascending, where it stands among the names [n]: with thousands of them in one scan."""
    encoded = names.combine_chunks().dictionary_encode()
    codes, known = np.asarray(encoded.indices), encoded.dictionary.to_pylist()
    order = np.argsort(codes, kind="stable").astype(np.int64)
    parts = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    return {known[codes[part[0]]]: part for part in parts if len(part)}


def _other_images(value: str) -> RecordError:
    return RecordError(
        "predictions must be of the catalogue's images, in its order",
        value=value,
        remedy="Run the evaluation again.",
    )
