"""Says in words, by rule from the records, what transfer gave the subsets and what was done where it hurt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.records import ArmGain, Regrouping, SubsetTransfer, Transfer
from orchestrator.reporting.wording import counted, duration, enumerated, points, points_interval, shortened

ARM_TITLES = {
    "from_scratch": "from scratch, equal cost",
    "head_only": "head only",
    "target_only": "target only",
    "subset_only": "subset only",
    "pooled": "all groups pooled",
}
TRANSFER_TITLES = {"helps": "helps", "no_difference": "no difference", "hurts": "hurts", None: "not compared"}
TRANSFER_MARKS = {"helps": "better", "no_difference": "unclear", "hurts": "worse", None: "unknown"}

_ORDER = ("hurts", "no_difference", "helps", None)
_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class TransferRow:
    """Hold what the report shows of one subset; `gains` are over the arms of `arm_titles`, in that order."""

    found: SubsetTransfer
    gains: list[ArmGain | None]
    done: str


def transfer_finding(transfer: Transfer) -> str:
    """Sum up the verdicts of all subsets."""
    verdicts = [found.verdict for found in transfer.subsets]
    hurt = [found.subset for found in transfer.subsets if found.verdict == "hurts"]
    said = [
        f"Transfer helps {verdicts.count('helps')} of {counted(len(verdicts), 'subset')}",
        f"makes no difference beyond chance to {verdicts.count('no_difference')}",
        f"hurts {len(hurt)}{f' ({shortened(hurt, most=_MOST_NAMED)})' if hurt else ''}",
    ]
    uncompared = verdicts.count(None)
    tail = f" {counted(uncompared, 'subset')} could not be compared." if uncompared else ""
    short = [found.subset for found in transfer.subsets if _is_short_of_pooled(found)]
    more = f" The pooled model of all groups is better for {shortened(short, most=_MOST_NAMED)}." if short else ""
    return f"{enumerated(said)}.{tail}{more}"


def regrouping_finding(regrouping: Regrouping) -> str:
    """Say what moved, what training again took against what was predicted, and what it gained."""
    moved = [f"{move.subset} from {move.origin} to {move.destination}" for move in regrouping.moves]
    parts = [f"Regrouping: {regrouping.reason}."]
    if moved:
        predicted = sum(model.predicted_s for model in regrouping.models)
        taken = sum(model.seconds for model in regrouping.models)
        parts.append(
            f"Moved: {shortened(moved, most=_MOST_NAMED)}. Training again took {duration(taken)}, "
            f"predicted {duration(predicted)}."
        )
    if regrouping.budget_left_s is not None:
        parts.append(f"The search had left {duration(regrouping.budget_left_s)} of its budget.")
    return " ".join(parts)


def arm_titles(transfer: Transfer) -> dict[str, str]:
    """Give the titles of the arms that are compared: without a source none is without it."""
    has_source = any(arm.name == "target_only" for arm in transfer.arms)
    return {name: title for name, title in ARM_TITLES.items() if has_source or name != "target_only"}


def transfer_rows(transfer: Transfer) -> list[TransferRow]:
    """Give a row for each subset, those that transfer hurts first."""
    names = list(arm_titles(transfer))
    rows = [TransferRow(found=found, gains=_gains(found, names), done=_done(found)) for found in transfer.subsets]
    return sorted(rows, key=lambda row: (_ORDER.index(row.found.verdict), row.found.subset))


def _gains(found: SubsetTransfer, names: Sequence[str]) -> list[ArmGain | None]:
    by_name = {other.name: other for other in found.test.others} if found.test else {}
    return [by_name.get(name) for name in names]


def _done(found: SubsetTransfer) -> str:
    whats = {
        "kept": "kept",
        "fallback": f"fell back to {ARM_TITLES.get(found.taken or '', '')}",
        "moved": f"moved to {found.taken}",
        "retrained": "trained again",
    }
    gain = found.gain
    if gain is None or gain.test_gain is None:
        return f"{whats[found.action]}: {found.reason}"
    gained = f"{points(gain.test_gain)} points {points_interval(gain.test_interval)} on test images"
    return f"{whats[found.action]}: {found.reason}; {gained}"


def _is_short_of_pooled(found: SubsetTransfer) -> bool:
    others: Sequence[ArmGain] = found.test.others if found.test else []
    return any(other.name == "pooled" and other.gain_interval[1] < 0 for other in others)
