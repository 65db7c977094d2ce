"""Plots of one group: its search, the training of its winner, and its test predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray

from orchestrator.config import AUGMENTATIONS, FineTuneConfig
from orchestrator.records import ConfidenceBin, Evaluation, ModelCard, SearchResult, Trial
from orchestrator.reporting.figures import (
    FULL_WIDTH,
    HALF_WIDTH,
    INK,
    MUTED,
    Plot,
    draw_plot,
    label,
    panels,
)
from orchestrator.reporting.wording import METRIC_TITLES, counted, in_words, metric_value, percent, rate

MOST_NAMED_CLASSES = 30
MOST_WRITTEN_CLASSES = 12
HALF_HEIGHT = 4.4
FAILURE = "#D55E00"

_SEARCHED = ("freeze_depth", "learning_rate", "epochs", *FineTuneConfig.model_fields, *AUGMENTATIONS)
_MAY_BE_OFF = tuple(name for name, field in FineTuneConfig.model_fields.items() if field.default is None)
_LOGARITHMIC = ("learning_rate", "weight_decay", "regularizer_weight", "clip_norm")
_COLUMNS = 3


def history_plot(search: SearchResult, color: str, best_id: str | None) -> Plot | None:
    """Draw each trial's value in the order they were asked, and the best so far; None when none completed."""
    completed = _completed(search)
    if not completed:
        return None
    orders = {trial.trial_id: position for position, trial in enumerate(search.trials, start=1)}

    def draw(figure: Figure) -> None:
        (axes,) = panels(figure, 1, 1)
        for trial, value in completed:
            _draw_trial(axes, orders[trial.trial_id], value, trial, color, is_best=trial.trial_id == best_id)
        for trial in search.trials:
            if trial.status == "failed":
                _draw_failure(axes, orders[trial.trial_id])
        steps = _best_so_far(search, completed)
        places = [orders[trial.trial_id] for trial, _ in completed] + [len(search.trials)]
        axes.step(places, [*steps, steps[-1]], where="post", color=INK, linewidth=1.2, zorder=1)
        _label_metric(axes, search.metric)
        axes.set_xlabel("trial, in the order asked")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.4, len(search.trials) + 0.6)
        axes.grid(axis="y")
        figure.legend(handles=_legend(search, color), loc="outside upper left", ncols=5)

    best = _best_so_far(search, completed)[-1]
    alt = (
        f"{METRIC_TITLES[search.metric]} of {counted(len(completed), 'completed trial')} in the order asked; "
        f"the best is {metric_value(best, search.metric)}"
    )
    return draw_plot(draw, width=FULL_WIDTH, height=2.7, alt=alt)


