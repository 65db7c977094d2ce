"""Where the weights were pretrained on the run's own training images, these judge no recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from finetune_examples import a_spec
from group_contexts import a_context
from sample_tables import a_table
from tiny_experiments import experiment_dict

from orchestrator.data.catalogue import data_fingerprint
from orchestrator.errors import ConfigError
from orchestrator.experiment_file import validate_experiment
from orchestrator.records import (
    Group,
    Pretraining,
    PretrainingTarget,
    StartingWeights,
)
from orchestrator.stages.context import GroupContext
from orchestrator.stages.search_checks import require_unlearnt_folds

GROUP = Group(name="low", subsets=["all"], num_images=40, score_range=(0.0, 1.0))


@pytest.fixture
def context() -> GroupContext:
    config = validate_experiment(experiment_dict("/data", "/runs", search={"few_shot_threshold": 20}))
    table = a_table(["cat", "dog"] * 20, splits=("train", "train", "val", "test"))
    return a_context(config, table, Path("/p"), a_spec(), GROUP)


def pretrained_on(context: GroupContext, data: str) -> GroupContext:
    """Give the context of a run whose weights learnt the training images of this data beside their source."""
    target = PretrainingTarget(
        data_uri="/data",
        data_fingerprint=data,
        num_images=20,
        shared_classes=["cat"],
        own_classes=["dog"],
        batch_share=0.2,
        weight=1.0,
    )
    pretraining = Pretraining(
        data_uri="/source",
        data_fingerprint="s",
        num_images=9,
        classes=["cat"],
        phases=[],
        features=None,
        trained_in="/runs/first",
        seconds=0.0,
        target=target,
    )
    return replace(context, backbone=context.backbone.model_copy(update={"pretraining": pretraining}))


def test_samples_are_learnt_where_the_weights_saw_the_same_data(context: GroupContext) -> None:
    same = pretrained_on(context, data_fingerprint(context.table.table))
    other = pretrained_on(context, "of others")
    assert [found.samples(GROUP).is_learnt for found in (context, same, other)] == [False, True, False]


def test_samples_are_learnt_where_the_weights_began_with_some_that_knew_them(context: GroupContext) -> None:
    began = pretrained_on(context, "of others")
    pretraining = began.backbone.pretraining
    assert pretraining is not None
    start = StartingWeights(source="/w", digest="d", learnt=[data_fingerprint(context.table.table)])
    known = began.backbone.model_copy(update={"pretraining": pretraining.model_copy(update={"start": start})})
    assert not began.is_learnt and replace(began, backbone=known).is_learnt


def test_folds_are_refused_where_samples_are_learnt(context: GroupContext) -> None:
    config = validate_experiment(experiment_dict("/data", "/runs", search={"folds": 3}))
    learnt = pretrained_on(replace(context, config=config), data_fingerprint(context.table.table))
    with pytest.raises(ConfigError, match=r"search\.folds must be 1 where the pretrained weights have learnt"):
        require_unlearnt_folds(learnt)
    require_unlearnt_folds(pretrained_on(replace(context, config=config), "of others"))


def test_a_small_group_whose_samples_are_learnt_keeps_its_split(context: GroupContext) -> None:
    learnt = pretrained_on(context, data_fingerprint(context.table.table))
    assert context.tuning(GROUP).search.folds > 1
    assert learnt.tuning(GROUP).search.folds == 1
    assert learnt.tuning(GROUP).few_shot is not None
