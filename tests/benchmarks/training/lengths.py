"""Says how long the measured trainings are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Hold the numbers of measured epochs, after one that warms up, and of repeats.

    `suffix_copies` is how often the training images are repeated where a GPU trains, which is soon done with them.
    """

    repeats: int = 3
    ddp_epochs: int = 6
    suffix_epochs: int = 10
    suffix_copies: int = 16
    on_cpu_too: bool = False

    @classmethod
    def tiny(cls) -> Lengths:
        """Give lengths that try every line and measure nothing: without a GPU on the CPU."""
        return cls(repeats=1, ddp_epochs=2, suffix_epochs=2, suffix_copies=1, on_cpu_too=True)
