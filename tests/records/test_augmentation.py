import json

import pytest
from pydantic import ValidationError

from orchestrator.config import AugmentConfig
from orchestrator.records import Hyperparameters, Recipe

PLAIN = Hyperparameters(freeze_depth=3, learning_rate=1e-3, epochs=2)
CHOSEN = PLAIN.model_copy(update={"flip": False, "crop": 0.0, "randaugment": 2})


def test_what_was_not_chosen_is_not_written() -> None:
    recipe = Recipe(group="g", trial_id="t", metric="val_accuracy", value=0.5, hyperparameters=PLAIN)
    assert not {"flip", "crop", "colour", "randaugment", "magnitude", "erasing"} & set(PLAIN.model_dump())
    assert PLAIN.model_dump(mode="json") == json.loads(recipe.to_json())["hyperparameters"]
    assert Recipe.from_json(recipe.to_json(), source="a recipe") == recipe


def test_what_was_chosen_is_written_and_read_again_though_it_is_off() -> None:
    written = CHOSEN.model_dump_json()
    assert {"flip": False, "crop": 0.0, "randaugment": 2}.items() <= json.loads(written).items()
    assert Hyperparameters.model_validate_json(written) == CHOSEN
    assert Hyperparameters.model_validate(CHOSEN.model_dump()) == CHOSEN


def test_what_was_not_chosen_is_as_the_section_says() -> None:
    section = AugmentConfig(views=3, flip=True, crop=0.2, colour=0.1)
    assert PLAIN.augmented(section) is section
    assert CHOSEN.augmented(section) == AugmentConfig(views=0, colour=0.1, randaugment=2)


def test_heads_are_plain_where_no_chosen_augmentation_is_on() -> None:
    off = PLAIN.model_copy(update={"flip": False, "crop": 0.0, "magnitude": 5})
    assert PLAIN.is_plain and off.is_plain and not off.varies_by_choice
    assert not CHOSEN.is_plain and CHOSEN.varies_by_choice


def test_an_augmentation_beyond_its_bounds_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"less than or equal to 0\.5"):
        Hyperparameters(freeze_depth=0, learning_rate=1e-3, epochs=1, crop=0.7)
