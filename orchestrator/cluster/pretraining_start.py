"""Puts the weights that a pretraining begins with where every worker finds them."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator import storage
from orchestrator.finetune.backbone_cards import find_card
from orchestrator.finetune.models import save_backbone
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec, StartingWeights


@dataclass(frozen=True, kw_only=True)
class KeptStart:
    """Hold the path, below the run directory, of weights that `source` names, and their digest.

    `learnt` are the fingerprints of the data whose labels they know, as far as a card beside them says so.
    """

    source: str
    weights: str
    digest: str
    learnt: tuple[str, ...] = ()

    def described(self) -> StartingWeights:
        """Say what they are."""
        return StartingWeights(source=self.source, digest=self.digest, learnt=list(self.learnt))


def keep_start(source: str, spec: BackboneSpec, run_uri: str, folder: str) -> KeptStart | None:
    """Copy the weights that `source` names to a folder of the run; None for random ones.

    Raises what `load_pretrained` raises.
    """
    if source == "none":
        return None
    backbone, digest = load_pretrained(source, spec, seed=0)
    weights = f"{folder}/{digest}.safetensors"
    if not storage.exists(storage.join(run_uri, weights)):
        save_backbone(storage.join(run_uri, weights), backbone)
    card = find_card(source, digest=digest, image_size=spec.image_size)
    pretraining = None if card is None else card.pretraining
    learnt = () if pretraining is None else tuple(sorted(pretraining.learnt))
    return KeptStart(source=source, weights=weights, digest=digest, learnt=learnt)
