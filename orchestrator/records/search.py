"""The records of trials, races and searches."""

from __future__ import annotations

from typing import Literal

from orchestrator.records.base import Record, Value
from orchestrator.records.recipes import Hyperparameters


class EpochMetrics(Value):
    """Measure one epoch; losses are mean cross-entropies in nats. The first epoch is 1.

    Where images have any number of labels, `val_accuracy` is the mean average precision, see `finetune.multi_label`.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float


TrialOrigin = Literal["fixed_rule", "warm_start", "shared", "promoted", "sampler"]


class Trial(Value):
    """Record one finished trial, failed ones included; `value` is its best metric over the epochs.

    Of a trial that was cross-validated, the history has the means over its folds, and `standard_error` is that of the
    value: the folds' sample deviation over the root of their number. None for a trial on one split.
    A `stopped` trial was behind others at the same part of its schedule. `origin` says where its configuration came
    from: the fixed rule, the recipes of other searches, the list that all groups share, another group's find, or the
    group's sampler. `inputs` says what the suffix was fed from.
    """

    trial_id: str
    hyperparameters: Hyperparameters
    status: Literal["complete", "stopped", "failed"]
    value: float | None
    standard_error: float | None = None
    history: list[EpochMetrics]
    seconds: float
    error: str | None = None
    origin: TrialOrigin = "sampler"
    started: float = 0.0
    inputs: Literal["activations", "memory", "pixels"] = "pixels"


class RaceRun(Value):
    """Record one run of a finalist on a fresh re-split of its group's training and validation samples.

    `value` is None before the run has ended, and for one that failed.
    """

    group: str
    recipe: str
    hyperparameters: Hyperparameters
    resplit: int
    predicted_s: float = 0.0
    value: float | None = None
    seconds: float = 0.0
    error: str | None = None

    @property
    def name(self) -> str:
        """Name the run."""
        return f"{self.group}-race-{self.recipe}-{self.resplit}"


class FewShot(Value):
    """Say why a group was searched with the defaults for few images: `images_per_class` is below the `threshold`.

    That is the median over the classes that occur in training. `changed` names the keys whose defaults were others;
    `folds` is what each trial was cross-validated on, 1 for a single split.
    """

    images_per_class: float
    threshold: int
    changed: list[str]
    folds: int


class SearchResult(Record):
    """Hold every trial of one group's search; `few_shot` is None for a group that is searched as the file says.

    `trial_resources` is what one trial held, all its workers together. A trial was judged on `folds`, 1 for a single
    split.
    """

    group: str
    metric: str
    mode: Literal["max", "min"]
    trials: list[Trial]
    race: list[RaceRun] = []
    few_shot: FewShot | None = None
    trial_resources: dict[str, float] = {}
    folds: int = 1
