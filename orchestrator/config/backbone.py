"""The pretrained network, its candidates, and the source task that makes its weights."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from orchestrator.config.base import Fraction, OptimizerName, PositiveFloat, PositiveInt
from orchestrator.config.data import DataConfig, Section
from orchestrator.config.finetune import PLAIN_REGULARIZERS, NonNegativeFloat, RegularizerName, RegularizerScope
from orchestrator.config.pretraining_target import PretrainingTargetConfig
from orchestrator.config.reptile import ReptileConfig


def _require_plain(value: object) -> object:
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"must be a plain value, got {value!r}: write text, a number, true or false")
    return value


def _null_as_none(value: object) -> object:
    return "none" if value is None else value


PlainValue = Annotated[bool | int | float | str, BeforeValidator(_require_plain)]


class PretrainedNetwork(Section):
    """Name a pretrained network and the normalisation that it was trained with.

    `weights` is a path or URI of a state dict, a torchvision weights name, `pretrain` (the run's own source
    task) or `none`. `mean` and `std` are per channel on pixels scaled to [0, 1]; default: those of the
    torchvision weights.
    """

    name: str = "resnet18"
    kwargs: dict[str, PlainValue] = {}
    weights: str = "DEFAULT"
    mean: tuple[float, float, float] | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None

    _yaml_null_means_none = field_validator("weights", mode="before")(_null_as_none)


class CandidateConfig(PretrainedNetwork):
    """Name one of several networks to choose from; `title` names it in tables, by default by its name and kwargs.

    Pixels are decoded once for all candidates: `image_size` may be given, but must be the section's.
    """

    name: str
    title: Annotated[str, Field(pattern=r"^[^,]+$")] | None = None
    image_size: int | None = None


class BackboneConfig(PretrainedNetwork):
    """Name the pretrained network and the preprocessing of its images.

    With `candidates` the run measures all of them on its training images and takes the best: then they, not the
    section, name networks.
    """

    image_size: Annotated[int, Field(ge=8, le=4096)] = 224
    resize: Literal["crop", "squash"] = "crop"
    candidates: list[CandidateConfig] = []

    @property
    def title(self) -> str:
        """Name the network by what builds it."""
        return _title(self)

    @property
    def by_title(self) -> dict[str, BackboneConfig]:
        """Give the networks to choose from by their titles: the candidates, or the one that the section names."""
        if not self.candidates:
            return {self.title: self}
        return {
            candidate.title or _title(candidate): BackboneConfig(
                image_size=self.image_size,
                resize=self.resize,
                **candidate.model_dump(exclude={"title", "image_size"}),
            )
            for candidate in self.candidates
        }

    @model_validator(mode="after")
    def _candidates_stand_for_the_section(self) -> Self:
        if not self.candidates:
            return self
        for key, field in PretrainedNetwork.model_fields.items():
            if getattr(self, key) != field.default:
                raise ValueError(
                    f"{key} must be left out where candidates name networks, got {getattr(self, key)}: "
                    "make it one of the candidates"
                )
        for candidate in self.candidates:
            if candidate.weights == "pretrain":
                raise ValueError(
                    f"candidates must have weights, got pretrain for {candidate.name}: pretrain it in a run of its own"
                )
            if candidate.image_size not in (None, self.image_size):
                raise ValueError(
                    f"candidates must share image_size {self.image_size}, got {candidate.image_size} for "
                    f"{candidate.name}: set backbone.image_size"
                )
        if len(self.by_title) < len(self.candidates):
            titles = [candidate.title or _title(candidate) for candidate in self.candidates]
            repeated = next(title for title in titles if titles.count(title) > 1)
            raise ValueError(f"candidates must have different titles, got {repeated} twice: add title to one of them")
        return self


def _title(network: PretrainedNetwork) -> str:
    return " ".join([network.name, *(f"{key}={value}" for key, value in network.kwargs.items())])


Objective = Literal["supervised", "simsiam", "reptile"]
LabelNeed = Literal["every", "some", "none"]


def _in_order(value: object) -> object:
    """Write objectives that are named in one word as a list of them, in their order."""
    return value.split("_then_") if isinstance(value, str) else value


class SimSiamConfig(Section):
    """Say how a network is pretrained on images alone: from one view of an image another is to be predicted.

    Chen and He, "Exploring Simple Siamese Representation Learning", 2021, whose values the defaults are. The learning
    rate is that of 256 images: it is multiplied by `batch_size` / 256, and falls along a cosine, that of the predictor
    aside, which stays. `width` is that of the outputs that are compared, by default the backbone's number of features,
    at most 2,048; the predictor narrows it to a quarter.
    A view is a part of the image of at least the share `smallest_crop`, mirrored every other time where `flip` is on;
    with probability 0.8 its brightness, contrast and saturation change by at most the factor `colour` and its hue by a
    quarter of that, in turns; it is grey with probability `grey` and blurred with probability `blur`, by up to a 112th
    of its size.
    """

    epochs: PositiveInt = 100
    learning_rate: PositiveFloat = 0.05
    batch_size: Annotated[int, Field(ge=2)] = 256
    optimizer: OptimizerName = "sgd"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    width: Annotated[int, Field(ge=4)] | None = None
    smallest_crop: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    flip: bool = True
    colour: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.4
    grey: Fraction = 0.2
    blur: Fraction = 0.5


class PretrainConfig(Section):
    """Describe the source task that is trained when `backbone.weights` is `pretrain`.

    `objective` says what is learnt from it: `supervised` its labels, as `epochs` and the keys after it say; `simsiam`
    its images alone, as the section `simsiam` says, and `data` needs no label; `reptile` a start for each of its
    subsets, as the section `reptile` says; or several in turn, as a list or as `simsiam_then_supervised`, each
    beginning with the weights of the one before; SimSiam then sees the images without a label too.
    Without `data` the run's own subsets are learnt from, their training split alone; `supervised` needs data of its
    own, because it chooses its epoch by validation images.
    `classes` restricts what is learnt by label to these; default: all that occur.
    `weights` are what the first objective begins with: a path or URI, a torchvision weights name, or `none` for random
    ones. With `with_target` the supervised task learns the run's own training images beside the source's, labels of the
    same name as one class. `regularizer_weight` times R(theta, theta_s) is added to its loss as in the section
    `finetune`; theta_s is what it begins with.
    """

    data: DataConfig | None = None
    objective: Annotated[list[Objective], BeforeValidator(_in_order), Field(min_length=1)] = ["supervised"]
    simsiam: SimSiamConfig = SimSiamConfig()
    reptile: ReptileConfig = ReptileConfig()
    classes: list[str] | None = None
    epochs: PositiveInt = 10
    learning_rate: PositiveFloat = 1e-3
    batch_size: Annotated[int, Field(ge=2)] = 64
    optimizer: OptimizerName = "adam"
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    weights: str = "none"
    regularizer: RegularizerName = "none"
    regularizer_weight: NonNegativeFloat = 0.01
    regularizer_scope: RegularizerScope = "backbone"
    with_target: PretrainingTargetConfig | None = None

    _yaml_null_means_none = field_validator("weights", mode="before")(_null_as_none)

    @property
    def is_supervised(self) -> bool:
        """Tell whether labels are learnt for their own sake, at any time."""
        return "supervised" in self.objective

    @property
    def needs_labels(self) -> bool:
        """Tell whether anything is learnt by label, at any time."""
        return self.is_supervised or "reptile" in self.objective

    @property
    def labels(self) -> LabelNeed:
        """Tell whether every image must have a label to be of use, or some may have none, or none needs one."""
        if not self.needs_labels:
            return "none"
        return "some" if "simsiam" in self.objective else "every"

    @model_validator(mode="after")
    def _objectives_come_once(self) -> Self:
        if len(set(self.objective)) < len(self.objective):
            raise ValueError(
                f"objective must name each objective once, got {', '.join(self.objective)}: add to its epochs instead"
            )
        if self.classes is not None and not self.needs_labels:
            raise ValueError(f"classes must be left out where nothing is supervised, got {self.classes}: remove them")
        return self

    @model_validator(mode="after")
    def _labels_are_learnt_where_keys_speak_of_them(self) -> Self:
        if self.data is None and self.is_supervised:
            raise ValueError("data must be given where the objective is supervised, got nothing: add its uri")
        if self.weights == "pretrain":
            raise ValueError("weights must be a file, a name or none, got pretrain: name those of another run by path")
        if self.with_target is not None and not self.is_supervised:
            raise ValueError("with_target must be left out where nothing is supervised, got one: remove it")
        if self.regularizer != "none" and not self.is_supervised:
            raise ValueError(
                f"regularizer must be none where nothing is supervised, got {self.regularizer}: leave it out"
            )
        pulls = self.regularizer not in PLAIN_REGULARIZERS
        if pulls and self.weights == "none" and self.objective[0] == "supervised":
            raise ValueError(
                f"regularizer must have weights to pull to, got {self.regularizer} with weights none: name weights, "
                "or let another objective come first"
            )
        return self
