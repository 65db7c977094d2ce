"""Keeps beside a backbone's weights where they come from, for runs that take them by their path."""

from __future__ import annotations

from orchestrator import storage
from orchestrator.errors import WeightsError
from orchestrator.experiment_file import is_weights_path
from orchestrator.records import PretrainedBackbone

_WEIGHTS = ".safetensors"
_CARD = ".card.json"
_FEATURES = ".source.safetensors"


def features_of(weights: str) -> str:
    """Give the path or URI of the source's features beside weights, a path or URI that ends with .safetensors."""
    return weights.removesuffix(_WEIGHTS) + _FEATURES


def save_card(weights_uri: str, record: PretrainedBackbone) -> None:
    """Write the record of weights beside them."""
    storage.write_bytes(_card_of(weights_uri), record.to_json().encode())


def find_card(weights: str, *, digest: str, image_size: int) -> PretrainedBackbone | None:
    """Read the record beside weights that have this digest for this size of images; None where there is none.

    Raises WeightsError when it is that of other weights, RecordError when it is damaged.
    """
    if not is_weights_path(weights) or not weights.endswith(_WEIGHTS) or not storage.exists(_card_of(weights)):
        return None
    uri = _card_of(weights)
    card = PretrainedBackbone.from_json(storage.read_bytes(uri), source=uri)
    # Weights that are fitted to another size of images have another digest.
    if card.digest != digest and card.spec.image_size == image_size:
        raise WeightsError(
            f"weights must have the digest {card.digest} of the card beside them",
            value=f"{digest} in {weights}",
            remedy="Copy both files together, or remove the card.",
        )
    return card


def _card_of(weights: str) -> str:
    return weights.removesuffix(_WEIGHTS) + _CARD
