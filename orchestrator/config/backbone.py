"""The pretrained network, its candidates, and the source task that makes its weights."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from orchestrator.config.base import OptimizerName, PositiveFloat, PositiveInt
from orchestrator.config.data import DataConfig, Section


def _require_plain(value: object) -> object:
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"must be a plain value, got {value!r}: write text, a number, true or false")
    return value


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

    @field_validator("weights", mode="before")
    @classmethod
    def _yaml_null_means_none(cls, value: object) -> object:
        return "none" if value is None else value


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


class PretrainConfig(Section):
    """Describe the source task that is trained from scratch when `backbone.weights` is `pretrain`.

    `classes` restricts the source to these labels; default: all that occur.
    """

    data: DataConfig
    classes: list[str] | None = None
    epochs: PositiveInt = 10
    learning_rate: PositiveFloat = 1e-3
    batch_size: Annotated[int, Field(ge=2)] = 64
    optimizer: OptimizerName = "adam"
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
