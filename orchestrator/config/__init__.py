"""The experiment file as frozen, typed sections; unknown keys are forbidden.

Validators speak as "field rule, got value: remedy", with the field as seen from their own section.
"""

from orchestrator.config.backbone import (
    BackboneConfig,
    CandidateConfig,
    LabelNeed,
    Objective,
    PretrainConfig,
    PretrainedNetwork,
    SimSiamConfig,
)
from orchestrator.config.base import (
    DiversityMeasure,
    EntropyEstimator,
    OptimizerName,
    PrecisionName,
    SamplerName,
    SplitName,
)
from orchestrator.config.data import (
    DEMO_URI,
    SOURCE_URI,
    DataConfig,
    DataFormat,
    Deduplicate,
    InputFormat,
    Section,
    SplitConfig,
    SplitFractions,
)
from orchestrator.config.diversity import DiversityConfig, GroupingConfig
from orchestrator.config.experiment import (
    ClusterConfig,
    EpisodesConfig,
    EvaluateConfig,
    ExperimentConfig,
    OnNegativeTransfer,
    ResourceCosts,
    SeedsConfig,
    TrainConfig,
)
from orchestrator.config.finetune import (
    NAME_TAG,
    NUMBERS_TAG,
    FineTuneConfig,
    HeadName,
    LossName,
    MixingName,
    RegularizerName,
    SmoothingTarget,
    StrategyName,
)
from orchestrator.config.reptile import ReptileConfig
from orchestrator.config.search import AugmentConfig, BudgetConfig, CacheConfig, SearchConfig
from orchestrator.config.source import DomainPenalty, Negatives, SourceConfig
from orchestrator.config.space import CHOICES_TAG, RANGE_TAG, Range, SpaceConfig

__all__ = [
    "CHOICES_TAG",
    "DEMO_URI",
    "NAME_TAG",
    "NUMBERS_TAG",
    "RANGE_TAG",
    "SOURCE_URI",
    "AugmentConfig",
    "BackboneConfig",
    "BudgetConfig",
    "CacheConfig",
    "CandidateConfig",
    "ClusterConfig",
    "DataConfig",
    "DataFormat",
    "Deduplicate",
    "DiversityConfig",
    "DiversityMeasure",
    "DomainPenalty",
    "EntropyEstimator",
    "EpisodesConfig",
    "EvaluateConfig",
    "ExperimentConfig",
    "FineTuneConfig",
    "GroupingConfig",
    "HeadName",
    "InputFormat",
    "LabelNeed",
    "LossName",
    "MixingName",
    "Negatives",
    "Objective",
    "OnNegativeTransfer",
    "OptimizerName",
    "PrecisionName",
    "PretrainConfig",
    "PretrainedNetwork",
    "Range",
    "RegularizerName",
    "ReptileConfig",
    "ResourceCosts",
    "SamplerName",
    "SearchConfig",
    "Section",
    "SeedsConfig",
    "SimSiamConfig",
    "SmoothingTarget",
    "SourceConfig",
    "SpaceConfig",
    "SplitConfig",
    "SplitFractions",
    "SplitName",
    "StrategyName",
    "TrainConfig",
]
