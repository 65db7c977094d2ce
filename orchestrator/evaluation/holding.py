"""Holds predictions in memory where they are few; of more, what counts is added up part by part."""

from __future__ import annotations

from orchestrator.evaluation.parts import PredictionParts, joined
from orchestrator.evaluation.predictions import Predictions
from orchestrator.evaluation.scoring import MOST_RANKED_IMAGES


def held(predictions: PredictionParts, subset: str | None = None) -> Predictions | None:
    """Put the predictions, or those of a subset, together in memory; None where they are more than 100,000."""
    parts, num_images = [], 0
    for part in predictions.parts(subset):
        parts.append(part)
        num_images += len(part)
        if num_images > MOST_RANKED_IMAGES:
            return None
    return joined(parts)
