"""The recipes of finished searches, and which of them a new search begins with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.records import Hyperparameters, Record, SearchResult

_FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
# Beyond this ratio of image sizes the same stage sees other things, and its depth and rate carry over less.
_LARGEST_SIZE_RATIO = 2.0


@dataclass(frozen=True, kw_only=True)
class GroupProfile:
    """Describe a group that is searched: its measures of diversity, its size and the backbone it starts from.

    Entropies are in nats; a measure that is not known is left out.
    """

    measures: dict[str, float]
    num_classes: int
    num_images: int
    backbone: str
    num_stages: int
    image_size: int


class LibraryEntry(Record):
    """Hold what the search of one group found and cost.

    `weights_digest` is that of the pretrained weights. `curve` lists (seconds, value): what had been spent on trials
    when each ended, and the best value by then. `created` is in seconds since the epoch.
    """

    experiment: str
    group: str
    measures: dict[str, _FiniteFloat]
    num_classes: int = Field(ge=1)
    num_images: int = Field(ge=1)
    backbone: str
    weights_digest: str
    num_stages: int
    image_size: int = Field(ge=1)
    metric: Literal["val_accuracy", "val_loss"]
    recipe: Hyperparameters
    value: _FiniteFloat
    curve: list[tuple[_FiniteFloat, _FiniteFloat]]
    seconds: _FiniteFloat
    created: _FiniteFloat

    @classmethod
    def of_search(
        cls,
        experiment: str,
        result: SearchResult,
        recipe: Hyperparameters,
        value: float,
        *,
        profile: GroupProfile,
        weights_digest: str,
        created: float,
    ) -> LibraryEntry:
        """Make the entry of a finished search, with its fingerprint, that chose `recipe` for its score `value`.

        Measures that are not finite are left out.
        """
        curve = best_so_far(result)
        return cls(
            fingerprint=result.fingerprint,
            experiment=experiment,
            group=result.group,
            measures={name: value for name, value in profile.measures.items() if math.isfinite(value)},
            num_classes=profile.num_classes,
            num_images=profile.num_images,
            backbone=profile.backbone,
            weights_digest=weights_digest,
            num_stages=profile.num_stages,
            image_size=profile.image_size,
            metric="val_loss" if result.metric == "val_loss" else "val_accuracy",
            recipe=recipe,
            value=value,
            curve=curve,
            seconds=sum(trial.seconds for trial in result.trials) + sum(run.seconds for run in result.race),
            created=created,
        )


def best_so_far(result: SearchResult) -> list[tuple[float, float]]:
    """Give (seconds spent on trials so far, best value so far) whenever a trial with a value ended."""
    pick = max if result.mode == "max" else min
    curve: list[tuple[float, float]] = []
    spent = 0.0
    for trial in sorted(result.trials, key=lambda trial: trial.started + trial.seconds):
        spent += trial.seconds
        if trial.value is not None and trial.status != "failed":
            curve.append((spent, trial.value if not curve else pick(curve[-1][1], trial.value)))
    return curve


def nearest(target: GroupProfile, entries: Sequence[LibraryEntry], *, k: int = 3) -> list[LibraryEntry]:
    """Give the `k` entries most like the target, nearest first, of which no two have the same recipe.

    Only entries of the same backbone, with as many stages and images at most twice as large or small, count. The
    distance is Gower's ("A general coefficient of similarity and some of its properties", 1971): the mean of
    |x - t| / (range over those entries and the target), over the measures that both have and the logarithms of the
    numbers of classes and of images; what all have alike adds 0. Of equally near entries the cheaper search goes
    first, then the older, then by name.
    """
    usable = [entry for entry in entries if _fits(entry, target)]
    wanted = _features(target)
    known = [_features(entry) for entry in usable]
    ranges = {name: _range([features[name] for features in [*known, wanted] if name in features]) for name in wanted}
    ranked = sorted(
        zip(usable, known, strict=True),
        key=lambda pair: (
            _distance(wanted, pair[1], ranges),
            pair[0].seconds,
            pair[0].created,
            pair[0].experiment,
            pair[0].group,
        ),
    )
    found: list[LibraryEntry] = []
    for entry, _ in ranked:
        if len(found) == k:
            break
        if all(entry.recipe != other.recipe for other in found):
            found.append(entry)
    return found


def _fits(entry: LibraryEntry, target: GroupProfile) -> bool:
    ratio = max(entry.image_size, target.image_size) / min(entry.image_size, target.image_size)
    return (
        entry.backbone == target.backbone
        and entry.num_stages == target.num_stages
        and ratio <= _LARGEST_SIZE_RATIO
        and entry.recipe.freeze_depth <= target.num_stages
    )


def _features(group: GroupProfile | LibraryEntry) -> dict[str, float]:
    measured = {name: value for name, value in group.measures.items() if math.isfinite(value)}
    # Sizes differ by factors: from 100 images to 200 is as far as from 1,000 to 2,000.
    sizes = {"log num_classes": math.log(group.num_classes), "log num_images": math.log(group.num_images)}
    return {**measured, **sizes}


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _distance(wanted: dict[str, float], known: dict[str, float], ranges: dict[str, float]) -> float:
    # The logarithms of the sizes are always there: the mean is never over nothing.
    shared = [name for name in wanted if name in known]
    gaps = [abs(wanted[name] - known[name]) / ranges[name] if ranges[name] > 0 else 0.0 for name in shared]
    return math.fsum(gaps) / len(gaps)
