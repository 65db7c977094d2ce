"""How training samples are varied, and which of it a search may choose."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from orchestrator.config.data import Section

CropShare = Annotated[float, Field(ge=0.0, le=0.5)]
ColourFactor = Annotated[float, Field(ge=0.0, lt=1.0)]
NumOperations = Annotated[int, Field(ge=0, le=8)]
Magnitude = Annotated[int, Field(ge=0, le=30)]
ErasingProbability = Annotated[float, Field(ge=0.0, le=1.0)]

AUGMENTATIONS = ("flip", "crop", "colour", "randaugment", "magnitude", "erasing")
"""What a search may choose."""

WAYS_TO_VARY = tuple(name for name in AUGMENTATIONS if name != "magnitude")
"""What varies samples wherever it is neither false nor 0; the magnitude is that of another."""


class AugmentConfig(Section):
    """Say how training samples are varied; validation and test samples never are.

    With `views: K` every sample has K fixed variants, of which epoch e shows number (e - 1) modulo K: the first is
    the image itself, and what the frozen stages give for each can be kept. With `views: 0` every epoch draws afresh,
    and only pixels are kept; what `search.space` has of the other keys needs that. `flip` mirrors every other view,
    `crop` shifts by at most this share of the image, `colour` changes brightness, contrast and saturation by at most
    this factor. `randaugment` operations of RandAugment follow, of a `magnitude` up to 30. `erasing` is the probability
    that a rectangle is filled with noise.
    """

    views: Annotated[int, Field(ge=0, le=64)] = 1
    flip: bool = False
    crop: CropShare = 0.0
    colour: ColourFactor = 0.0
    randaugment: NumOperations = 0
    magnitude: Magnitude = 9
    erasing: ErasingProbability = 0.0

    @property
    def varies(self) -> bool:
        """Tell whether anything is varied at all."""
        return any(getattr(self, name) for name in WAYS_TO_VARY)

    @property
    def draws_afresh(self) -> bool:
        """Tell whether every epoch varies samples anew: then nothing that frozen stages give for them can be kept."""
        return self.views == 0 and self.varies

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        ways = "flip, crop, colour, randaugment or erasing"
        if self.views > 1 and not self.varies:
            raise ValueError(f"views must be 1 when nothing varies, got {self.views}: set {ways}")
        if self.views == 1 and self.varies:
            raise ValueError(f"views must be 0 or at least 2 with {ways}, got 1: raise views")
        return self