def effects_plot(search: SearchResult, color: str, best_id: str | None) -> Plot | None:
    """Draw the value against every hyperparameter that varied; None when none did among completed trials."""
    completed = _completed(search)
    varied = [name for name in _SEARCHED if len({getattr(trial.hyperparameters, name) for trial, _ in completed}) > 1]
    if not varied:
        return None
    rows = math.ceil(len(varied) / _COLUMNS)
    columns = min(len(varied), _COLUMNS)

    def draw(figure: Figure) -> None:
        grid = panels(figure, rows, columns, sharey=True)
        for axes, name in zip(grid, varied, strict=False):
            for trial, value in completed:
                x = _on_axis(trial, name)
                _draw_trial(axes, x, value, trial, color, is_best=trial.trial_id == best_id)
            _scale_dimension(axes, name, [_on_axis(trial, name) for trial, _ in completed])
        for axes in grid[len(varied) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            _label_metric(axes, search.metric)

    against = ", ".join(in_words(name) for name in varied)
    alt = f"{METRIC_TITLES[search.metric]} against {against}; each dot is a trial"
    return draw_plot(draw, width=FULL_WIDTH, height=2.6 * rows, alt=alt)


def learning_curve(model: ModelCard, color: str) -> Plot | None:
    """Draw losses and validation accuracy by epoch of the final training; None without a history."""
    if not model.history:
        return None
    epochs = [entry.epoch for entry in model.history]

    def draw(figure: Figure) -> None:
        loss, accuracy = panels(figure, 2, 1, sharex=True)
        _draw_curve(loss, epochs, [entry.train_loss for entry in model.history], MUTED, "training")
        _draw_curve(loss, epochs, [entry.val_loss for entry in model.history], color, "validation")
        loss.set_title("Loss (nats)")
        loss.legend()
        _draw_curve(accuracy, epochs, [entry.val_accuracy for entry in model.history], color, "validation")
        accuracy.set_title("Validation accuracy")
        accuracy.yaxis.set_major_formatter(FuncFormatter(_percent_tick))
        accuracy.set_xlabel(f"epoch (dotted: the one kept, {model.best_epoch})")
        accuracy.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (loss, accuracy):
            axes.axvline(model.best_epoch, color=INK, linestyle=":", linewidth=1)
            axes.grid(axis="y")

    last = model.history[-1]
    alt = (
        f"Learning curve over {counted(len(epochs), 'epoch')}, ending at "
        f"training loss {last.train_loss:.3f}, validation loss {last.val_loss:.3f} "
        f"and validation accuracy {last.val_accuracy:.1%}"
    )
    return draw_plot(draw, width=HALF_WIDTH, height=HALF_HEIGHT, alt=alt)


def confusion_plot(evaluation: Evaluation) -> Plot | None:
    """Draw the confusion matrix as shares of each true class; None without test images."""
    counts = np.asarray(evaluation.confusion_matrix, dtype=np.float64)
    if counts.size == 0 or counts.sum() == 0:
        return None
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)

    def draw(figure: Figure) -> None:
        (axes,) = panels(figure, 1, 1)
        # Classes without test images have no shares.
        blues = matplotlib.colormaps["Blues"].with_extremes(bad="#f4f5f7")
        image = axes.imshow(shares, cmap=blues, vmin=0, vmax=1, interpolation="none", aspect="equal")
        _label_classes(axes, evaluation.classes)
        if len(counts) <= MOST_WRITTEN_CLASSES:
            _write_cells(axes, counts, shares)
        bar = figure.colorbar(image, ax=axes, shrink=0.6, format=PercentFormatter(1.0))
        bar.outline.set_visible(False)
        axes.spines[:].set_visible(True)
        axes.tick_params(length=0)

    diagonal = float(np.trace(counts))
    alt = (
        f"Confusion matrix of {counted(len(counts), 'class')}: {counted(int(diagonal), 'image')} of "
        f"{int(counts.sum()):,} on the diagonal"
    )
    return draw_plot(draw, width=HALF_WIDTH, height=HALF_HEIGHT, alt=alt)


def reliability_plot(evaluation: Evaluation, color: str) -> Plot | None:
    """Draw accuracy against confidence, as it is and after temperature scaling, above the confidences that occur.

    None without test images. A point below the diagonal is confidence that is too high.
    """
    if not evaluation.reliability:
        return None
    scaled = evaluation.calibration.reliability if evaluation.calibration else []

    def draw(figure: Figure) -> None:
        accuracy, images = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        accuracy.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1, label="confidence is right")
        _draw_reliability(accuracy, evaluation.reliability, color, "o-", "as it is")
        if scaled:
            _draw_reliability(accuracy, scaled, MUTED, "s--", "after temperature scaling")
        accuracy.set_ylabel("accuracy")
        accuracy.set_ylim(-0.03, 1.03)
        accuracy.legend(loc="upper left")
        shares = [held.num_images / evaluation.num_images for held in evaluation.reliability]
        images.bar([held.confidence for held in evaluation.reliability], shares, width=0.03, color=color)
        images.set_ylabel("images")
        images.set_xlabel("confidence: the probability of the predicted class")
        images.set_xlim(-0.03, 1.03)
        for axes in (accuracy, images):
            axes.yaxis.set_major_formatter(FuncFormatter(_percent_tick))
            axes.grid(axis="y")
        images.xaxis.set_major_formatter(FuncFormatter(_percent_tick))

    alt = (
        f"Accuracy against confidence in {counted(len(evaluation.reliability), 'bin')}; "
        f"expected calibration error {percent(evaluation.expected_calibration_error)}"
    )
    return draw_plot(draw, width=HALF_WIDTH, height=HALF_HEIGHT, alt=alt)


def _draw_reliability(axes: Axes, bins: Sequence[ConfidenceBin], color: str, line: str, name: str) -> None:
    confidence, accuracy = [held.confidence for held in bins], [held.accuracy for held in bins]
    axes.plot(confidence, accuracy, line, color=color, markersize=4, linewidth=1.2, label=name)


