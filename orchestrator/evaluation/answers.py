"""Packs what was right into the bits that records hold, and gives it back."""

from __future__ import annotations

from base64 import b64decode, b64encode

import numpy as np
from numpy.typing import NDArray

from orchestrator.records import PackedAnswers


def pack(correct: NDArray[np.bool_]) -> PackedAnswers:
    """Pack which of n images [n] were right."""
    return PackedAnswers(count=len(correct), bits=b64encode(np.packbits(correct).tobytes()).decode("ascii"))


def unpack(answers: PackedAnswers) -> NDArray[np.bool_]:
    """Tell which of n images [n] were right."""
    content = np.frombuffer(b64decode(answers.bits), dtype=np.uint8)
    return np.unpackbits(content, count=answers.count).astype(np.bool_)
