import base64
import xml.etree.ElementTree as ElementTree

import pytest
from report_examples import a_search, an_evaluation

from orchestrator.records import Report, SearchResult
from orchestrator.reporting.figures import Plot
from orchestrator.reporting.group_plots import (
    confusion_plot,
    effects_plot,
    history_plot,
    learning_curve,
    reliability_plot,
)

COLOR = "#0072B2"


def text_of(plot: Plot | None) -> str:
    assert plot is not None
    return "\n".join(ElementTree.fromstring(base64.b64decode(plot.source.split(",", 1)[1])).itertext())


def test_the_history_marks_failed_trials_only_where_there_are_some() -> None:
    assert "failed" in text_of(history_plot(a_search("low", failed=(3,)), COLOR, "low-1"))
    assert "failed" not in text_of(history_plot(a_search("low", failed=()), COLOR, "low-1"))


def test_the_best_of_the_history_follows_the_mode() -> None:
    search = a_search("low", failed=())
    values = [trial.value for trial in search.trials if trial.value is not None]
    highest = history_plot(search, COLOR, None)
    lowest = history_plot(search.model_copy(update={"mode": "min", "metric": "val_loss"}), COLOR, None)
    assert highest is not None and f"the best is {max(values):.1%}" in highest.alt
    assert lowest is not None and f"the best is {min(values):.3f}" in lowest.alt


def test_a_search_without_a_completed_trial_has_no_plot() -> None:
    search = a_search("low", num_trials=2, failed=(0, 1))
    assert history_plot(search, COLOR, None) is None
    assert effects_plot(search, COLOR, None) is None


@pytest.mark.parametrize("trials", [1, 2])
def test_few_trials_are_drawn(trials: int) -> None:
    assert history_plot(a_search("low", num_trials=trials, failed=()), COLOR, "low-0") is not None


def test_effects_show_what_varied_and_nothing_else() -> None:
    text = text_of(effects_plot(a_search("low"), COLOR, "low-1"))
    assert all(name in text for name in ("freeze depth", "learning rate", "epochs"))
    assert "batch size" not in text and "optimizer" not in text


def test_six_searched_hyperparameters_fill_two_rows() -> None:
    search = a_search("low", failed=())
    changes = [
        {"batch_size": 16 * (i + 1), "weight_decay": [0.0, 1e-4][i % 2], "optimizer": ["sgd", "adam"][i % 2]}
        for i in range(len(search.trials))
    ]
    trials = [
        trial.model_copy(update={"hyperparameters": trial.hyperparameters.model_copy(update=change)})
        for trial, change in zip(search.trials, changes, strict=True)
    ]
    text = text_of(effects_plot(SearchResult(**{**dict(search), "trials": trials}), COLOR, None))
    assert all(name in text for name in ("batch size", "weight decay", "optimizer", "sgd"))


def test_rates_are_marked_in_short_form() -> None:
    assert "1e-3" in text_of(effects_plot(a_search("low"), COLOR, None))


@pytest.mark.parametrize("factor", [1.0, 0.004, 0.2])
def test_rates_over_any_range_are_marked_without_formulas(factor: float) -> None:
    search = a_search("low", failed=())
    trials = []
    for number, trial in enumerate(search.trials):
        rate = 3e-4 * (1 + 9 * factor * number)
        recipe = trial.hyperparameters.model_copy(update={"learning_rate": rate})
        trials.append(trial.model_copy(update={"hyperparameters": recipe}))
    text = text_of(effects_plot(search.model_copy(update={"trials": trials}), COLOR, None))
    assert "$" not in text
    assert "e-4" in text or "e-3" in text


def test_the_learning_curve_names_the_epoch_that_was_kept(report: Report) -> None:
    model = report.models[0]
    assert f"the one kept, {model.best_epoch}" in text_of(learning_curve(model, COLOR))
    assert learning_curve(model.model_copy(update={"history": []}), COLOR) is None


def test_few_classes_are_named_and_counted_and_many_are_not() -> None:
    few = an_evaluation("low", ["a"], ["dog", "cat"], gains=())
    assert {"dog", "cat", str(few.confusion_matrix[0][0])} <= set(text_of(confusion_plot(few)).split())
    many = an_evaluation("low", ["a"], [f"class{i}" for i in range(200)], gains=())
    assert "class0" not in text_of(confusion_plot(many))
    assert "200 classes" in text_of(confusion_plot(many))


def test_a_class_without_test_images_is_no_error() -> None:
    evaluation = an_evaluation("low", ["a"], ["dog", "cat"], gains=())
    partial = evaluation.model_copy(update={"confusion_matrix": [[3, 1], [0, 0]]})
    plot = confusion_plot(partial)
    assert plot is not None and "3 images of 4 on the diagonal" in plot.alt


@pytest.mark.parametrize("matrix", [[], [[0, 0], [0, 0]]])
def test_without_test_images_there_is_no_confusion_matrix(matrix: list[list[int]]) -> None:
    evaluation = an_evaluation("low", ["a"], ["dog", "cat"], gains=())
    assert confusion_plot(evaluation.model_copy(update={"confusion_matrix": matrix})) is None


def test_reliability_shows_the_scaled_confidence_only_where_there_is_a_temperature() -> None:
    evaluation = an_evaluation("low", ["a"], ["dog", "cat"], gains=())
    plot = reliability_plot(evaluation, COLOR)
    assert plot is not None and "10 bins" in plot.alt and "6.2%" in plot.alt
    assert "after temperature scaling" in text_of(plot)
    bare = evaluation.model_copy(update={"calibration": None})
    assert "after temperature scaling" not in text_of(reliability_plot(bare, COLOR))
    assert reliability_plot(evaluation.model_copy(update={"reliability": []}), COLOR) is None
