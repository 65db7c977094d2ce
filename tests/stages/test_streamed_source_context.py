"""What final trainings learn of a source that is not wholly cached, and what depends on that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from finetune_examples import a_spec, some_hyperparameters
from group_contexts import a_context
from sample_tables import a_table, partly_cached
from test_source_images import images
from tiny_experiments import experiment_dict

from orchestrator import fingerprints
from orchestrator.cluster.training import TRAIN_VERSION
from orchestrator.data.catalogue import SampleTable
from orchestrator.experiment_file import validate_experiment
from orchestrator.records import Group, Recipe
from orchestrator.stages.context import GroupContext
from orchestrator.stages.train import model_fingerprint

GROUP = Group(name="low", subsets=["all"], num_images=4, score_range=(0.0, 1.0))
SOURCE = a_table(["dog", "bird", "cat"])


@pytest.fixture
def alone(tmp_path: Path) -> GroupContext:
    config = validate_experiment(experiment_dict("/data", tmp_path / "runs", source={"uri": "/source"}))
    return a_context(config, a_table(["cat", "dog"] * 2, pixels="target"), tmp_path, a_spec(), GROUP)


def beside(context: GroupContext, source: SampleTable) -> GroupContext:
    return replace(context, source=images(source))


def test_a_source_is_streamed_over_a_groups_classes_where_it_is_not_wholly_cached(alone: GroupContext) -> None:
    held, streamed = beside(alone, SOURCE), beside(alone, partly_cached(SOURCE, 1))
    assert (alone.streams_source, held.streams_source, streamed.streams_source) == (False, False, True)
    assert alone.streamed_source(("cat", "dog")) is None and held.streamed_source(("cat", "dog")) is None
    found = streamed.streamed_source(("cat", "dog"))
    assert found is not None and found.labels.tolist() == [1, 2, 0]
    companion = streamed.companion(("cat", "dog"))
    assert companion is not None and companion.samples.labels.tolist() == [1, 0]


def test_models_depend_on_whether_their_source_is_streamed(alone: GroupContext) -> None:
    held, streamed = beside(alone, SOURCE), beside(alone, partly_cached(SOURCE, 1))
    recipe = Recipe(
        group="low", trial_id="t", metric="val_accuracy", value=None, hyperparameters=some_hyperparameters()
    )

    def as_if_held(context: GroupContext) -> str:
        return fingerprints.of_model(
            context.config,
            hyperparameters=recipe.hyperparameters,
            data=context.data_fingerprint(GROUP),
            backbone=context.backbone,
            version=TRAIN_VERSION,
            source=context.source_fingerprint,
        )

    # What was made from a wholly cached source stays up to date.
    assert [model_fingerprint(found, recipe) == as_if_held(found) for found in (held, streamed)] == [True, False]
    assert model_fingerprint(alone, recipe) == as_if_held(alone)
