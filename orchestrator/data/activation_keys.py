"""Names stored activations by all that they depend on: what changes one of these finds another entry, or none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config import AugmentConfig
from orchestrator.records import BackboneSpec

ACTIVATIONS_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ActivationKey:
    """Name all that the activations of some samples in one view depend on, depth and storage aside.

    `contents` are the digests of the samples' encoded bytes, in order, and `ids` their identities, which seed the
    views. `weights` is the digest of the backbone. View 0 is the image itself, whatever the augmentation.
    """

    contents: Sequence[str]
    ids: Sequence[str]
    spec: BackboneSpec
    weights: str
    precision: str
    view: int
    augment: AugmentConfig
    seed: int

    def names(self, dtypes: Mapping[int, str]) -> dict[int, str]:
        """Give the names of the entries by depth, 32 hexadecimal characters, for the stored type of each depth."""
        # How many views there are changes none of them.
        varied = [self.ids, self.augment.model_dump(mode="json", exclude={"views"}), self.seed]
        shared = _digest(
            [
                ACTIVATIONS_VERSION,
                self.contents,
                self.spec.model_dump(mode="json"),
                self.weights,
                self.precision,
                [self.view, *varied] if self.view else 0,
            ]
        )
        return {depth: _digest([shared, depth, dtype]) for depth, dtype in dtypes.items()}


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
