"""How a network is fine-tuned: what every trial shares where `search.space` does not name it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, PlainSerializer, Tag

from orchestrator.config.base import OptimizerName, PositiveFloat, PositiveInt
from orchestrator.config.data import Section

HeadName = Literal["linear", "cosine", "prototype"]
StrategyName = Literal["freeze", "gradual", "probe_then_finetune", "feature_only", "feature_then_network"]
RegularizerName = Literal["none", "l2_sp", "cosine", "euclidean", "orthogonal", "l1", "l2"]
RegularizerScope = Literal["backbone", "head", "both"]
# All others pull to the weights that a training starts from.
PLAIN_REGULARIZERS: frozenset[RegularizerName] = frozenset({"none", "l1", "l2"})
LossName = Literal["cross_entropy", "focal", "binary_cross_entropy"]
SmoothingTarget = Literal["uniform", "model"]
ClassWeighting = Literal["none", "balanced"]
MixingName = Literal["none", "mixup", "cutmix"]
ScheduleName = Literal["constant", "cosine", "one_cycle"]
RateScaling = Literal["none", "linear", "sqrt"]
TaskWeighting = Literal["equal", "size", "uncertainty"]

NonNegativeFloat = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Proportion = Annotated[float, Field(gt=0.0, le=1.0)]
InnerShare = Annotated[float, Field(gt=0.0, lt=1.0)]
FixedWeights = Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)]


def _in_order(value: object) -> object:
    return tuple(sorted(value.items(), key=str)) if isinstance(value, Mapping) else value


# A mapping in the file; pairs in memory, because configurations are told apart by their hashes.
WeightsByName = Annotated[
    tuple[tuple[str, PositiveFloat], ...], BeforeValidator(_in_order), PlainSerializer(dict), Field(min_length=1)
]

# Tags tell pydantic which kind was meant, so that a mistake is reported once; no field can bear such a name.
NAME_TAG, NUMBERS_TAG, BY_NAME_TAG = "a name", "a list of numbers", "numbers by name"


def _kind_of_weighting(value: object) -> str | None:
    if isinstance(value, str):
        return NAME_TAG
    if isinstance(value, Mapping) or (isinstance(value, tuple) and value and isinstance(value[0], tuple)):
        return BY_NAME_TAG
    return NUMBERS_TAG if isinstance(value, list | tuple) else None


NamedOrFixed = Annotated[
    Annotated[TaskWeighting, Tag(NAME_TAG)]
    | Annotated[FixedWeights, Tag(NUMBERS_TAG)]
    | Annotated[WeightsByName, Tag(BY_NAME_TAG)],
    Discriminator(
        _kind_of_weighting,
        custom_error_type="weighting",
        custom_error_message=(
            "must be equal, size or uncertainty, or a list with a number for each task, or a mapping with one for each "
            "subset"
        ),
    ),
]


def weights_by_name(
    weighting: TaskWeighting | tuple[float, ...] | tuple[tuple[str, float], ...],
) -> dict[str, float] | None:
    """Give the fixed weights of heads by their names; None where weights are anything else."""
    pairs = [part for part in weighting if isinstance(part, tuple)]
    return dict(pairs) or None


class FineTuneConfig(Section):
    """Say how a network is fine-tuned, beside the depth, rate and epochs that are always searched.

    Strategies, of the stages that `freeze_depth` leaves free:

    - `freeze` trains them and the head from the first epoch on: all of the network at depth 0, the head alone at the
      backbone's depth.
    - `gradual` begins with the head and frees one stage more every `unfreeze_every` epochs (Howard and Ruder,
      "Universal Language Model Fine-tuning for Text Classification", 2018).
    - `probe_then_finetune` fits the head for `head_share` of the epochs, then trains all (Kumar et al., "Fine-Tuning
      can Distort Pretrained Features and Underperform Out-of-Distribution", 2022).
    - `feature_only` fits the head likewise and then holds it: the stages are trained to serve it (Hoffer, Hubara and
      Soudry, "Fix your Classifier: the Marginal Value of Training the Last Weight Layer", 2018, hold a random head).
    - `feature_then_network` does so for half of the epochs that are left, and trains all for the rest; no paper is
      followed in this order.

    Heads are `linear`; `cosine`, which goes by the direction of features alone and starts from the classes' mean
    directions; and `prototype`, the linear head that gives the nearest of those (see `finetune.prototypes`). With every
    stage frozen prototypes are all there is to learn: a training has one epoch, and no rate. With free stages they are
    what the head starts from. With a `source` they are of both, as `finetune.head_start` says.

    A stage's rate is `layer_decay` times that of the one after it (Howard and Ruder). `schedule` changes the rate over
    the steps, after a linear rise over the share `warmup` of them; `rate_scaling` adapts it to the batch size, see
    `finetune.schedules`. `clip_norm` bounds the norm of the gradient (Pascanu, Mikolov and Bengio, "On the Difficulty
    of Training Recurrent Neural Networks", 2013), `accumulate` batches make one step, `ema_decay` keeps a running mean
    of the weights, which is what is validated and shipped. `patience` ends a training after so many epochs of its last
    phase without a better one (Prechelt, "Early Stopping - But When?", 1998); the best epoch is kept anyway.

    `regularizer_weight` times R(theta, theta_s) over the weights of `regularizer_scope` that are trained is added to
    the loss, see `finetune.regularization`; theta_s is what the backbone and the head start from. `label_smoothing`
    mixes the target with equal shares or with the model's own prediction. `class_weights: balanced` weighs classes by
    the inverse of their frequency, `balanced` draws them equally often instead. `adversarial` trains on each image
    and on what one FGSM step of this share of the pixel range makes of it. `dropout` is that before the head
    (Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014); `stochastic_depth`
    None leaves that of the backbone as it is. `loss: binary_cross_entropy` is for images with any number of labels, and
    implied by `data.label_separator`.

    `task_weighting` weighs the mean losses of several tasks (`train.scope: multitask`): `equal`; by `size`, so that
    every label weighs the same; by learnt `uncertainty` (Kendall, Gal and Cipolla, 2018); or by a fixed number for
    each: a list in the order of the tasks, or, with `train.heads: subset`, a mapping by the subset's name, where a
    subset that it does not name has 1. See `finetune.tasks`.
    """

    strategy: StrategyName = "freeze"
    head: HeadName = "linear"
    head_share: InnerShare = 0.3
    unfreeze_every: PositiveInt = 1
    layer_decay: Proportion = 1.0
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimizer: OptimizerName = "adam"
    momentum: Share = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 0.0
    schedule: ScheduleName = "constant"
    warmup: Share = 0.0
    rate_scaling: RateScaling = "none"
    clip_norm: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    accumulate: PositiveInt = 1
    ema_decay: InnerShare | None = None
    patience: PositiveInt | None = None
    regularizer: RegularizerName = "none"
    regularizer_weight: NonNegativeFloat = 0.01
    regularizer_scope: RegularizerScope = "backbone"
    loss: LossName = "cross_entropy"
    focal_gamma: NonNegativeFloat = 2.0
    label_smoothing: Share = 0.0
    smoothing_target: SmoothingTarget = "uniform"
    class_weights: ClassWeighting = "none"
    balanced: bool = False
    mixing: MixingName = "none"
    mixing_alpha: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.2
    adversarial: Share = 0.0
    dropout: Share = 0.0
    stochastic_depth: Share | None = None
    task_weighting: NamedOrFixed = "equal"
