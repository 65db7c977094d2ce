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
from orchestrator.config.base import DiversityMeasure, EntropyEstimator, OptimizerName, SamplerName, SplitName
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
    EvaluateConfig,
    ExperimentConfig,
    SeedsConfig,
    TrainConfig,
)
from orchestrator.config.finetune import (
    FineTuneConfig,
    LossName,
    MixingName,
    RegularizerName,
    SmoothingTarget,
    StrategyName,
)
from orchestrator.config.search import AugmentConfig, BudgetConfig, CacheConfig, SearchConfig
from orchestrator.config.space import CHOICES_TAG, RANGE_TAG, Range, SpaceConfig

__all__ = [
    "CHOICES_TAG",
    "DEMO_URI",
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
    "EntropyEstimator",
    "EvaluateConfig",
    "ExperimentConfig",
    "FineTuneConfig",
    "GroupingConfig",
    "InputFormat",
    "LabelNeed",
    "LossName",
    "MixingName",
    "Objective",
    "OptimizerName",
    "PretrainConfig",
    "PretrainedNetwork",
    "Range",
    "RegularizerName",
    "SamplerName",
    "SearchConfig",
    "Section",
    "SeedsConfig",
    "SimSiamConfig",
    "SmoothingTarget",
    "SpaceConfig",
    "SplitConfig",
    "SplitFractions",
    "SplitName",
    "StrategyName",
    "TrainConfig",
]
