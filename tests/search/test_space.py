import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from search_examples import NUM_STAGES, a_search

from orchestrator.config import AUGMENTATIONS, AugmentConfig, FineTuneConfig, Range, SpaceConfig
from orchestrator.errors import SearchError
from orchestrator.records import Hyperparameters
from orchestrator.search.space import SearchSpace

EVERYTHING = SpaceConfig(
    freeze_depth=Range(low=1, high=4),
    learning_rate=Range(low=1e-4, high=1e-2, log=True),
    epochs=[2, 8, 32],
    batch_size=Range(low=8, high=64, log=True),
    weight_decay=[0.0, 1e-4],
    optimizer=["sgd", "adamw"],
)


def hyperparameters(**changes: object) -> Hyperparameters:
    fields = {
        "freeze_depth": 3,
        "learning_rate": 1e-3,
        "epochs": 8,
        "batch_size": 32,
        "optimizer": "sgd",
        "weight_decay": 0.0,
    }
    return Hyperparameters.model_validate({**fields, **changes})


def full_space() -> SearchSpace:
    return SearchSpace.from_config(EVERYTHING, num_stages=5)


any_hyperparameters = st.builds(
    Hyperparameters,
    freeze_depth=st.integers(0, 30),
    learning_rate=st.floats(1e-9, 10),
    epochs=st.integers(1, 500),
    batch_size=st.integers(2, 4096),
    optimizer=st.sampled_from(["sgd", "adam", "adamw"]),
    weight_decay=st.floats(0, 1),
)


def test_freeze_depth_spans_all_stages_when_the_space_names_none() -> None:
    space = SearchSpace.from_config(SpaceConfig(), num_stages=5)
    assert space.distributions["freeze_depth"] == optuna.distributions.IntDistribution(0, 5)


def test_what_is_not_searched_is_done_as_the_experiment_says() -> None:
    fixed = FineTuneConfig(batch_size=24, optimizer="sgd", weight_decay=0.25)
    drawn = SearchSpace.from_config(SpaceConfig(), 5, fixed).suggest(optuna.create_study().ask())
    assert (drawn.batch_size, drawn.optimizer, drawn.weight_decay) == (24, "sgd", 0.25)


def test_every_draw_lies_inside_the_space() -> None:
    space = full_space()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        drawn = space.suggest(study.ask())
        assert space.clip(drawn) == drawn
        assert drawn.epochs in (2, 8, 32)
        assert 1 <= drawn.freeze_depth <= 4


def test_both_ends_of_an_integer_range_are_drawn() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    depths = {full_space().suggest(study.ask()).freeze_depth for _ in range(60)}
    assert depths == {1, 2, 3, 4}


@pytest.mark.parametrize("depths", [Range(low=0, high=6), [0, 6]])
def test_a_freeze_depth_beyond_the_stages_is_refused(depths: Range | list[int]) -> None:
    with pytest.raises(SearchError, match=r"freeze_depth must be at most 5.*got 6"):
        SearchSpace.from_config(SpaceConfig(freeze_depth=depths), num_stages=5)


@given(any_hyperparameters)
def test_clipping_lands_inside_and_moves_nothing_twice(given_: Hyperparameters) -> None:
    space = full_space()
    clipped = space.clip(given_)
    assert 1 <= clipped.freeze_depth <= 4
    assert 1e-4 <= clipped.learning_rate <= 1e-2
    assert clipped.epochs in (2, 8, 32)
    assert 8 <= clipped.batch_size <= 64
    assert clipped.weight_decay in (0.0, 1e-4)
    assert clipped.optimizer in ("sgd", "adamw")
    assert space.clip(clipped) == clipped


def test_clipping_takes_the_nearest_end_and_the_nearest_choice() -> None:
    clipped = full_space().clip(hyperparameters(freeze_depth=0, learning_rate=1.0, epochs=50, optimizer="adam"))
    assert clipped == hyperparameters(freeze_depth=1, learning_rate=1e-2, epochs=32, optimizer="sgd")


def test_the_nearest_learning_rate_choice_is_nearest_in_ratio() -> None:
    space = SearchSpace.from_config(SpaceConfig(learning_rate=[1e-5, 1e-2]), num_stages=5)
    # 1e-3 is a hundred times 1e-5 but a tenth of 1e-2; in differences alone 1e-5 would be nearer.
    assert space.clip(hyperparameters(learning_rate=1e-3)).learning_rate == 1e-2


