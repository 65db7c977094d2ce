"""The records of what each subset gains from its group's model: arms, verdicts, and what was done about them."""

from __future__ import annotations

from typing import Literal

from orchestrator.config import OnNegativeTransfer
from orchestrator.records.base import Record, Value
from orchestrator.records.evaluation import PackedAnswers
from orchestrator.records.recipes import Hyperparameters

ArmName = Literal["from_scratch", "head_only", "target_only", "subset_only", "pooled"]
TransferVerdict = Literal["helps", "no_difference", "hurts"]


class Answers(Value):
    """Tell which images of one subset a model gets right, in the catalogue's order."""

    validation: list[bool]
    test: list[bool]


class Arm(Value):
    """Describe a model that transfers less, or more, than a group's model does.

    `group` is None for the pooled model, `subset` for all arms but `subset_only`. `epoch_cost` is what one of its
    epochs takes over an average one of the group's training, None where the epochs do not follow from it. `seconds` are
    of the training, `seconds_again` of all later ones, which only kept its model; `resources` is what they held.
    """

    group: str | None
    subset: str | None
    name: ArmName
    hyperparameters: Hyperparameters
    epoch_cost: float | None = None
    seconds: float
    seconds_again: float = 0.0
    resources: dict[str, float] = {}
    error: str | None = None


class ArmResult(Record, Arm):
    """Hold an arm with its answers by subset, none where it failed.

    And, where its model was kept, the path of that and the digest of its weights.
    """

    answers: dict[str, Answers]
    model: str | None = None
    weights_digest: str = ""


class ArmGain(Value):
    """Compare a group's model with another on the same images.

    `gain` is the accuracy of the group's model minus that of the other, and its interval one of several that hold
    jointly: see `evaluation.transfer.joint_gains`.
    """

    name: str
    accuracy: float
    gain: float
    gain_interval: tuple[float, float]


class SplitComparison(Value):
    """Compare a group's model with others on the images of one subset in one split.

    `num_units` counts what intervals resample: images, those that are kept together as one.
    """

    num_images: int
    num_units: int
    accuracy: float
    others: list[ArmGain]


class SubsetGain(Value):
    """Say what a subset gains by another model than its group's first one, with paired bootstrap 95% intervals.

    None for a split without images.
    """

    subset: str
    validation_gain: float | None
    validation_interval: tuple[float, float] | None
    test_gain: float | None
    test_interval: tuple[float, float] | None


class SubsetTransfer(Value):
    """Judge the transfer to one subset on its test images, and say which model it has in the end, and why.

    `verdict` is None where nothing could be compared. What is done is decided on `validation` alone. `taken` names the
    arm that the subset falls back to, or the group that was trained again with it. `model` is a path below the run
    directory, `weights_digest` that of its weights where it is not the group's, and `gain` what it gains over the
    group's first model. `test_answers` tells what it gets right of the subset's test images, in the catalogue's order;
    None where it is the group's.
    """

    subset: str
    group: str
    verdict: TransferVerdict | None
    test: SplitComparison | None
    validation: SplitComparison | None
    action: Literal["kept", "fallback", "moved", "retrained"] = "kept"
    taken: str | None = None
    reason: str
    model: str
    weights_digest: str = ""
    gain: SubsetGain | None = None
    test_answers: PackedAnswers | None = None


class Move(Value):
    """Say where a subset fares better than in its group, by validation images.

    `is_new` says that the destination is a group that there was not, and `without_source` that it is trained on the
    target alone where the others are trained together with a source. `place` compares it with the other places.
    """

    subset: str
    origin: str
    destination: str
    is_new: bool
    without_source: bool = False
    place: ArmGain


class RegroupedModel(Value):
    """Describe a group that was trained again, by the recipe of the group `recipe_of`.

    `seconds` are those of each of `num_workers`, which held `worker_resources`. `without_source` says that it was
    trained on the target alone where the run has a source.
    """

    group: str
    subsets: list[str]
    recipe_of: str
    without_source: bool = False
    predicted_s: float
    seconds: float
    num_workers: int = 1
    worker_resources: dict[str, float] = {}
    model: str
    weights_digest: str = ""


class Regrouping(Value):
    """Say which subsets moved, what was trained again, and what the subsets of those groups gained.

    `left_out` moves did not fit what is left of the budget, `budget_left_s` in seconds of training, None where nothing
    bounds it. The new models are kept, by `is_kept`, where they are no worse on all of these validation images.
    """

    moves: list[Move]
    left_out: list[Move]
    models: list[RegroupedModel]
    budget_left_s: float | None
    gains: list[SubsetGain]
    is_kept: bool
    reason: str


class Transfer(Record):
    """Hold the verdict of every subset, and the arms that they stand on."""

    mode: OnNegativeTransfer
    arms: list[Arm]
    subsets: list[SubsetTransfer]
    regrouping: Regrouping | None = None