def _completed(search: SearchResult) -> list[tuple[Trial, float]]:
    return [(trial, trial.value) for trial in search.trials if trial.value is not None]


def _best_so_far(search: SearchResult, completed: Sequence[tuple[Trial, float]]) -> list[float]:
    values = np.asarray([value for _, value in completed])
    best = np.maximum.accumulate(values) if search.mode == "max" else np.minimum.accumulate(values)
    return [float(value) for value in best]


def _draw_trial(axes: Axes, x: float | str, y: float, trial: Trial, color: str, *, is_best: bool) -> None:
    is_rule = trial.origin == "fixed_rule"
    axes.plot(
        [x],
        [y],
        marker="D" if is_rule else "o",
        markersize=8.5 if is_best else 6.5,
        linestyle="none",
        color="white" if is_rule else color,
        markeredgecolor=INK if is_rule or is_best else "white",
        markeredgewidth=1.5 if is_rule or is_best else 0.6,
        zorder=4 if is_best else 3,
    )


def _draw_failure(axes: Axes, x: float) -> None:
    axes.plot(
        [x],
        [0.04],
        marker="x",
        color=FAILURE,
        markersize=6,
        markeredgewidth=1.6,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
    )


def _draw_curve(axes: Axes, epochs: Sequence[int], values: Sequence[float], color: str, name: str) -> None:
    dashes = "--" if name == "training" else "-"
    axes.plot(epochs, values, linestyle=dashes, color=color, label=name, marker="o", markersize=3.5)


def _legend(search: SearchResult, color: str) -> list[Line2D]:
    handles = [
        Line2D([], [], marker="o", color=color, linestyle="none", label="trial"),
        Line2D([], [], marker="o", color=color, markeredgecolor=INK, markersize=8, linestyle="none", label="chosen"),
        Line2D([], [], marker="D", color="white", markeredgecolor=INK, linestyle="none", label="fixed rule, clipped"),
        Line2D([], [], color=INK, label="best so far"),
    ]
    if any(trial.status == "failed" for trial in search.trials):
        handles.append(Line2D([], [], marker="x", color=FAILURE, linestyle="none", label="failed"))
    return handles


def _label_metric(axes: Axes, metric: str) -> None:
    axes.set_ylabel(METRIC_TITLES[metric])
    if metric == "val_accuracy":
        axes.yaxis.set_major_formatter(FuncFormatter(_percent_tick))


def _percent_tick(value: float, _position: int) -> str:
    return f"{round(100 * value, 4):g}%"


def _on_axis(trial: Trial, name: str) -> float | str:
    value: float | str | None = getattr(trial.hyperparameters, name)
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no"
    if name in _MAY_BE_OFF:
        return f"{value:g}"
    return in_words(value) if isinstance(value, str) else value


def _scale_dimension(axes: Axes, name: str, values: Sequence[float | str]) -> None:
    axes.set_xlabel(in_words(name))
    axes.grid(axis="y")
    numbers = sorted({value for value in values if not isinstance(value, str)})
    if numbers and numbers[0] > 0 and name in _LOGARITHMIC:
        axes.set_xscale("log")
        # Less than a decade may hold no power of ten, and several need no more than those.
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if numbers[-1] < 20 * numbers[0] else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: rate(value)))
        # Matplotlib writes the ticks between as formulas.
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif name == "freeze_depth":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    elif numbers and len(numbers) <= 8:
        axes.set_xticks(numbers)


def _label_classes(axes: Axes, classes: Sequence[str]) -> None:
    is_named = len(classes) <= MOST_NAMED_CLASSES
    places = range(len(classes)) if is_named else []
    names = [label(name) for name in classes] if is_named else []
    size = 7.5 if len(classes) <= 15 else 6
    axes.set_xticks(places, names, rotation=90, fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    unnamed = "" if is_named else f" ({len(classes)} classes, in the model's order)"
    axes.set_xlabel(f"predicted class{unnamed}")
    axes.set_ylabel("true class")


def _write_cells(axes: Axes, counts: NDArray[np.float64], shares: NDArray[np.float64]) -> None:
    for row, column in np.argwhere(counts > 0):
        axes.text(
            column,
            row,
            f"{int(counts[row, column])}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if shares[row, column] > 0.55 else INK,
        )
