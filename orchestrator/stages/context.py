"""What the stages of the groups start from: records, samples, and the fingerprints of their own records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from orchestrator import fingerprints, storage
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import ClusterShape, uses_gpu
from orchestrator.cluster.tuning import SEARCH_VERSION
from orchestrator.cluster.workers import Workbench
from orchestrator.config import ExperimentConfig
from orchestrator.data.catalogue import SampleTable, data_fingerprint
from orchestrator.data.head_labels import heads_of_subsets
from orchestrator.data.identity import sample_keys, split_key
from orchestrator.data.multi_label import NO_LABEL
from orchestrator.data.reader import PixelReader
from orchestrator.data.samples import CachedSamples
from orchestrator.data.streamed_source import StreamedSource
from orchestrator.data.targets import Targets
from orchestrator.diversity.entropy import shannon_entropy
from orchestrator.errors import DataError
from orchestrator.finetune.companions import Companion
from orchestrator.records import (
    Group,
    Groups,
    Hyperparameters,
    PretrainedBackbone,
    Profile,
    Recipe,
    Record,
    TaskClasses,
)
from orchestrator.runs import RunDirectory
from orchestrator.search.few_shot import GroupCounts, Tuning, tuning_of
from orchestrator.search.rules import fixed_rule
from orchestrator.stages.distances import LabelledImages
from orchestrator.stages.sources import companion_of, is_source_streamed, streamed_source

RecordType = TypeVar("RecordType", bound=Record)


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupContext:
    """Hold what every stage of the groups needs; `say` receives lines of plain words.

    `source` has the images that groups are trained together with, if there are any.
    """

    config: ExperimentConfig
    run_directory: RunDirectory
    backbone: PretrainedBackbone
    table: SampleTable
    reader: PixelReader
    profile: Profile
    groups: Groups
    shape: ClusterShape
    say: Callable[[str], None]
    source: LabelledImages | None = None
    _digests: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _tunings: dict[str, Tuning] = field(default_factory=dict, init=False, repr=False)
    _companions: dict[tuple[str, ...], Companion] = field(default_factory=dict, init=False, repr=False)
    _streams: dict[tuple[str, ...], StreamedSource] = field(default_factory=dict, init=False, repr=False)

    @property
    def use_gpu(self) -> bool:
        """Tell whether training uses GPUs."""
        return uses_gpu(self.config.train, self.shape)

    @property
    def workbench(self) -> Workbench:
        """Give what every fine-tuning of this run shares."""
        return Workbench.of(self.config, self.backbone, self.run_directory.uri)

    def group(self, name: str) -> Group:
        """Give a group by its name."""
        return next(group for group in self.groups.groups if group.name == name)

    # Records, one folder a group.

    def path(self, group: str, *parts: str) -> str:
        """Give the path of a file of one group."""
        return self.run_directory.path("groups", group, *parts)

    def find(self, group: str, name: str, kind: type[RecordType], fingerprint: str) -> RecordType | None:
        """Give a group's record when it is up to date."""
        return self.run_directory.find(f"groups/{group}/{name}", kind, fingerprint)

    def require(self, group: str, name: str, kind: type[RecordType], fingerprint: str, *, stage: str) -> RecordType:
        """Give a group's record. Raises RecordError naming the stage to run first."""
        return self.run_directory.require(f"groups/{group}/{name}", kind, fingerprint, stage=stage)

    def write(self, group: str, name: str, record: Record) -> None:
        """Write a group's record."""
        self.run_directory.write(f"groups/{group}/{name}", record)

    def recipes(self) -> list[Recipe]:
        """Give the recipe of every group. Raises RecordError when the search has to run first."""
        return [
            self.require(group.name, "recipe.json", Recipe, self.search_fingerprint(group), stage="search")
            for group in self.groups.groups
        ]

    # Samples.

    def rows(self, group: Group, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Give the catalogue rows of a group's split, or some of their columns."""
        table = self.table.table if columns is None else self.table.table.select(columns)
        return table.take(pa.array(self._positions(group, split)))

    def samples(self, group: Group) -> GroupSamples:
        """Give a group's cached training and validation samples. Raises DataError when one of them is empty."""
        classes, tasks = self.classes(group), self.tasks(group)
        if not classes:
            raise DataError(
                "every group must have an image with a label",
                value=f"none in group {group.name}",
                remedy="Check data.label, or use fewer groups.",
            )
        targets = self.targets(classes, tasks)
        train, validation = (self.cached_samples(group, split, targets) for split in ("train", "val"))
        for split, samples in (("train", train), ("val", validation)):
            if len(samples) == 0:
                raise DataError(
                    f"every group must have samples for {split}",
                    value=f"none in group {group.name}",
                    remedy="Raise data.split.fractions, set data.verify to decode, or use fewer groups.",
                )
        return GroupSamples(
            group=group.name,
            classes=classes,
            train=train,
            validation=validation,
            units=np.concatenate([self._units(group, split) for split in ("train", "val")]),
            companion=self.companion(classes),
            tasks=tasks,
            is_learnt=self.is_learnt,
            heads=self.config.train.heads,
        )

    @cached_property
    def is_learnt(self) -> bool:
        """Tell whether the pretrained weights know the labels of these training samples."""
        pretraining = self.backbone.pretraining
        return pretraining is not None and self._own_fingerprint in pretraining.learnt

    def companion(self, classes: tuple[str, ...]) -> Companion | None:
        """Give what a group or subset with these classes is trained together with; None where there is nothing."""
        if self.source is None or self.config.source is None:
            return None
        # Thousands of subsets may have the same classes: then what they share is made, kept and sent once.
        if classes not in self._companions:
            self._companions[classes] = companion_of(self.source, self.config.source, classes, self.table)
        return self._companions[classes]

    @cached_property
    def streams_source(self) -> bool:
        """Tell whether final trainings stream the source: it is larger than what is cached of it."""
        return self.source is not None and is_source_streamed(self.source)

    def is_source_streamed(self, hyperparameters: Hyperparameters) -> bool:
        """Tell whether a final training streams the source; a single pass looks at cached images alone."""
        return self.streams_source and not hyperparameters.has_one_pass(self.backbone.num_stages)

    def streamed_source(self, classes: tuple[str, ...]) -> StreamedSource | None:
        """Give what the final training of a group with these classes streams of the source; None for nothing."""
        if self.source is None or self.config.source is None or not self.streams_source:
            return None
        if classes not in self._streams:
            self._streams[classes] = streamed_source(self.source, self.config.source, classes, self.table)
        return self._streams[classes]

    def cached_positions(self, group: Group, split: str) -> NDArray[np.int64]:
        """Give the places in the catalogue of a group's cached samples of a split, in the order of `samples`."""
        positions = self._positions(group, split)
        return positions[:0] if self.reader.pixels_uri is None else self.table.cached(positions)

    def classes(self, group: Group) -> tuple[str, ...]:
        """Give the union of the classes of a group's subsets, sorted."""
        return self.table.classes(self._positions(group, None))

    def tasks(self, group: Group) -> tuple[TaskClasses, ...]:
        """Give all tasks with the classes that occur in a group, or the heads of its subsets; nothing for one head."""
        if self.config.train.heads == "subset":
            return heads_of_subsets(self.table, group.subsets)
        first, *further = self.config.data.task_names
        if not further:
            return ()
        positions = self._positions(group, None)
        found = [
            TaskClasses(task=name, classes=list(self.table.task_classes(positions, place)))
            for place, name in enumerate(further)
        ]
        return (TaskClasses(task=first, classes=list(self.classes(group))), *found)

    def training_entropy(self, group: Group) -> float:
        """Give the label entropy of a group's training split in nats."""
        return float(shannon_entropy(self._class_counts(group)))

    def tuning(self, group: Group) -> Tuning:
        """Give how a group is fine-tuned and searched: as the experiment file says, with its own defaults if small."""
        if group.name not in self._tunings:
            finetune, search = self.config.finetune, self.config.search
            if self.is_learnt:
                # Folds would judge by images that the weights have learnt: the split stays though a group is small.
                search = search.model_copy(update={"folds": search.folds})
            counts = GroupCounts(by_class=self._taught_counts(group), num_units=lambda: self._num_units(group))
            self._tunings[group.name] = tuning_of(
                finetune,
                search,
                counts,
                num_stages=self.backbone.num_stages,
                heads=self.config.few_shot_heads,
                pulls_features=self.config.pulls_features,
            )
        return self._tunings[group.name]

    def fixed_rule(self, group: Group) -> Hyperparameters:
        """Give the fixed rule's recipe for a group, as it stands."""
        entropy = self.training_entropy(group)
        rule = fixed_rule(entropy, num_stages=self.backbone.num_stages, batch_size=self.config.finetune.batch_size)
        # It says nothing of the loss, and labels by any number have but one.
        return rule.model_copy(update={"loss": self.config.finetune.loss}) if self.config.data.is_multi_label else rule

    def _class_counts(self, group: Group) -> NDArray[np.int64]:
        """Count the training images of each class that has some."""
        return self.table.label_counts(self._positions(group, "train"))

    def _taught_counts(self, group: Group) -> NDArray[np.int64]:
        """Count the training images of each class that has some; of each head's, where subsets have heads."""
        if self.table.multi_label:
            labels = self.table.occurrences(self._positions(group, "train")).column("label")
            counts = labels.filter(pc.not_equal(labels, NO_LABEL)).combine_chunks().value_counts()
            return np.asarray(counts.field("counts"), dtype=np.int64)
        if self.config.train.heads == "column":
            return self._class_counts(group)
        positions = [self.table.where([name], "train") for name in group.subsets]
        return np.concatenate([self.table.label_counts(found) for found in positions])

    def _num_units(self, group: Group) -> int:
        units = np.concatenate([self._units(group, split) for split in ("train", "val")])
        return len(np.unique(units))

    def _units(self, group: Group, split: str) -> NDArray[np.uint64]:
        """Give a hash of what each cached sample must stay on one side of a split with: itself, or its kin."""
        rows = self.table.table.select(["id", "together"]).take(pa.array(self.cached_positions(group, split)))
        return sample_keys([split_key(row["id"], row["together"]) for row in rows.to_pylist()])

    def _positions(self, group: Group, split: str | None) -> NDArray[np.int64]:
        return self.table.where(subsets=group.subsets, split=split)

    def targets(self, classes: Sequence[str], tasks: Sequence[TaskClasses]) -> Targets:
        """Say what samples are learnt by, of these classes, and of all tasks or heads if there are several."""
        return Targets(
            classes=classes, tasks=tasks, heads=self.config.train.heads, is_multi_label=self.table.multi_label
        )

    def cached_samples(self, group: Group, split: str, targets: Targets) -> CachedSamples:
        """Give a group's cached samples of a split with these targets."""
        found = CachedSamples.of(self.table, self._positions(group, split), self.reader.pixels_uri, targets.classes)
        return replace(found, labels=targets.of(self.table, self.cached_positions(group, split)))

    # Fingerprints.

    def data_fingerprint(self, group: Group) -> str:
        """Digest the samples of a group alone: another group's new data leaves it as it is."""
        if group.name not in self._digests:
            rows = self.table.table.take(pa.array(self._positions(group, None)))
            # Trials learn from the cached samples: another choice of them makes other trials.
            cached = storage.digest_bytes([(np.asarray(rows.column("pixel_row")) >= 0).tobytes()])
            known = [sorted(group.subsets), data_fingerprint(rows), cached]
            heads = [["heads", self.config.train.heads]] if self.config.train.heads != "column" else []
            self._digests[group.name] = storage.digest(*known, *self.config.data.tasks, *heads)
        return self._digests[group.name]

    def study_fingerprint(self, group: Group) -> str:
        """Fingerprint what makes a group's trials comparable."""
        tuning = self.tuning(group)
        return fingerprints.of_study(
            self.config.model_copy(update={"finetune": tuning.finetune, "search": tuning.search}),
            group=group.name,
            data=self.data_fingerprint(group),
            backbone=self.backbone,
            version=SEARCH_VERSION,
            source=self.source_fingerprint,
        )

    @cached_property
    def source_fingerprint(self) -> str:
        """Digest the source's samples and which of them are cached; nothing without one."""
        if self.source is None:
            return ""
        cached = (np.asarray(self.source.samples.table.column("pixel_row")) >= 0).tobytes()
        # What is a copy of the run's own images is left out, whichever group has them.
        own = self.source.catalogue.data_fingerprint, storage.digest_bytes([cached]), self._own_fingerprint
        return storage.digest(*own, *(["near"] if self.config.data.deduplicate == "near" else []))

    def final_source_fingerprint(self, hyperparameters: Hyperparameters) -> str:
        """Digest what a final training learns of the source; nothing without one. A single pass streams nothing."""
        is_streamed = self.is_source_streamed(hyperparameters)
        return f"{self.source_fingerprint} streamed" if is_streamed else self.source_fingerprint

    @cached_property
    def _own_fingerprint(self) -> str:
        """Digest the samples of the whole catalogue."""
        return data_fingerprint(self.table.table)

    def search_fingerprint(self, group: Group) -> str:
        """Fingerprint a group's finished search."""
        return fingerprints.of_search(self.config, study=self.study_fingerprint(group), version=SEARCH_VERSION)
