"""Puts numbers and lists into the words that the report and the terminal share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.records import Hyperparameters

ABSENT = "–"  # noqa: RUF001 - an en dash, as printed tables use for a missing value

MEASURE_TITLES = {
    "label_entropy": "Label entropy (nats)",
    "pixel_entropy": "Pixel entropy (nats)",
    "feature_diversity": "Feature diversity (Vendi)",
}
METRIC_TITLES = {"val_accuracy": "validation accuracy", "val_loss": "validation loss"}
ORIGIN_TITLES = {
    "fixed_rule": "fixed rule, clipped",
    "warm_start": "from an earlier search",
    "shared": "shared by all groups",
    "promoted": "another group's find",
    "sampler": "",
}
INPUT_TITLES = {
    "activations": "kept activations",
    "pixels": "decoded pixels",
    "images": "encoded images",
}
EXPLANATION_TITLES = {
    "grad_cam": "what spoke for the predicted class, by Grad-CAM (Selvaraju et al., 2017)",
    "attention_rollout": "what reached the class token, whatever the class, by attention roll-out (Abnar and Zuidema, "
    "2020)",
}
BASELINE_TITLES = {
    "fixed_rule": "fixed rule",
    "head_only": "head only",
    "from_scratch": "from scratch",
    "target_only": "target only",
    "one_head": "one head",
}


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with a fixed count of decimals; a dash when absent or not finite."""
    return f"{value:,.{digits}f}" if _is_known(value) else ABSENT


def interval(bounds: tuple[float, float] | None, digits: int = 2) -> str:
    """Write an interval of numbers: [1.20, 1.46]; nothing when absent."""
    return "" if bounds is None else f"[{bounds[0]:,.{digits}f}, {bounds[1]:,.{digits}f}]"


def count(value: int) -> str:
    """Write a whole number with separators of thousands."""
    return f"{value:,}"


def magnitude(value: float) -> str:
    """Write a large number in three digits with the letter of its power of a thousand: 2.22 M, 308 M, 1.81 G."""
    rounded = float(f"{value:.3g}")
    power = min(4, int(math.log10(rounded) // 3)) if rounded >= 1000 else 0
    scaled = rounded / 1000**power
    digits = 0 if power == 0 or scaled >= 100 else 1 if scaled >= 10 else 2
    return f"{scaled:.{digits}f} {' kMGT'[power]}".rstrip()


def counted(value: int, noun: str) -> str:
    """Write a count with its noun: 1 image, 2,000 images, 2 classes."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{value:,} {noun if value == 1 else plural}"


def percent(value: float | None) -> str:
    """Write a share in [0, 1] as a percentage with one decimal."""
    return f"{100 * value:.1f}%" if value is not None and math.isfinite(value) else ABSENT


def percent_interval(interval: tuple[float, float] | None) -> str:
    """Write an interval of shares in percent: [89.0, 93.1]; nothing when absent."""
    return "" if interval is None else f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def points(gain: float | None) -> str:
    """Write a difference of shares in percentage points, signed."""
    return _signed(gain) if gain is not None and math.isfinite(gain) else ABSENT


def points_interval(interval: tuple[float, float] | None) -> str:
    """Write an interval of differences in percentage points: [+0.4, +5.9]; nothing when absent."""
    return "" if interval is None else f"[{_signed(interval[0])}, {_signed(interval[1])}]"


def rate(value: float) -> str:
    """Write a learning rate or weight decay in short scientific form: 1e-3, 2.5e-4, 0."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def recipe_lines(hyperparameters: Hyperparameters) -> list[str]:
    """Write what a search decides, one hyperparameter a line, and the methods that are not those by default."""
    return [
        f"depth {hyperparameters.freeze_depth}",
        f"rate {rate(hyperparameters.learning_rate)}",
        counted(hyperparameters.epochs, "epoch"),
        *method_lines(hyperparameters),
    ]


def method_lines(hyperparameters: Hyperparameters) -> list[str]:
    """Write each method that is not the one by default: `label smoothing 0.1`, `strategy gradual`, `balanced`."""
    return [_method(name, value) for name, value in hyperparameters.methods.items()]


def _method(name: str, value: object) -> str:
    if isinstance(value, bool):
        return in_words(name) if value else f"not {in_words(name)}"
    if isinstance(value, tuple):
        return f"{in_words(name)} {shortened([_weight(part) for part in value], most=5)}"
    return f"{in_words(name)} {value:g}" if isinstance(value, float) else f"{in_words(name)} {in_words(str(value))}"


def _weight(part: float | tuple[str, float]) -> str:
    return f"{part[0]} {part[1]:g}" if isinstance(part, tuple) else f"{part:g}"


def in_words(name: str) -> str:
    """Write a name of the experiment file as words."""
    return name.replace("_", " ")


def recipe_sentence(hyperparameters: Hyperparameters) -> str:
    """Write what a search decides in running text."""
    return (
        f"freeze depth {hyperparameters.freeze_depth}, learning rate {rate(hyperparameters.learning_rate)} "
        f"and {counted(hyperparameters.epochs, 'epoch')}"
    )


def duration(seconds: float) -> str:
    """Write wall time: 4.2 s, 45 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def shortened(names: Sequence[str], *, most: int, separator: str = ", ") -> str:
    """List names, and how many more there are beyond the first `most`."""
    if len(names) <= most:
        return separator.join(names)
    return f"{separator.join(names[:most])}{separator.replace(',', '')}and {len(names) - most} more"


def enumerated(parts: Sequence[str]) -> str:
    """Join parts as prose does: a, b and c."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def metric_value(value: float | None, metric: str) -> str:
    """Write a value of the searched metric: accuracies in percent, losses in nats."""
    return percent(value) if metric == "val_accuracy" else number(value, 3)


def _signed(share: float) -> str:
    # A difference that rounds to nothing carries no sign.
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
