"""The frozen records that flow between stages: values and paths, never tensors or Ray handles."""

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
from orchestrator.records.pretraining import (
    Pretraining,
    PretrainingPhase,
    SimSiamEpoch,
    SimSiamPhase,
    SupervisedPhase,
    TrainedPhase,
)
from orchestrator.records.profile import ClassPair, Distances, Profile, Relation, SourceDistance, SubsetProfile
from orchestrator.records.recipes import PLAIN_CHOICES, Hyperparameters, Recipe
from orchestrator.records.report import Costs, Report, StageCost
from orchestrator.records.search import EpochMetrics, RaceRun, SearchResult, Trial, TrialOrigin

__all__ = [
    "PLAIN_CHOICES",
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
    "Group",
    "GroupingRule",
    "Groups",
    "Hyperparameters",
    "ModelCard",
    "PooledComparison",
    "PretrainedBackbone",
    "Pretraining",
    "PretrainingPhase",
    "Profile",
    "RaceRun",
    "RankedCandidate",
    "Recipe",
    "Record",
    "Relation",
    "Report",
    "Scores",
    "SearchCosts",
    "SearchResult",
    "SimSiamEpoch",
    "SimSiamPhase",
    "SourceDistance",
    "StageCost",
    "SubsetCount",
    "SubsetProfile",
    "SubsetRank",
    "SubsetScores",
    "SupervisedPhase",
    "TrainedPhase",
    "Trial",
    "TrialOrigin",
    "Value",
]
