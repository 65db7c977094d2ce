"""The search stage through the pipeline: what is kept serves later trials and runs, and finished searches help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import ROW_SCHEMA, build_rows, write_parquet_shards
from tiny_experiments import SUBSETS

from orchestrator.config import ExperimentConfig
from orchestrator.errors import ConfigError
from orchestrator.pipeline import Pipeline
from orchestrator.records import SearchCosts, SearchResult
from orchestrator.search.library import LibraryEntry

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(300)]

MakeExperiment = Callable[..., ExperimentConfig]
UP_TO_SEARCH = ["pretrain", "catalogue", "profile", "group", "search"]
ONE_GROUP = {"num_groups": 1}
# Drawn without a model of earlier results, so that two searches of one seed try the same.
PLAIN = {"sampler": "random", "num_samples": 4, "early_stopping": False}


def run(config: ExperimentConfig) -> list[str]:
    lines: list[str] = []
    Pipeline(config, say=lines.append).run(UP_TO_SEARCH)
    return lines


def directory(config: ExperimentConfig) -> Path:
    return Path(config.storage_path) / config.name


def result(config: ExperimentConfig) -> SearchResult:
    (path,) = directory(config).glob("groups/*/search.json")
    return SearchResult.from_json(path.read_bytes(), source=str(path))


def costs(config: ExperimentConfig) -> SearchCosts:
    path = directory(config) / "search" / "costs.json"
    return SearchCosts.from_json(path.read_bytes(), source=str(path))


def found(config: ExperimentConfig) -> dict[tuple[Any, ...], float | None]:
    return {
        (trial.hyperparameters.freeze_depth, trial.hyperparameters.learning_rate, trial.hyperparameters.epochs): (
            trial.value
        )
        for trial in result(config).trials
    }


@pytest.mark.slow
def test_trials_on_kept_activations_find_what_trials_on_pixels_find(
    profiled_experiment: MakeExperiment, tmp_path: Path
) -> None:
    pixels = profiled_experiment(search=PLAIN, grouping=ONE_GROUP, cache={"activations": "never"})
    run(pixels)
    assert "activations" not in {trial.inputs for trial in result(pixels).trials}
    assert not list((tmp_path / "runs" / "cache").glob("*.npy"))
    kept = profiled_experiment(
        name="kept", search={**PLAIN, "warm_start": False}, grouping=ONE_GROUP, cache={"activations": "always"}
    )
    run(kept)
    inputs = {trial.hyperparameters.freeze_depth: trial.inputs for trial in result(kept).trials}
    assert inputs == {depth: "activations" if depth > 0 else "pixels" for depth in inputs}
    assert any(depth > 0 for depth in inputs)
    assert found(kept) == pytest.approx(found(pixels), abs=0.03)


@pytest.mark.slow
def test_later_runs_use_what_is_kept_and_begin_with_what_was_found(
    profiled_experiment: MakeExperiment, tmp_path: Path
) -> None:
    always = {"activations": "always"}
    first = profiled_experiment(search=PLAIN, grouping=ONE_GROUP, cache=always)
    run(first)
    assert costs(first).computed > 0
    (entry,) = (tmp_path / "runs" / "library").iterdir()
    known = LibraryEntry.from_json(entry.read_bytes(), source=str(entry))
    recipe = known.recipe.model_copy(update={"freeze_depth": 3, "learning_rate": 0.01, "epochs": 1})
    entry.write_text(known.model_copy(update={"recipe": recipe}).to_json())
    second = profiled_experiment(name="second", search=PLAIN, grouping=ONE_GROUP, cache=always)
    lines = run(second)
    assert any("begins with the recipe of tiny" in line for line in lines)
    warm = [trial for trial in result(second).trials if trial.origin == "warm_start"]
    assert [trial.hyperparameters for trial in warm] == [recipe]
    assert costs(second).reused == costs(first).computed and costs(second).computed == 0
    assert result(second).trials[0].origin == "fixed_rule"


@pytest.mark.slow
def test_more_images_are_all_that_is_measured_and_computed(tmp_path: Path, tiny_experiment: MakeExperiment) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=10)
    config = tiny_experiment(
        data={"uri": str(data)},
        search={**PLAIN, "num_samples": 1},
        grouping=ONE_GROUP,
        cache={"activations": "always"},
        diversity={"measures": ["label_entropy", "pixel_entropy", "feature_diversity"]},
    )
    run(config)
    before = costs(config)
    partials = {path.name: path.stat().st_mtime_ns for path in (directory(config) / "profile/partials").iterdir()}
    assert before.reused == 0 and partials
    rows = [
        {**row, "id": f"new/{row['id']}"} for row in build_rows(subsets={"even": {"circle": 8, "stripe": 8}}, seed=9)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=ROW_SCHEMA), data / "added.parquet")
    run(config)
    after = costs(config)
    assert after.reused == before.computed
    assert 0 < after.computed <= before.computed / 5
    now = {path.name: path.stat().st_mtime_ns for path in (directory(config) / "profile/partials").iterdir()}
    assert partials.items() <= now.items()
    assert len(now) == len(partials) * 11 / 10


def test_a_type_that_changes_the_outputs_is_refused_and_said(profiled_experiment: MakeExperiment) -> None:
    config = profiled_experiment(
        search={**PLAIN, "num_samples": 1},
        grouping=ONE_GROUP,
        cache={"activations": "always", "dtype": "bf16", "tolerance": 1e-9},
    )
    lines = run(config)
    assert any("are kept as fp32: bf16 would change the outputs by more than cache.tolerance" in line for line in lines)


def test_trials_are_cross_validated_on_what_is_kept(profiled_experiment: MakeExperiment) -> None:
    config = profiled_experiment(
        search={**PLAIN, "num_samples": 3, "folds": 3},
        grouping=ONE_GROUP,
        cache={"activations": "always"},
        augment={"views": 2, "flip": True},
    )
    lines = run(config)
    trials = result(config).trials
    assert all(trial.standard_error is not None and trial.status == "complete" for trial in trials)
    assert {trial.inputs for trial in trials if trial.hyperparameters.freeze_depth > 0} == {"activations"}
    assert any("(standard error" in line for line in lines)
    # An epoch of a trial is one on every fold.
    epochs = sum(3 * len(trial.history) for trial in trials)
    assert sum(depth.num_epochs for depth in costs(config).depths) == pytest.approx(epochs)


def test_a_group_must_have_an_image_for_every_fold(profiled_experiment: MakeExperiment) -> None:
    config = profiled_experiment(search={**PLAIN, "folds": 1000}, grouping=ONE_GROUP)
    with pytest.raises(ConfigError, match=r"search\.folds must be at most"):
        run(config)


def test_a_budget_of_gpu_hours_needs_trials_that_hold_gpus(profiled_experiment: MakeExperiment) -> None:
    config = profiled_experiment(search={**PLAIN, "budget": {"gpu_hours": 1}}, grouping=ONE_GROUP)
    with pytest.raises(ConfigError, match=r"search\.budget\.gpu_hours must"):
        run(config)
