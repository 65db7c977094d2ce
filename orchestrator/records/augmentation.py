"""What a search picks of how training samples are varied."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from orchestrator.config import (
    AUGMENTATIONS,
    WAYS_TO_VARY,
    AugmentConfig,
    ColourFactor,
    CropShare,
    ErasingProbability,
    Magnitude,
    NumOperations,
)
from orchestrator.records.base import Value


class SearchedAugmentation(Value):
    """Hold how training samples are varied where a search chose it; None is as the section `augment` says.

    What is None is left out of what is written: a record or a digest is the same as before there were these.
    """

    flip: bool | None = None
    crop: CropShare | None = None
    colour: ColourFactor | None = None
    randaugment: NumOperations | None = None
    magnitude: Magnitude | None = None
    erasing: ErasingProbability | None = None

    @property
    def own_augmentations(self) -> dict[str, bool | int | float]:
        """Give what was chosen, by name."""
        return {name: value for name in AUGMENTATIONS if (value := getattr(self, name)) is not None}

    @property
    def varies_by_choice(self) -> bool:
        """Tell whether a chosen augmentation varies anything."""
        return any(getattr(self, name) for name in WAYS_TO_VARY)

    def augmented(self, section: AugmentConfig) -> AugmentConfig:
        """Give how samples are varied: as the section says, but for what was chosen, which is drawn afresh."""
        own = self.own_augmentations
        return section.model_copy(update={**own, "views": 0}) if own else section

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        return {name: value for name, value in written.items() if name not in AUGMENTATIONS or value is not None}
