"""The records of what a whole run found and cost."""

from __future__ import annotations

from orchestrator.records.advice import Advice
from orchestrator.records.backbones import BackboneRanking, ModelCard, PretrainedBackbone
from orchestrator.records.base import Record, Value
from orchestrator.records.catalogue import Catalogue
from orchestrator.records.costs import SearchCosts
from orchestrator.records.evaluation import Evaluation, PooledComparison
from orchestrator.records.explanations import Explanations
from orchestrator.records.groups import Groups
from orchestrator.records.investment import Investment
from orchestrator.records.profile import Distances, GroupDistances, Profile
from orchestrator.records.recipes import Recipe
from orchestrator.records.search import SearchResult
from orchestrator.records.subset_models import SubsetEvaluation
from orchestrator.records.transfer import Transfer


class StageCost(Value):
    """Say what one stage cost in this run directory, in wall seconds of all sessions that worked on its last result.

    `result` is the fingerprint of what they worked on, empty where it was not kept. `images` counts those that it went
    through, 0 where that says nothing. `cpus` and `gpus` are the cluster's at its end. `driver_bytes` is the most
    memory that the process which runs the stages has had up to then.
    """

    stage: str
    seconds: float
    trials: int = 0
    images: int = 0
    cpus: float = 0.0
    gpus: float = 0.0
    driver_bytes: int = 0
    result: str = ""


class Costs(Record):
    """Keep what every stage cost, and what sessions cost that ended before their stage did."""

    stages: list[StageCost] = []
    unfinished: list[StageCost] = []


class Report(Record):
    """Hold everything that the report shows."""

    name: str
    catalogue: Catalogue
    profile: Profile
    groups: Groups
    searches: list[SearchResult]
    recipes: list[Recipe]
    models: list[ModelCard]
    evaluations: list[Evaluation]
    comparisons: list[PooledComparison]
    costs: list[StageCost]
    search_costs: SearchCosts | None = None
    rankings: list[BackboneRanking] = []
    distances: Distances | None = None
    group_distances: GroupDistances | None = None
    explanations: list[Explanations] = []
    transfer: Transfer | None = None
    subset_evaluations: list[SubsetEvaluation] = []
    investment: Investment | None = None
    advice: list[Advice] = []
    backbone: PretrainedBackbone | None = None
