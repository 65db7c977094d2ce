import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from search_examples import a_trial

from orchestrator.errors import RecordError
from orchestrator.records import Hyperparameters, RaceRun, SearchResult
from orchestrator.search.library import GroupProfile, LibraryEntry, best_so_far, nearest


def a_recipe(rate: float = 1e-3, depth: int = 3) -> Hyperparameters:
    return Hyperparameters(
        freeze_depth=depth, learning_rate=rate, epochs=10, batch_size=32, optimizer="adam", weight_decay=0.0
    )


def a_profile(measures: dict[str, float] | None = None, **changes: object) -> GroupProfile:
    fields = {"num_classes": 10, "num_images": 1000, "backbone": "resnet18", "num_stages": 6, "image_size": 96}
    return GroupProfile(measures={"label_entropy": 2.0} if measures is None else measures, **{**fields, **changes})


def an_entry(name: str, measures: dict[str, float] | None = None, rate: float | None = None, **changes: object):
    fields = {
        "experiment": "earlier",
        "group": name,
        "measures": {"label_entropy": 2.0} if measures is None else measures,
        "num_classes": 10,
        "num_images": 1000,
        "backbone": "resnet18",
        "weights_digest": "abc",
        "num_stages": 6,
        "image_size": 96,
        "metric": "val_accuracy",
        # By default every entry has a recipe of its own.
        "recipe": a_recipe(rate or 1e-5 * (1 + sum(map(ord, name)))),
        "value": 0.8,
        "curve": [(1.0, 0.5), (3.0, 0.8)],
        "seconds": 3.0,
        "created": 100.0,
    }
    return LibraryEntry.model_validate({**fields, **changes})


def names(entries: list[LibraryEntry]) -> list[str]:
    return [entry.group for entry in entries]


def test_the_most_alike_entries_come_first() -> None:
    entries = [an_entry(name, {"label_entropy": value}) for name, value in [("a", 0.5), ("b", 2.2), ("c", 1.7)]]
    assert names(nearest(a_profile(), entries, k=2)) == ["b", "c"]


def test_measures_count_by_their_range_not_their_unit() -> None:
    far = an_entry("far", {"label_entropy": 2.0, "feature_diversity": 100.0})
    near = an_entry("near", {"label_entropy": 1.0, "feature_diversity": 50.0})
    end = an_entry("end", {"label_entropy": 0.0, "feature_diversity": 21.0})
    # In plain units the end would come first, 30 of diversity drowning 2 of entropy.
    # In ranges: near (0.5 + 0.375) / 2, far (0 + 1) / 2, end (1 + 0.0125) / 2.
    target = a_profile({"label_entropy": 2.0, "feature_diversity": 20.0})
    assert names(nearest(target, [far, near, end])) == ["near", "far", "end"]


def test_sizes_count_by_their_ratio() -> None:
    # In differences 100 images are nearer to 1,000 than 5,000 are; in ratios 5,000 are.
    entries = [an_entry("fewer", num_images=100), an_entry("more", num_images=5000)]
    assert names(nearest(a_profile(), entries)) == ["more", "fewer"]
    classes = [an_entry("fewer", num_classes=2), an_entry("more", num_classes=20)]
    assert names(nearest(a_profile(num_classes=10), classes)) == ["more", "fewer"]


def test_a_missing_measure_brings_neither_nearer_nor_farther() -> None:
    both = an_entry("both", {"label_entropy": 1.9, "pixel_entropy": 4.0})
    one = an_entry("one", {"label_entropy": 1.0})
    other = an_entry("other", {"pixel_entropy": 5.0})
    target = a_profile({"label_entropy": 2.0, "pixel_entropy": 4.0})
    assert names(nearest(target, [one, other, both])) == ["both", "one", "other"]
    assert names(nearest(a_profile({}), [one, other, both], k=9)) == ["both", "one", "other"], "sizes alone: all tie"


def test_a_measure_that_is_not_a_number_is_as_good_as_missing() -> None:
    entries = [an_entry("a", {"label_entropy": 0.5}), an_entry("b", {"label_entropy": 1.0}, num_images=2000)]
    assert names(nearest(a_profile({"label_entropy": math.nan}), entries)) == names(nearest(a_profile({}), entries))


def test_one_entry_is_the_nearest_whatever_its_measures() -> None:
    (only,) = nearest(a_profile({"label_entropy": 5.0}), [an_entry("a", num_images=10)])
    assert only.group == "a"
    assert nearest(a_profile(), []) == []


def test_identical_profiles_go_by_cost_then_by_age() -> None:
    entries = [
        an_entry("dear", seconds=9.0, created=1.0),
        an_entry("late", seconds=2.0, created=8.0),
        an_entry("early", seconds=2.0, created=7.0),
    ]
    assert names(nearest(a_profile(), entries)) == ["early", "late", "dear"]


