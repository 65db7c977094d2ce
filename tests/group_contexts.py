"""Contexts of stages over catalogues made on the spot, without a cluster."""

from __future__ import annotations

from pathlib import Path

from workbenches import random_workbench

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import ClusterShape
from orchestrator.cluster.training import ModelJob, describe_model
from orchestrator.cluster.workers import Workbench
from orchestrator.config import ExperimentConfig
from orchestrator.data.catalogue import SampleTable, assemble, examine
from orchestrator.data.pixels import write_pixels
from orchestrator.data.reader import PixelReader
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.data.text_columns import read_tasks
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.models import save_model
from orchestrator.records import BackboneSpec, Group, GroupingRule, Groups, Hyperparameters, ModelCard, Profile
from orchestrator.runs import RunDirectory
from orchestrator.stages.context import GroupContext


def write_catalogue(config: ExperimentConfig, pixels: Path) -> SampleTable:
    """Catalogue a run's data at 32 px, with its tasks or sets of labels, and write all of its pixels."""
    is_multi_label, parts = config.data.is_multi_label, []
    for fragment in list_fragments(config.data):
        rows, tasks = read_fragment(fragment, config.data, with_image=True), read_tasks(fragment, config.data)
        part, images = examine(
            rows, config.data, fragment.key, 32, "crop", 0, 1.0, tasks, needs_label=not is_multi_label
        )
        write_pixels(str(pixels), fragment.key, images)
        parts.append(part)
    return SampleTable(assemble(parts), multi_label=is_multi_label)


def a_context(
    config: ExperimentConfig, table: SampleTable, pixels: Path, spec: BackboneSpec, group: Group
) -> GroupContext:
    """Give the context of a run of one group, whose backbone has random weights."""
    rule = GroupingRule(means=[0.0], deviations=[1.0])
    return GroupContext(
        config=config,
        run_directory=RunDirectory.of(config),
        backbone=random_workbench(spec).backbone,
        table=table,
        reader=PixelReader(data=config.data, image_size=32, resize="crop", pixels_uri=str(pixels), fragments_uri=""),
        profile=Profile(subsets=[], split="train", rarefied_to=None, seconds=0.0),
        groups=Groups(groups=[group], method="quantiles", measures=["label_entropy"], rule=rule),
        shape=ClusterShape(nodes=()),
        say=lambda line: None,
    )


def train_and_save(
    samples: GroupSamples, bench: Workbench, recipe: Hyperparameters, group: Group, folder: Path
) -> tuple[Classifier, ModelCard]:
    """Train a group's model in this process, and save it with its card as a final training does."""
    classifier = bench.classifier(samples.class_counts)
    settings = bench.settings("cpu")
    result = fine_tune(classifier, bench.backbone.spec, samples.train, samples.validation, recipe, settings)
    job = ModelJob(
        group=group.name,
        subsets=tuple(group.subsets),
        hyperparameters=recipe,
        fingerprint="",
        data_fingerprint="abc",
    )
    return classifier, save_model(str(folder), classifier, describe_model(job, samples, bench, result, ["here"], {}))
