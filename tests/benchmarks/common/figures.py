"""One measured comparison, and the line of JSON that says it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Hold a ratio of medians, peer over ours, with what it should at least be."""

    benchmark: str
    ours: float
    peer: float
    aim: float
    unit: str

    @classmethod
    def of_medians(
        cls, benchmark: str, *, ours: Sequence[float], peer: Sequence[float], aim: float, unit: str
    ) -> Figure:
        """Take the medians of repeats; infinity stands for what was never reached."""
        return cls(benchmark=benchmark, ours=statistics.median(ours), peer=statistics.median(peer), aim=aim, unit=unit)

    @property
    def ratio(self) -> float:
        """Divide the peer by ours: 0 where ours never got there, infinite where only the peer did not."""
        if math.isinf(self.ours):
            return 0.0
        return self.peer / self.ours if self.ours > 0 else math.inf

    def line(self) -> str:
        """Write the figure as one JSON object; what is not finite becomes null, which JSON can say."""
        values = {"ratio": self.ratio, "aim": self.aim, "ours": self.ours, "peer": self.peer}
        shown = {name: _rounded(value) for name, value in values.items()}
        return json.dumps({"benchmark": self.benchmark, **shown, "unit": self.unit}, allow_nan=False)


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