def test_equal_recipes_are_given_once() -> None:
    entries = [
        an_entry("a", {"label_entropy": 2.0}, rate=1e-3),
        an_entry("b", {"label_entropy": 2.1}, rate=1e-3),
        an_entry("c", {"label_entropy": 3.0}, rate=1e-2),
    ]
    assert names(nearest(a_profile(), entries, k=2)) == ["a", "c"]


@pytest.mark.parametrize(
    "other",
    [
        {"backbone": "resnet50"},
        {"num_stages": 5},
        {"image_size": 224},
        {"image_size": 47},
        {"recipe": a_recipe(depth=7)},
    ],
)
def test_entries_of_another_kind_of_backbone_are_passed_over(other: dict[str, object]) -> None:
    assert names(nearest(a_profile(), [an_entry("other", **other), an_entry("same", num_images=5)])) == ["same"]


@pytest.mark.parametrize("image_size", [48, 192])
def test_images_up_to_twice_as_large_or_small_count(image_size: int) -> None:
    assert names(nearest(a_profile(), [an_entry("scaled", image_size=image_size)])) == ["scaled"]


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(["x", "y", "z"]), st.floats(-1e3, 1e3), max_size=3),
            st.integers(1, 10**6),
            st.integers(1, 500),
        ),
        max_size=8,
    ),
    st.dictionaries(st.sampled_from(["x", "y", "z"]), st.floats(-1e3, 1e3), max_size=3),
    st.randoms(use_true_random=False),
)
def test_the_nearest_do_not_depend_on_the_order_of_the_library(drawn, measures, random) -> None:
    entries = [
        an_entry(f"g{index}", known, rate=1e-4 * (index + 1), num_images=images, num_classes=classes)
        for index, (known, images, classes) in enumerate(drawn)
    ]
    found = nearest(a_profile(measures), entries)
    random.shuffle(entries)
    assert nearest(a_profile(measures), entries) == found
    assert len(found) == min(3, len(entries))


def test_an_entry_of_the_very_same_profile_is_the_nearest() -> None:
    measures = {"label_entropy": 1.5, "pixel_entropy": 4.2, "feature_diversity": 31.0}
    others = [an_entry(f"o{index}", {name: value + index for name, value in measures.items()}) for index in (1, 2, 3)]
    assert names(nearest(a_profile(measures), [*others, an_entry("same", measures)], k=1)) == ["same"]


def test_an_entry_goes_through_json_unchanged() -> None:
    entry = an_entry("a", {"label_entropy": 1 / 3})
    assert LibraryEntry.from_json(entry.to_json(), source="library") == entry
    with pytest.raises(RecordError, match="the library must be a LibraryEntry"):
        LibraryEntry.from_json("{}", source="the library")


def test_an_entry_with_a_measure_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        an_entry("a", {"label_entropy": math.inf})


def a_result(mode: str = "max") -> SearchResult:
    trials = [
        a_trial(a_recipe(1e-3), 0.5, started=0.0, seconds=4.0),
        a_trial(a_recipe(2e-3), 0.4, started=1.0, seconds=1.0),
        a_trial(a_recipe(3e-3), None, started=2.0, seconds=0.5, status="failed", error="out of memory"),
        a_trial(a_recipe(4e-3), 0.7, started=3.0, seconds=2.0, status="stopped"),
    ]
    race = [
        RaceRun(group="low", recipe="low-0", hyperparameters=a_recipe(), resplit=0, value=0.6, seconds=10.0),
    ]
    metric = "val_accuracy" if mode == "max" else "val_loss"
    return SearchResult(fingerprint="f1", group="low", metric=metric, mode=mode, trials=trials, race=race)


def test_the_curve_follows_the_order_in_which_trials_ended() -> None:
    assert best_so_far(a_result()) == [(1.0, 0.4), (5.5, 0.5), (7.5, 0.7)]
    assert best_so_far(a_result("min")) == [(1.0, 0.4), (5.5, 0.4), (7.5, 0.4)]


def test_the_entry_of_a_search_holds_its_recipe_curve_and_whole_cost() -> None:
    result = a_result()
    profile = a_profile({"label_entropy": 1.0, "pixel_entropy": math.nan}, num_images=321)
    entry = LibraryEntry.of_search(
        "shop", result, a_recipe(4e-3), 0.7, profile=profile, weights_digest="w", created=12.0
    )
    assert (entry.fingerprint, entry.experiment, entry.group, entry.num_images) == ("f1", "shop", "low", 321)
    assert entry.measures == {"label_entropy": 1.0}
    assert (entry.recipe, entry.value, entry.seconds) == (a_recipe(4e-3), 0.7, 17.5)
    assert entry.curve == best_so_far(result)
    assert nearest(profile, [entry]) == [entry]
