"""How well the own models of subsets tell images of the source that none of them saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.cluster.subset_training import PackingPlan, score_packed
from orchestrator.config import Negatives
from orchestrator.evaluation.outlier_judging import judge_predicted_outliers
from orchestrator.evaluation.outliers import Scores
from orchestrator.evaluation.parts import PredictionParts
from orchestrator.records import OutlierScores
from orchestrator.stages.context import GroupContext
from orchestrator.stages.sources import unseen_blocks


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceScores:
    """Hold by subset the outlier scores [n] that its own model gives images of the source.

    `together` [n] says what each image shares with its kin.
    """

    by_subset: Mapping[str, Scores] = field(default_factory=dict)
    together: Sequence[str] = ()

    def judge(
        self, subset: str, target: PredictionParts, negatives: Negatives, *, bootstrap_samples: int, seed: int
    ) -> OutlierScores | None:
        """Judge a subset's model by these and by its scores of the subset's test images; None where a side has none."""
        scores = self.by_subset.get(subset)
        if scores is None:
            return None
        return judge_predicted_outliers(
            target,
            scores,
            negatives,
            source_together=self.together,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
        )


def score_source(context: GroupContext, models: Mapping[str, str], plan: PackingPlan) -> SourceScores:
    """Score the images that test a group's model by the models of its subsets too: by subset, where each model lies.

    There are none without a source, and where no model tells outliers.
    """
    if context.source is None or not models:
        return SourceScores()
    blocks, together = unseen_blocks(context.source, context.table, seed=context.config.seed)
    if not blocks:
        return SourceScores()
    subsets = list(models)
    found = score_packed(list(models.values()), blocks, context.source.reader, plan, context.shape)
    return SourceScores(by_subset={subsets[index]: scores for index, scores in found}, together=together)
