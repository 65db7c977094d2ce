"""A run that searches how samples are varied, on balanced epochs: everything that is trained hears what was chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config import ExperimentConfig
from orchestrator.pipeline import Pipeline
from orchestrator.records import Evaluation, ModelCard, Recipe, SearchResult

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(300)]


@pytest.mark.slow
@pytest.mark.long
def test_what_a_search_chose_of_augmentation_is_in_its_recipe_its_model_and_its_baselines(
    profiled_experiment: Callable[..., ExperimentConfig],
) -> None:
    space = {"freeze_depth": [3, 6], "epochs": [1], "flip": [False, True], "randaugment": [0, 2], "magnitude": [5, 15]}
    config = profiled_experiment(
        augment={"views": 0},
        cache={"activations": "always"},
        finetune={"balanced": True},
        search={"num_samples": 6, "few_shot_threshold": 0, "space": space},
        evaluate={"bootstrap_samples": 200},
    )
    lines: list[str] = []
    Pipeline(config, say=lines.append).run()
    directory = Path(config.storage_path) / config.name
    for folder in (path.parent for path in directory.glob("groups/*/recipe.json")):
        search = SearchResult.from_json((folder / "search.json").read_bytes(), source="search")
        assert not [trial for trial in search.trials if trial.status == "failed"]
        first = next(trial for trial in search.trials if trial.origin == "fixed_rule")
        assert first.hyperparameters.own_augmentations == {"flip": False, "randaugment": 0, "magnitude": 5}
        varied = {trial.hyperparameters.varies_by_choice: trial.inputs for trial in search.trials}
        assert varied == {True: "pixels", False: "activations"}
        recipe = Recipe.from_json((folder / "recipe.json").read_bytes(), source="recipe").hyperparameters
        assert set(recipe.own_augmentations) == {"flip", "randaugment", "magnitude"}
        card = ModelCard.from_json((folder / "model/model.json").read_bytes(), source="model")
        assert card.hyperparameters == recipe and card.balance is not None
        evaluation = Evaluation.from_json((folder / "evaluation.json").read_bytes(), source="evaluation")
        chosen = {found.name: found.hyperparameters.own_augmentations for found in evaluation.baselines}
        assert chosen["fixed_rule"] == {}
        assert chosen["head_only"] == chosen["from_scratch"] == recipe.own_augmentations
    assert [line for line in lines if line.startswith("train") and "Balanced epochs" in line]
    assert "Balanced epochs" in (directory / "report.html").read_text()
