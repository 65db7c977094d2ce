"""What is random in a run goes by the seed that is meant for it, and by no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import write_parquet_shards
from finetune_examples import a_spec
from group_contexts import a_context, write_catalogue
from tiny_experiments import experiment_dict

from orchestrator.data.catalogue import SampleTable
from orchestrator.experiment_file import validate_experiment
from orchestrator.records import Group
from orchestrator.runs import RunDirectory
from orchestrator.search.costs import DepthPlan
from orchestrator.search.folds import deal_folds
from orchestrator.stages.context import GroupContext
from orchestrator.stages.inputs import RunInputs
from orchestrator.stages.journals import Journal
from orchestrator.stages.kept_activations import activation_plan
from orchestrator.stages.search import engine_settings, open_study, samples_in_folds
from orchestrator.stages.shared_inputs import SharedInputs, spaces_of

GROUP = Group(name="all", subsets=["even", "plain"], num_images=80, score_range=(0.0, 1.0))
SUBSETS = {"plain": {"circle": 30, "stripe": 10}, "even": {"circle": 20, "stripe": 20}}
NUM_FOLDS = 3
SEEDS = {"split": 11, "sampler": 12, "trial": 13, "loader": 14}
RATES = {"low": 1e-5, "high": 1e-1, "log": True}
SEARCH = {
    "sampler": "random",
    "folds": NUM_FOLDS,
    "space": {"freeze_depth": [0, 3], "learning_rate": RATES, "epochs": [1, 2]},
}

Contexts = Callable[..., GroupContext]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SampleTable]:
    """Two subsets and their pixels, in one split for every test."""
    directory = tmp_path_factory.mktemp("seeds")
    data = write_parquet_shards(directory / "data", subsets=SUBSETS)
    config = validate_experiment(experiment_dict(data, directory / "runs"))
    return directory, write_catalogue(config, directory / "pixels")


@pytest.fixture
def contexts(catalogue: tuple[Path, SampleTable], tmp_path: Path) -> Contexts:
    """Make the context of a run with some of its seeds changed."""
    directory, table = catalogue

    def make(**changes: int) -> GroupContext:
        name = "-".join(["run", *changes])
        sections = {"seed": 10, "seeds": {**SEEDS, **changes}, "search": SEARCH, "grouping": {"num_groups": 1}}
        config = validate_experiment(experiment_dict(directory / "data", tmp_path / name, **sections))
        return a_context(config, table, directory / "pixels", a_spec(image_size=32), GROUP)

    return make


def inputs_of(context: GroupContext) -> SharedInputs:
    plan = DepthPlan(
        depth=0, source="pixels", epoch_s=1.0, uncached_epoch_s=1.0, build_s=0.0, stored_bytes=0, saving_s=0.0
    )
    plans = [replace(plan, depth=depth) for depth in range(context.backbone.num_stages + 1)]
    samples = samples_in_folds(context)
    return SharedInputs(samples=samples, plans=plans, index=None, probe_seconds=0.0, heads_fit=False)


def proposed(context: GroupContext, directory: Path) -> list[float]:
    """Give the rates that a group's study draws first."""
    space, inputs = spaces_of(context)[GROUP.name], inputs_of(context)
    settings = replace(engine_settings(context, inputs, {"CPU": 1.0}), seed=0)
    directory.mkdir()
    study = open_study(context, GROUP, Journal(str(directory / "study.log")), space, settings, inputs)
    return [asked[1].learning_rate for _ in range(3) if (asked := study.ask()) is not None]


def drawn(context: GroupContext, directory: Path) -> dict[str, object]:
    """Give what the parts of a run draw, or the seed that they are given."""
    # The random weights of these tests are no file of the run.
    bench = replace(context.workbench, weights_uri="none")
    return {
        "splits": RunInputs(context.config, RunDirectory.of(context.config), say=lambda line: None).ingest.seed,
        "folds": samples_in_folds(context)[GROUP.name].folds.tolist(),
        "re-splits": bench.split_seed,
        "engine": engine_settings(context, inputs_of(context), {"CPU": 1.0}).seed,
        "study": proposed(context, directory),
        "heads": bench.classifier(3).head.weight.flatten().tolist(),
        "dropout": bench.settings("cpu").seed,
        "order": bench.settings("cpu").order_seed,
        "kept views": activation_plan(context, {1: "fp32"}, expected_s=1.0).seed,
    }


def test_what_takes_a_seed_takes_the_one_that_is_meant_for_it(contexts: Contexts, tmp_path: Path) -> None:
    found = drawn(contexts(), tmp_path / "studies")
    assert (found["splits"], found["re-splits"]) == (SEEDS["split"], SEEDS["split"])
    assert found["engine"] == SEEDS["sampler"]
    assert found["dropout"] == SEEDS["trial"]
    assert (found["order"], found["kept views"]) == (SEEDS["loader"], SEEDS["loader"])


@pytest.mark.parametrize(
    ("seed", "changed"),
    [
        ("split", {"splits", "folds", "re-splits"}),
        ("sampler", {"engine", "study"}),
        ("trial", {"heads", "dropout"}),
        ("loader", {"order", "kept views"}),
    ],
)
def test_another_seed_changes_what_it_is_meant_for_and_nothing_else(
    contexts: Contexts, tmp_path: Path, seed: str, changed: set[str]
) -> None:
    one, other = drawn(contexts(), tmp_path / "one"), drawn(contexts(**{seed: 99}), tmp_path / "other")
    assert {name for name in one if one[name] != other[name]} == changed


def test_folds_are_dealt_by_the_seed_of_splits(contexts: Contexts) -> None:
    context = contexts()
    samples = context.samples(GROUP)
    labels = np.concatenate([samples.train.labels, samples.validation.labels])
    expected = deal_folds(labels, samples.units, count=NUM_FOLDS, seed=SEEDS["split"])
    np.testing.assert_array_equal(samples_in_folds(context)[GROUP.name].folds, expected)