def test_repeated_choices_count_once() -> None:
    distribution = SearchSpace.from_config(SpaceConfig(epochs=[3, 3, 5]), num_stages=5).distributions["epochs"]
    assert distribution == optuna.distributions.CategoricalDistribution([3, 5])


def test_a_space_of_choices_and_integers_lists_its_configurations() -> None:
    space = SearchSpace.from_config(a_search(freeze_depth=[0, 2], learning_rate=[1e-3, 1e-2]).space, NUM_STAGES)
    listed = space.configurations({}, most=12)
    assert listed is not None
    assert len({str(recipe) for recipe in listed}) == 2 * 2 * 3
    assert space.configurations({}, most=11) is None
    fixed = space.configurations({"freeze_depth": 2}, most=12) or []
    assert len(fixed) == 6
    assert {recipe.freeze_depth for recipe in fixed} == {2}


def test_a_space_with_a_continuous_range_lists_nothing_unless_it_is_fixed() -> None:
    space = SearchSpace.from_config(a_search().space, NUM_STAGES)
    assert space.configurations({}, most=10**9) is None
    assert len(space.configurations({"learning_rate": 1e-3}, most=10**9) or []) == (NUM_STAGES + 1) * 3


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("freeze_depth", 5, True),
        ("freeze_depth", 6, False),
        ("freeze_depth", 2.5, False),
        ("learning_rate", 1e-1, True),
        ("learning_rate", 0.2, False),
        ("learning_rate", "fast", False),
        ("epochs", 4, True),
        ("epochs", 3, False),
        ("batch_size", 32, False),
    ],
)
def test_a_space_holds_the_values_that_it_searches(name: str, value: object, held: bool) -> None:
    assert SearchSpace.from_config(a_search().space, NUM_STAGES).holds(name, value) is held


def test_a_space_changes_images_where_no_draw_leaves_them_alone() -> None:
    always = SearchSpace.from_config(SpaceConfig(), 5, FineTuneConfig(mixing="cutmix"))
    sometimes = SearchSpace.from_config(SpaceConfig(mixing=["none", "mixup"]), 5)
    assert always.changes_images and not sometimes.changes_images
    assert SearchSpace.from_config(SpaceConfig(), 5, FineTuneConfig(adversarial=0.01)).changes_images


@pytest.mark.parametrize("name", [*FineTuneConfig.model_fields, *AUGMENTATIONS])
def test_every_method_can_be_searched(name: str) -> None:
    default = getattr(AugmentConfig() if name in AUGMENTATIONS else FineTuneConfig(), name)
    value = 0.5 if default is None and name != "patience" else 2 if default is None else default
    space = SearchSpace.from_config(SpaceConfig.model_validate({name: [value]}), 5)
    assert list(space.distributions) == ["freeze_depth", "learning_rate", "epochs", name]
    assert getattr(space.suggest(optuna.create_study().ask()), name) == value
    assert getattr(space.clip(hyperparameters()), name) == value


def test_every_augmentation_can_be_searched_but_how_many_views_there_are() -> None:
    assert {*AUGMENTATIONS, "views"} == set(AugmentConfig.model_fields)


def test_an_augmentation_that_is_not_searched_is_left_to_its_section() -> None:
    section = AugmentConfig(views=0, flip=True, crop=0.1)
    space = SearchSpace.from_config(SpaceConfig(colour=[0.0, 0.3]), 5, augment=section)
    drawn = space.suggest(optuna.create_study().ask())
    assert drawn.own_augmentations == {"colour": drawn.colour}
    assert drawn.augmented(section) == section.model_copy(update={"colour": drawn.colour})


def test_a_recipe_that_leaves_an_augmentation_to_its_section_is_clipped_from_there() -> None:
    searched = SpaceConfig(flip=[False, True], crop=Range(low=0.05, high=0.2), randaugment=[1, 2], magnitude=[5, 15])
    section = AugmentConfig(views=0, flip=True, crop=0.15)
    common_practice = SearchSpace.from_config(searched, 5, augment=section).clip(hyperparameters())
    assert common_practice.own_augmentations == {"flip": True, "crop": 0.15, "randaugment": 1, "magnitude": 5}
    plain = SearchSpace.from_config(searched, 5, augment=AugmentConfig(views=0)).clip(hyperparameters())
    assert plain.own_augmentations == {"flip": False, "crop": 0.05, "randaugment": 1, "magnitude": 5}


