import pytest
from search_examples import a_trial

from orchestrator.errors import SearchError
from orchestrator.records import Hyperparameters, SearchResult, Trial
from orchestrator.search.winner import choose_recipe


def config(freeze_depth: int = 2, epochs: int = 10) -> Hyperparameters:
    return Hyperparameters(
        freeze_depth=freeze_depth,
        learning_rate=1e-3,
        epochs=epochs,
        batch_size=32,
        optimizer="adam",
        weight_decay=0,
    )


def result(*trials: Trial, mode: str = "max") -> SearchResult:
    named = [trial.model_copy(update={"trial_id": f"low-{i}"}) for i, trial in enumerate(trials)]
    metric = "val_accuracy" if mode == "max" else "val_loss"
    return SearchResult(group="low", metric=metric, mode=mode, trials=named)


def test_the_best_value_wins_in_either_mode() -> None:
    trials = [a_trial(config(), 0.6), a_trial(config(), 0.9), a_trial(config(), 0.3)]
    assert choose_recipe(result(*trials)).trial_id == "low-1"
    assert choose_recipe(result(*trials, mode="min")).trial_id == "low-2"


@pytest.mark.parametrize("mode", ["max", "min"])
def test_of_equal_values_the_deeper_freeze_wins_then_fewer_epochs_then_the_earlier(mode: str) -> None:
    trials = [
        a_trial(config(freeze_depth=2, epochs=5)),
        a_trial(config(freeze_depth=4, epochs=20)),
        a_trial(config(freeze_depth=4, epochs=10)),
        a_trial(config(freeze_depth=4, epochs=10)),
    ]
    recipe = choose_recipe(result(*trials, mode=mode))
    assert recipe.trial_id == "low-2"
    assert recipe.hyperparameters == config(freeze_depth=4, epochs=10)


def test_failed_trials_never_win() -> None:
    failed = a_trial(config(), None, status="failed", error="the loss is not finite")
    assert choose_recipe(result(failed, a_trial(config(), 0.1))).trial_id == "low-1"


def test_without_a_completed_trial_the_error_lists_what_went_wrong() -> None:
    failed = a_trial(config(), None, status="failed", error="the loss is not finite")
    lost = a_trial(config(), None, status="failed", error="out of memory")
    with pytest.raises(SearchError, match=r"group low.*not finite \(2x\); out of memory \(1x\)"):
        choose_recipe(result(failed, failed, lost))


def test_a_search_that_never_ran_says_so() -> None:
    with pytest.raises(SearchError, match="0 trials, errors: none"):
        choose_recipe(result())
