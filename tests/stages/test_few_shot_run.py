"""A run in which one group has few images a class: it alone is searched otherwise, and its features are judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config import ExperimentConfig
from orchestrator.experiment_file import load_resolved
from orchestrator.pipeline import Pipeline
from orchestrator.records import Evaluation, ModelCard, Recipe, Record, SearchResult

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(300)]

NUM_STAGES = 6


@pytest.mark.slow
def test_a_group_of_few_images_has_its_own_defaults(
    profiled_experiment: Callable[..., ExperimentConfig],
) -> None:
    # The poorer group has 17 training images in its median class, the richer one 13.
    config = profiled_experiment(
        search={"num_samples": 4, "few_shot_threshold": 15, "space": {"epochs": [1, 2]}},
        evaluate={"bootstrap_samples": 200, "episodes": {"ways": 2, "shots": 1, "queries": 2, "count": 20}},
    )
    lines: list[str] = []
    Pipeline(config, say=lines.append).run()
    directory = Path(config.storage_path) / config.name
    many, few = sorted(path.name for path in (directory / "groups").iterdir() if (path / "recipe.json").exists())
    if "full" in groups_of(directory, many):
        many, few = few, many

    def read(group: str, name: str, kind: type[Record]) -> Record:
        path = directory / "groups" / group / name
        return kind.from_json(path.read_bytes(), source=str(path))

    searches = {group: read(group, "search.json", SearchResult) for group in (many, few)}
    found, other = searches[few], searches[many]
    assert isinstance(found, SearchResult) and isinstance(other, SearchResult)
    assert other.few_shot is None and {trial.hyperparameters.head for trial in other.trials} == {"linear"}
    assert found.few_shot is not None and found.few_shot.folds == 5
    assert {trial.hyperparameters.freeze_depth for trial in found.trials} == {NUM_STAGES}
    assert "prototype" in {trial.hyperparameters.head for trial in found.trials}
    assert all(trial.standard_error is not None for trial in found.trials if trial.status == "complete")
    assert all(trial.standard_error is None for trial in other.trials)
    recipe, card = read(few, "recipe.json", Recipe), read(few, "model/model.json", ModelCard)
    assert isinstance(recipe, Recipe) and isinstance(card, ModelCard)
    assert recipe.hyperparameters.head in {"prototype", "cosine"} and "few-shot defaults for" in recipe.reason
    assert card.hyperparameters == recipe.hyperparameters
    evaluation = read(few, "evaluation.json", Evaluation)
    assert isinstance(evaluation, Evaluation) and evaluation.episodes is not None
    episodes = evaluation.episodes
    # Every stage is frozen: the tuned features are the pretrained ones.
    assert episodes.tuned is not None and episodes.gain == pytest.approx(0.0, abs=1e-9)
    assert sum("few-shot defaults for" in line and line.startswith("search") for line in lines) >= 1
    assert "nearest prototype is right" in (directory / "report.html").read_text()
    # What is decided for each group is no choice of the user's when the resolved file is read again.
    again: list[str] = []
    Pipeline(load_resolved(str(directory / "config.yaml")), say=again.append).run()
    assert not [line for line in again if "trial" in line]


def groups_of(directory: Path, group: str) -> str:
    return (directory / "groups" / group / "model" / "model.json").read_text()
