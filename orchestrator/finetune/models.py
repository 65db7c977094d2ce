"""Saves and loads trained models and backbones as safetensors with a readable card."""

from __future__ import annotations

import safetensors.torch
from torch import nn

from orchestrator import storage
from orchestrator.errors import RecordError, StorageError, UnavailableError, WeightsError
from orchestrator.finetune.backbones import Backbone, create_backbone
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.cosine import new_head
from orchestrator.finetune.randomness import seeded
from orchestrator.finetune.weights import load_exactly, parse_safetensors
from orchestrator.records import ModelCard

_WEIGHTS = "model.safetensors"
_CARD = "model.json"


def save_model(uri: str, classifier: Classifier, card: ModelCard) -> ModelCard:
    """Write `model.safetensors`, then `model.json`, below `uri`, and give the card with the weights' digest.

    An older card goes first: it must not stand beside weights that are not its own when this is cut short.
    """
    content = _serialize(classifier)
    complete = card.model_copy(update={"weights_digest": storage.digest_bytes([content])})
    storage.delete(storage.join(uri, _CARD))
    storage.write_bytes(storage.join(uri, _WEIGHTS), content)
    storage.write_bytes(storage.join(uri, _CARD), complete.to_json().encode())
    return complete


def load_card(uri: str) -> ModelCard:
    """Read the card of a saved model. Raises StorageError or RecordError when it is missing or damaged."""
    source = storage.join(uri, _CARD)
    return ModelCard.from_json(storage.read_bytes(source), source=source)


def is_saved(uri: str, weights_digest: str) -> bool:
    """Tell whether there is a saved model with weights of this digest; the weights themselves are not read."""
    try:
        card = load_card(uri)
    except UnavailableError:
        raise
    except (StorageError, RecordError):
        return False
    return card.weights_digest == weights_digest and storage.exists(storage.join(uri, _WEIGHTS))


def load_model(uri: str) -> tuple[Classifier, ModelCard]:
    """Rebuild a saved model on the CPU, in eval mode.

    Raises WeightsError when its weights are not those that its card was written for.
    """
    card = load_card(uri)
    source = storage.join(uri, _WEIGHTS)
    content = storage.read_bytes(source)
    digest = storage.digest_bytes([content])
    if digest != card.weights_digest:
        raise WeightsError(
            f"{_WEIGHTS} must have the digest {card.weights_digest} of its card",
            value=digest,
            remedy=f"{source} is damaged or of another model: copy both files again.",
        )
    classifier = _untrained(card)
    load_exactly(
        classifier, parse_safetensors(content, source), source=source, remedy=f"Copy {_CARD} and {_WEIGHTS} together."
    )
    return classifier.eval(), card


def save_backbone(uri: str, backbone: Backbone) -> None:
    """Write the weights of a backbone to one file, which `load_pretrained` reads; name it `.safetensors`."""
    storage.write_bytes(uri, _serialize(backbone))


def _serialize(module: nn.Module) -> bytes:
    return safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    )


def _untrained(card: ModelCard) -> Classifier:
    spec = card.backbone
    with seeded(0):
        backbone = create_backbone(spec.name, spec.kwargs, spec.image_size)
        head = new_head(card.hyperparameters.head, backbone.feature_dim, sum(card.output_counts))
        return Classifier(backbone, head, card.output_counts, multi_label=card.is_multi_label)