def test_an_augmentation_of_an_earlier_search_is_taken_where_it_is_searched_and_else_left_out() -> None:
    earlier = hyperparameters(flip=True, crop=0.3)
    searched = SearchSpace.from_config(SpaceConfig(crop=[0.0, 0.2]), 5, augment=AugmentConfig(views=0))
    assert searched.clip(earlier).own_augmentations == {"crop": 0.2}
    assert full_space().clip(earlier).own_augmentations == {}


def test_prototypes_of_varied_samples_are_others() -> None:
    searched = SpaceConfig(head=["prototype"], freeze_depth=[5], flip=[False, True])
    space = SearchSpace.from_config(searched, 5, augment=AugmentConfig(views=0))
    listed = space.configurations({"learning_rate": 1e-3}, most=100) or []
    assert [recipe.flip for recipe in listed] == [False, True]


@pytest.mark.parametrize("name", ["clip_norm", "ema_decay", "stochastic_depth", "patience"])
def test_what_may_be_off_is_searched_as_a_range_or_with_a_choice_of_none(name: str) -> None:
    low, high = (2, 4) if name == "patience" else (0.25, 0.5)
    in_range = SearchSpace.from_config(SpaceConfig.model_validate({name: {"low": low, "high": high}}), 5)
    assert getattr(in_range.clip(hyperparameters()), name) == low
    on_or_off = SearchSpace.from_config(SpaceConfig.model_validate({name: [None, high]}), 5)
    assert getattr(on_or_off.clip(hyperparameters()), name) is None
    drawn = {getattr(on_or_off.suggest(optuna.create_study().ask()), name) for _ in range(30)}
    assert drawn == {None, high}


@pytest.mark.parametrize(
    ("searched", "fixed", "copies"),
    [
        ({}, {}, 1),
        ({}, {"ema_decay": 0.9}, 2),
        ({"ema_decay": [None, 0.9]}, {}, 2),
        ({"ema_decay": {"low": 0.5, "high": 0.9}, "regularizer": ["none", "l2_sp"]}, {}, 3),
        ({"regularizer": ["none", "l1", "l2"]}, {}, 1),
        ({}, {"regularizer": "cosine"}, 2),
        ({"ema_decay": [None]}, {"ema_decay": 0.9}, 1),
    ],
)
def test_weights_are_kept_as_often_as_some_configuration_needs(
    searched: dict[str, object], fixed: dict[str, object], copies: int
) -> None:
    space = SearchSpace.from_config(SpaceConfig.model_validate(searched), 5, FineTuneConfig.model_validate(fixed))
    assert space.copies_of_weights == copies


def test_adversarial_images_are_known_to_come_in_addition() -> None:
    assert not SearchSpace.from_config(SpaceConfig(), 5).has_adversaries
    assert SearchSpace.from_config(SpaceConfig.model_validate({"adversarial": [0.0, 0.1]}), 5).has_adversaries
    assert SearchSpace.from_config(SpaceConfig(), 5, FineTuneConfig(adversarial=0.1)).has_adversaries


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("layer_decay", [0.0], r"layer_decay must be greater than 0, got 0"),
        ("label_smoothing", {"low": 0.0, "high": 1.0}, r"label_smoothing must be less than 1, got 1"),
        ("regularizer_weight", [-1.0], r"regularizer_weight must be greater than or equal to 0, got -1"),
        ("accumulate", [0], r"accumulate must be greater than or equal to 1, got 0"),
        ("unfreeze_every", {"low": 1.0, "high": 2.5}, r"unfreeze_every must be whole numbers"),
        ("magnitude", {"low": 1.0, "high": 2.5}, r"magnitude must be whole numbers"),
        ("crop", {"low": 0.1, "high": 0.6}, r"crop must be less than or equal to 0.5, got 0.6: .* augment.crop may be"),
        ("randaugment", [0, 9], r"randaugment must be less than or equal to 8, got 9"),
    ],
)
def test_what_a_method_cannot_be_is_not_searched(name: str, values: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SpaceConfig.model_validate({name: values})


def test_fixed_task_weights_are_the_same_for_all_and_named_ones_are_searched() -> None:
    fixed = SearchSpace.from_config(EVERYTHING, 5, FineTuneConfig(task_weighting=(1.0, 0.5)))
    assert fixed.constants["task_weighting"] == (1.0, 0.5)
    named = EVERYTHING.model_copy(update={"task_weighting": ["equal", "uncertainty"]})
    assert "task_weighting" in SearchSpace.from_config(named, 5).distributions
