"""Gives a source task the run's own training images as its companion, and says what it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.cluster.ingest import read_samples
from orchestrator.config import ExperimentConfig, PretrainingTargetConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.reader import PixelReader
from orchestrator.data.samples import CachedSamples
from orchestrator.data.streamed_source import READ_COLUMNS, StreamedSource
from orchestrator.errors import DataError
from orchestrator.finetune.companions import Companion
from orchestrator.records import Catalogue, PretrainingTarget


@dataclass(frozen=True, kw_only=True)
class TargetData:
    """Hold the run's own samples; of them a source task learns the training split alone."""

    settings: PretrainingTargetConfig
    data_uri: str
    catalogue: Catalogue
    table: SampleTable
    reader: PixelReader
    tells_near_copies: bool = False

    @classmethod
    def of(cls, config: ExperimentConfig, run_uri: str, own: tuple[Catalogue, PixelReader] | None) -> TargetData | None:
        """Take the samples that the run's own catalogue describes; None where they are no part of the source task."""
        if own is None or config.pretrain is None or config.pretrain.with_target is None:
            return None
        catalogue, reader = own
        return cls(
            settings=config.pretrain.with_target,
            data_uri=config.data.uri,
            catalogue=catalogue,
            table=read_samples(run_uri, catalogue),
            reader=reader,
            tells_near_copies=config.data.deduplicate == "near",
        )

    @property
    def fingerprint(self) -> str:
        """Tell the samples, which of them are cached, and how their copies are told, from others."""
        near = " near" if self.tells_near_copies else ""
        return f"{self.catalogue.data_fingerprint} {self.catalogue.num_cached}{near}"

    def companion(self, classes: Sequence[str]) -> Companion:
        """Give the cached training images, labelled by the outputs of a head that begins with the source's classes.

        Raises DataError when there is none.
        """
        samples = self._samples(classes)
        return Companion(
            samples=samples,
            num_extra=len(self._own_classes(classes)),
            batch_share=self.settings.batch_share,
            weight=self.settings.weight,
        )

    @property
    def is_streamed(self) -> bool:
        """Tell whether the training images are streamed: some of them are not cached."""
        return not self.table.are_cached(self._training)

    def stream(self, classes: Sequence[str]) -> StreamedSource | None:
        """Give all training images, labelled as those of the companion are, where not all of them are cached."""
        if not self.is_streamed:
            return None
        rows = self.table.table.select(READ_COLUMNS).take(pa.array(self._training))
        return StreamedSource.of(rows, self._targets(classes), self.reader)

    def described(self, classes: Sequence[str]) -> PretrainingTarget:
        """Say what is learnt beside a source with these classes."""
        labels = self._targets(classes) if self.is_streamed else self._samples(classes).labels
        found = set(labels.tolist())
        return PretrainingTarget(
            data_uri=self.data_uri,
            data_fingerprint=self.catalogue.data_fingerprint,
            num_images=len(labels),
            shared_classes=[label for index, label in enumerate(classes) if index in found],
            own_classes=self._own_classes(classes),
            batch_share=self.settings.batch_share,
            weight=self.settings.weight,
        )

    def _samples(self, classes: Sequence[str]) -> CachedSamples:
        known = [*classes, *self._own_classes(classes)]
        samples = CachedSamples.of(self.table, self._training, self.reader.pixels_uri, known)
        if len(samples) == 0:
            raise DataError(
                "the run must have training images whose pixels are cached, to be pretrained on",
                value=0,
                remedy="Check data.split and data.max_cache_bytes, or leave pretrain.with_target out.",
            )
        return samples

    def _targets(self, classes: Sequence[str]) -> NDArray[np.int64]:
        return self.table.class_indices(self._training, [*classes, *self._own_classes(classes)])

    def _own_classes(self, classes: Sequence[str]) -> list[str]:
        """Name the classes of the training images that the source has not."""
        return sorted(set(self.table.classes(self._training)) - set(classes))

    @property
    def _training(self) -> NDArray[np.int64]:
        return self.table.where(split="train")
