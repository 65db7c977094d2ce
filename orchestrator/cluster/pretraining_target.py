"""Gives a source task the run's own training images as its companion, and says what it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator import storage
from orchestrator.cluster.ingest import read_samples
from orchestrator.config import ExperimentConfig, PretrainingTargetConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.samples import CachedSamples
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
    pixels_uri: str | None
    tells_near_copies: bool = False

    @classmethod
    def of(cls, config: ExperimentConfig, run_uri: str, catalogue: Catalogue | None) -> TargetData | None:
        """Take the samples that the run's own catalogue describes; None where they are no part of the source task."""
        if catalogue is None or config.pretrain is None or config.pretrain.with_target is None:
            return None
        return cls(
            settings=config.pretrain.with_target,
            data_uri=config.data.uri,
            catalogue=catalogue,
            table=read_samples(run_uri, catalogue),
            pixels_uri=None if catalogue.pixels is None else storage.join(run_uri, catalogue.pixels),
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

    def described(self, classes: Sequence[str]) -> PretrainingTarget:
        """Say what is learnt beside a source with these classes."""
        samples = self._samples(classes)
        found = set(samples.labels.tolist())
        return PretrainingTarget(
            data_uri=self.data_uri,
            data_fingerprint=self.catalogue.data_fingerprint,
            num_images=len(samples),
            shared_classes=[label for index, label in enumerate(classes) if index in found],
            own_classes=self._own_classes(classes),
            batch_share=self.settings.batch_share,
            weight=self.settings.weight,
        )

    def _samples(self, classes: Sequence[str]) -> CachedSamples:
        known = [*classes, *self._own_classes(classes)]
        samples = CachedSamples.of(self.table, self.table.where(split="train"), self.pixels_uri, known)
        if len(samples) == 0:
            raise DataError(
                "the run must have training images whose pixels are cached, to be pretrained on",
                value=0,
                remedy="Check data.split and data.max_cache_bytes, or leave pretrain.with_target out.",
            )
        return samples

    def _own_classes(self, classes: Sequence[str]) -> list[str]:
        """Name the classes of the training images that the source has not."""
        return sorted(set(self.table.classes(self.table.where(split="train"))) - set(classes))
