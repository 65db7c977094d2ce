"""The frozen records that flow between stages: values and paths, never tensors or Ray handles."""

from orchestrator.records.advice import Advice, AdviceKind
from orchestrator.records.backbones import (
    BackboneRanking,
    BackboneSpec,
    CandidateMeasures,
    CandidateScores,
    ModelCard,
    PretrainedBackbone,
    RankedCandidate,
    SubsetRank,
)
from orchestrator.records.base import Record, Value
from orchestrator.records.catalogue import Catalogue, CopyCount, SubsetCount
from orchestrator.records.costs import CompiledCost, CostFigures, DepthCost, SearchCosts
from orchestrator.records.evaluation import (
    Baseline,
    BaselineResult,
    Calibration,
    ClassNeighbour,
    ClassScores,
    ConfidenceBin,
    Evaluation,
    FeatureSeparation,
    PooledComparison,
    Scores,
    SubsetScores,
)
from orchestrator.records.explanations import Explanation, ExplanationMethod, Explanations
from orchestrator.records.groups import Assignment, Assignments, Group, GroupingRule, Groups
from orchestrator.records.investment import (
    Gain,
    GroupInvestment,
    Investment,
    Prospect,
    Spending,
    SpendingPart,
    SubsetInvestment,
)
from orchestrator.records.profile import ClassPair, Distances, Profile, Relation, SourceDistance, SubsetProfile
from orchestrator.records.recipes import PLAIN_CHOICES, Hyperparameters, Recipe
from orchestrator.records.report import Costs, Report, StageCost
from orchestrator.records.search import EpochMetrics, RaceRun, SearchResult, Trial, TrialOrigin

__all__ = [
    "PLAIN_CHOICES",
    "Advice",
    "AdviceKind",
    "Assignment",
    "Assignments",
    "BackboneRanking",
    "BackboneSpec",
    "Baseline",
    "BaselineResult",
    "Calibration",
    "CandidateMeasures",
    "CandidateScores",
    "Catalogue",
    "ClassNeighbour",
    "ClassPair",
    "ClassScores",
    "CompiledCost",
    "ConfidenceBin",
    "CopyCount",
    "CostFigures",
    "Costs",
    "DepthCost",
    "Distances",
    "EpochMetrics",
    "Evaluation",
    "Explanation",
    "ExplanationMethod",
    "Explanations",
    "FeatureSeparation",
    "Gain",
    "Group",
    "GroupInvestment",
    "GroupingRule",
    "Groups",
    "Hyperparameters",
    "Investment",
    "ModelCard",
    "PooledComparison",
    "PretrainedBackbone",
    "Profile",
    "Prospect",
    "RaceRun",
    "RankedCandidate",
    "Recipe",
    "Record",
    "Relation",
    "Report",
    "Scores",
    "SearchCosts",
    "SearchResult",
    "SourceDistance",
    "Spending",
    "SpendingPart",
    "StageCost",
    "SubsetCount",
    "SubsetInvestment",
    "SubsetProfile",
    "SubsetRank",
    "SubsetScores",
    "Trial",
    "TrialOrigin",
    "Value",
]
