"""Packs what was right, and probabilities, into the text that records hold, and gives them back."""

from __future__ import annotations

from base64 import b64decode, b64encode

import numpy as np
from numpy.typing import NDArray

from orchestrator.records import PackedAnswers, PackedMatrix


def pack(correct: NDArray[np.bool_]) -> PackedAnswers:
    """Pack which of n images [n] were right."""
    return PackedAnswers(count=len(correct), bits=b64encode(np.packbits(correct).tobytes()).decode("ascii"))


def unpack(answers: PackedAnswers) -> NDArray[np.bool_]:
    """Tell which of n images [n] were right."""
    content = np.frombuffer(b64decode(answers.bits), dtype=np.uint8)
    return np.unpackbits(content, count=answers.count).astype(np.bool_)


def pack_matrix(values: NDArray[np.float32]) -> PackedMatrix:
    """Pack numbers [n, K]."""
    rows, columns = values.shape
    content = np.ascontiguousarray(values, dtype="<f4").tobytes()
    return PackedMatrix(rows=rows, columns=columns, values=b64encode(content).decode("ascii"))


def unpack_matrix(packed: PackedMatrix) -> NDArray[np.float32]:
    """Give numbers float32 [n, K]."""
    values = np.frombuffer(b64decode(packed.values), dtype="<f4").astype(np.float32)
    return values.reshape(packed.rows, packed.columns)
