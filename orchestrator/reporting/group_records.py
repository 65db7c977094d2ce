"""What is known of one group, gathered from the report's records for rules that weigh several of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.records import (
    Evaluation,
    Group,
    GroupInvestment,
    ModelCard,
    Report,
    SearchResult,
    SubsetProfile,
    of_group,
)
from orchestrator.search.finals import noise_variance


@dataclass(frozen=True, kw_only=True)
class GroupRecords:
    """Hold a group's records, None where they are missing; `training` and `num_validation` count images.

    `training` is by subset.
    """

    group: Group
    profiles: list[SubsetProfile]
    training: dict[str, int]
    num_validation: int
    search: SearchResult | None
    model: ModelCard | None
    evaluation: Evaluation | None
    investment: GroupInvestment | None

    @classmethod
    def of(cls, report: Report, group: Group) -> GroupRecords:
        """Gather the records of a group."""
        members = set(group.subsets)
        counts = [found for found in report.catalogue.subsets if found.subset in members]
        invested = [] if report.investment is None else report.investment.groups
        return cls(
            group=group,
            profiles=[profile for profile in report.profile.subsets if profile.subset in members],
            training={found.subset: found.train for found in counts},
            num_validation=sum(found.val for found in counts),
            search=of_group(group.name, report.searches),
            model=of_group(group.name, report.models),
            evaluation=of_group(group.name, report.evaluations),
            investment=of_group(group.name, invested),
        )

    @property
    def label_counts(self) -> dict[str, int]:
        """Add up the profiled images of every class over the group's subsets."""
        counts: dict[str, int] = {}
        for profile in self.profiles:
            for label, count in profile.label_counts.items():
                counts[label] = counts.get(label, 0) + count
        return counts

    def noise(self, score: float, metric: str) -> float:
        """Give the standard deviation of the difference of two validation scores on the group's images."""
        return math.sqrt(2 * noise_variance(score, self.num_validation, metric))

    def trial_noise(self, score: float, metric: str) -> float:
        """Give that of two trials: with folds they are judged on training images too, by as many models."""
        folds = 1 if self.search is None else self.search.folds
        if folds == 1:
            return self.noise(score, metric)
        num_judged = self.num_validation + sum(self.training.values())
        return math.sqrt(2 * noise_variance(score, num_judged, metric, trainings=folds))
