"""Says in words what a balanced training repeats."""

from __future__ import annotations

from orchestrator.records import Balance
from orchestrator.reporting.wording import counted


def balance_finding(balance: Balance) -> str:
    """Say what a balanced epoch repeats, of which class most, and what it leaves out."""
    left_out = f"{balance.num_left_out:,} of {counted(balance.num_images, 'training image')}"
    if balance.num_repeated == 0:
        return f"Balanced epochs repeat no image; each leaves out {left_out}."
    return (
        f"Balanced epochs repeat images of {balance.num_repeated} of {counted(balance.num_classes, 'class')}, most "
        f"often those of {balance.most_repeated} ({counted(balance.most_repeated_images, 'image')}, each "
        f"{balance.times_shown:.1f} times an epoch); each leaves out {left_out}."
    )
