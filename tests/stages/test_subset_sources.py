"""What a subset's own model is trained together with, and what its record depends on: without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from finetune_examples import a_spec
from group_contexts import a_context as context_of
from sample_tables import a_table
from test_source_images import images
from tiny_experiments import experiment_dict

from orchestrator.data.catalogue import SampleTable
from orchestrator.evaluation.outliers import judge_outliers
from orchestrator.evaluation.predictions import Predictions
from orchestrator.experiment_file import validate_experiment
from orchestrator.finetune.companions import Companion
from orchestrator.records import Group, Hyperparameters, Recipe, SourceUse
from orchestrator.stages.context import GroupContext
from orchestrator.stages.subset_outliers import SourceScores
from orchestrator.stages.train import joint_source, model_fingerprint

GROUP = Group.put_together("low", ["north", "south", "east"])
RECIPE = Recipe(
    group="low",
    hyperparameters=Hyperparameters(freeze_depth=1, learning_rate=0.01, epochs=2),
    trial_id="0",
    metric="val_accuracy",
    value=1.0,
)
# North and south know cats and dogs, east dogs and hens.
LABELS = ["cat", "dog"] * 8 + ["hen", "dog"] * 4
SUBSETS = ["north"] * 8 + ["south"] * 8 + ["east"] * 8


def alone(subset: str) -> Group:
    return Group.put_together(f"low/{subset}", [subset])


def a_context(source: SampleTable | None, **fields: Any) -> GroupContext:
    sections: dict[str, Any] = {} if source is None else {"source": {"uri": "/source", **fields}}
    config = validate_experiment(experiment_dict("/data", "/runs", train={"scope": "subset"}, **sections))
    table = a_table(LABELS, pixels="target", splits=("train", "train", "val", "test")).table
    place = table.schema.get_field_index("subset")
    subsets = SampleTable(table.set_column(place, "subset", pa.array(SUBSETS)))
    context = context_of(config, subsets, Path("/p"), a_spec(), GROUP)
    return context if source is None else replace(context, source=images(source, **fields))


def companion_beside(context: GroupContext, subset: str) -> tuple[Companion, SourceUse]:
    samples = context.samples(alone(subset))
    use = joint_source(context, RECIPE, samples, alone(subset)).use
    assert samples.companion is not None and use is not None
    return samples.companion, use


def test_a_subset_learns_the_source_by_its_own_classes() -> None:
    context = a_context(a_table(["cat", "dog", "hen", "owl"]))
    (north, of_north), (east, of_east) = (companion_beside(context, subset) for subset in ("north", "east"))
    # cat 0, dog 1, and behind them hen and owl; dog 0, hen 1, and behind them cat and owl.
    assert (north.samples.labels.tolist(), north.num_extra) == ([0, 1, 2, 3], 2)
    assert (east.samples.labels.tolist(), east.num_extra) == ([2, 0, 1, 3], 2)
    assert (of_north.shared_classes, of_north.num_other_classes) == (["cat", "dog"], 2)
    assert (of_east.shared_classes, of_east.num_other_classes) == (["dog", "hen"], 2)
    assert context.samples(GROUP).class_counts == (3,)


@pytest.mark.parametrize("negatives", ["none", "reject"])
def test_subsets_of_the_same_classes_share_what_is_beside_them(negatives: str) -> None:
    context = a_context(a_table(["cat", "dog", "hen"]), as_negatives=negatives)
    north, south, east = (companion_beside(context, subset)[0] for subset in GROUP.subsets)
    assert north is south and north is not east


def test_what_streams_for_subsets_of_the_same_classes_is_listed_once() -> None:
    table = a_table(["cat", "dog", "hen"]).table
    place = table.schema.get_field_index("pixel_row")
    larger = table.set_column(place, table.schema.field(place), pa.array([0, 1, -1], table.schema.field(place).type))
    context = a_context(SampleTable(larger))
    north, south, east = (context.streamed_source(context.samples(alone(name)).classes) for name in GROUP.subsets)
    assert north is not None and north is south and east is not None
    # Hens, which are not cached, are streamed as well: by the subset's own classes.
    assert (north.labels.tolist(), east.labels.tolist()) == ([0, 1, 2], [2, 0, 1])
    _, use = companion_beside(context, "north")
    assert (use.num_images, use.num_searched) == (3, 2)


def test_prototypes_of_a_subset_alone_stream_nothing_of_a_larger_source() -> None:
    table = a_table(["cat", "dog", "hen"]).table
    place = table.schema.get_field_index("pixel_row")
    larger = table.set_column(place, table.schema.field(place), pa.array([0, 1, -1], table.schema.field(place).type))
    context = a_context(SampleTable(larger))
    frozen = {"head": "prototype", "freeze_depth": context.backbone.num_stages}
    hyperparameters = RECIPE.hyperparameters.model_copy(update=frozen)
    recipe = RECIPE.model_copy(update={"hyperparameters": hyperparameters})
    found = joint_source(context, recipe, context.samples(alone("north")), alone("north"))
    assert found.stream is None and found.use is not None
    assert (found.use.num_images, found.use.num_searched, found.use.batch_share) == (2, None, None)
    assert joint_source(context, RECIPE, context.samples(alone("north")), alone("north")).stream is not None


def test_the_source_is_a_part_of_what_a_subsets_model_depends_on() -> None:
    source = a_table(["cat", "dog", "hen"])
    contexts = [
        a_context(None),
        a_context(source),
        a_context(source, batch_share=0.3),
        a_context(source, as_negatives="reject"),
        a_context(a_table(["cat", "dog", "owl"])),
    ]
    found = [model_fingerprint(context, RECIPE, alone("north")) for context in contexts]
    assert len(set(found)) == len(found)
    again = a_context(source)
    assert model_fingerprint(again, RECIPE, alone("north")) == found[1]
    assert found[1] not in {model_fingerprint(again, RECIPE, alone("south")), model_fingerprint(again, RECIPE)}


def test_a_subsets_scores_are_judged_beside_those_of_the_source() -> None:
    rng = np.random.default_rng(0)
    outlying, source = rng.random(40), rng.random(30) + 0.3
    target = Predictions(
        ids=[str(number) for number in range(40)],
        subsets=["north"] * 40,
        together=[""] * 40,
        truth=np.zeros(40, dtype=np.int64),
        probabilities=np.ones((40, 1), dtype=np.float32),
        outlier_scores=outlying,
    )
    scores = SourceScores(by_subset={"north": source}, together=[""] * 30)
    settings = {"bootstrap_samples": 100, "seed": 3}
    found = scores.judge("north", target, "reject", **settings)
    assert found == judge_outliers(outlying, source, "reject", **settings)
    assert scores.judge("south", target, "reject", **settings) is None
    assert SourceScores().judge("north", target, "none", **settings) is None
