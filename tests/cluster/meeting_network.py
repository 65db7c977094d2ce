"""A network that is made only where several processes make one at the same time."""

from __future__ import annotations

import os
import time
from pathlib import Path

from orchestrator.finetune.backbones import Backbone
from tests.stages.tiny_network import tiny_backbone

_PATIENCE_S = 60.0


def meeting_backbone(folder: str, count: int) -> Backbone:
    """Make the tiny network; where the folder is there, after as many processes have come to it.

    Raises TimeoutError when they do not come: work that is done one after the other never meets.
    """
    place = Path(folder)
    if place.exists():
        (place / str(os.getpid())).touch()
        patient_until = time.monotonic() + _PATIENCE_S
        while len(list(place.iterdir())) < count:
            if time.monotonic() > patient_until:
                raise TimeoutError(f"{count} processes should have come to {folder}")
            time.sleep(0.05)
    return tiny_backbone()
