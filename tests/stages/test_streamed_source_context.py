"""What final trainings learn of a source that is not wholly cached, and what depends on that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from finetune_examples import a_spec, some_hyperparameters
from group_contexts import a_context
from sample_tables import a_table, partly_cached
from test_shared_inputs import some_group
from test_source_images import images
from tiny_experiments import experiment_dict

from orchestrator import fingerprints
from orchestrator.cluster.resources import ClusterShape
from orchestrator.cluster.training import TRAIN_VERSION
from orchestrator.data.catalogue import SampleTable
from orchestrator.errors import ResourceError
from orchestrator.experiment_file import validate_experiment
from orchestrator.records import Group, Recipe
from orchestrator.stages.context import GroupContext
from orchestrator.stages.search_checks import require_searchable
from orchestrator.stages.train import model_fingerprint, training_job

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


def test_workers_that_leave_no_cpu_to_read_are_refused_before_the_search(alone: GroupContext) -> None:
    held, streamed = (
        replace(beside(alone, source), shape=ClusterShape(nodes=({"CPU": 1.0},)))
        for source in (SOURCE, partly_cached(SOURCE, 1))
    )
    require_searchable(held)
    train = alone.config.train.model_copy(update={"resources_per_worker": {"CPU": 1.0}})
    greedy = replace(streamed, config=alone.config.model_copy(update={"train": train}))
    with pytest.raises(ResourceError, match="streaming must leave one CPU"):
        require_searchable(greedy)


def test_a_source_whose_other_images_are_copies_of_the_runs_own_is_held(alone: GroupContext) -> None:
    copied = partly_cached(a_table(["dog"], pixels="target"), 0)
    source = SampleTable(pa.concat_tables([SOURCE.table, copied.table]))
    context = beside(alone, source)
    assert context.streams_source
    samples = some_group(Path(alone.run_directory.uri), "low", 4, 2)
    classes = ("cat", "dog")
    samples = replace(samples, classes=classes, companion=context.companion(classes))
    job = training_job(context, a_recipe(), samples)
    assert job.source_stream is None and not job.is_streaming
    assert job.source is not None and (job.source.num_images, job.source.num_searched) == (3, None)


def a_recipe(**changes: object) -> Recipe:
    run = some_hyperparameters(**changes)
    return Recipe(group="low", trial_id="t", metric="val_accuracy", value=None, hyperparameters=run)


def test_prototypes_alone_are_found_on_what_is_held_and_the_card_says_so(alone: GroupContext) -> None:
    classes = ("cat", "dog")
    streamed = beside(alone, partly_cached(SOURCE, 1))
    group = some_group(Path(alone.run_directory.uri), "low", 4, 2)
    samples = replace(group, classes=classes, companion=streamed.companion(classes))
    depth = alone.backbone.num_stages
    for head, is_streamed in (("prototype", False), ("cosine", True)):
        job = training_job(streamed, a_recipe(head=head, freeze_depth=depth), samples)
        assert (job.source_stream is not None) == is_streamed and job.source is not None
        assert job.source.num_images == (3 if is_streamed else 2)
        assert job.source.num_searched == (2 if is_streamed else None)
        assert job.source.batch_share == (0.5 if is_streamed else None)
    held = beside(alone, SOURCE)
    for freeze_depth, is_alone in ((depth, True), (1, False)):
        recipe = a_recipe(head="prototype", freeze_depth=freeze_depth).hyperparameters
        assert (streamed.final_source_fingerprint(recipe) == streamed.source_fingerprint) == is_alone
        assert held.final_source_fingerprint(recipe) == held.source_fingerprint


def test_models_depend_on_whether_their_source_is_streamed(alone: GroupContext) -> None:
    held, streamed = beside(alone, SOURCE), beside(alone, partly_cached(SOURCE, 1))
    recipe = a_recipe()

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
