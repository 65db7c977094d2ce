"""One subset as the subject of comparisons: what several models get right on its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pyarrow as pa

from orchestrator.config import ExperimentConfig
from orchestrator.evaluation.paired_answers import Correct
from orchestrator.evaluation.transfer import compare_on_split
from orchestrator.records import Answers, ArmResult, SplitComparison
from orchestrator.stages.answers import BySubset

JudgedSplit = Literal["val", "test"]
BySplit = Mapping[str, Correct]
_NONE = np.zeros(0, dtype=np.bool_)
_NO_KIN = pa.array([], pa.string())


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """Hold what models get right on a subset's images, by split, `val` and `test`, in the catalogue's order.

    `own` is the group's model, whose path is `model`; `arms` are by name, those that failed left out. `together` says
    what each image shares with its kin.
    """

    subset: str
    group: str
    model: str
    together: Mapping[str, pa.Array]
    own: BySplit
    arms: Mapping[str, BySplit]

    @classmethod
    def of(
        cls,
        subset: str,
        group: str,
        model: str,
        together: Mapping[str, Mapping[str, pa.Array]],
        own: Mapping[str, BySubset],
        results: Sequence[ArmResult],
    ) -> Self:
        """Pick a subset's part of its group's kin and answers, by split and subset, and of the arms' results."""
        mine = [result for result in results if subset in result.answers]
        return cls(
            subset=subset,
            group=group,
            model=model,
            together={split: found.get(subset, _NO_KIN) for split, found in together.items()},
            own={split: found.get(subset, _NONE) for split, found in own.items()},
            arms={result.name: by_split(result.answers[subset]) for result in mine},
        )

    def compare(
        self, config: ExperimentConfig, split: JudgedSplit, others: Mapping[str, BySplit]
    ) -> SplitComparison | None:
        """Compare the group's model with others on one split; None without images there."""
        return compare_on_split(
            self.own[split],
            {name: found[split] for name, found in others.items()},
            self.together[split],
            bootstrap_samples=config.evaluate.bootstrap_samples,
            seed=config.seed,
        )


def by_split(answers: Answers) -> BySplit:
    """Give recorded answers as arrays."""
    return {
        "val": np.array(answers.validation, dtype=np.bool_),
        "test": np.array(answers.test, dtype=np.bool_),
    }
