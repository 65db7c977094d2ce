"""Adds up what stages cost over all sessions that worked on the same result, those that were interrupted included."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator import storage
from orchestrator.cluster.profiling import PROFILE_VERSION
from orchestrator.cluster.transfer_arms import ARM_VERSION
from orchestrator.evaluation.judging import EVALUATION_VERSION
from orchestrator.evaluation.subset_comparisons import SUBSET_EVALUATION_VERSION
from orchestrator.evaluation.transfer import TRANSFER_VERSION
from orchestrator.records import Costs, StageCost
from orchestrator.stages.distances import DISTANCES_VERSION
from orchestrator.stages.inputs import RunInputs
from orchestrator.stages.train import model_fingerprint


def result_of(stage: str, inputs: RunInputs) -> str:
    """Fingerprint the result that a stage works on; a changed key or input makes another one.

    Empty for the report, whose every session is a work of its own. Raises RecordError where a stage before it has not
    run.
    """
    match stage:
        case "pretrain":
            # Candidates are prepared before there is a catalogue to choose by.
            candidates = inputs.config.backbone.candidates
            own = sorted(inputs.candidates.fingerprints.items()) if candidates else inputs.backbone_fingerprint
            return storage.digest(stage, own)
        case "catalogue":
            plans = [plan for plan in (inputs.ingest, inputs.companion) if plan is not None]
            return storage.digest(stage, [inputs.catalogue_fingerprint(plan) for plan in plans])
        case "profile":
            # Which of several backbones it is done with is chosen within the stage.
            backbone = inputs.backbone_fingerprint if inputs.measures_features else ""
            related = inputs.companion if inputs.measures_features else None
            companion = "" if related is None else inputs.catalogue_fingerprint(related)
            config = inputs.config
            measured = [config.diversity.model_dump(mode="json"), config.grouping.min_images, config.seed]
            versions = [PROFILE_VERSION, DISTANCES_VERSION]
            return storage.digest(stage, inputs.catalogue.fingerprint, backbone, companion, measured, versions)
        case "group":
            return storage.digest(stage, inputs.groups_fingerprint)
        case "search":
            # A search that is made longer goes on with the trials that it has.
            context = inputs.context
            return storage.digest(stage, [context.study_fingerprint(group) for group in context.groups.groups])
        case "train":
            return storage.digest(stage, _models(inputs), inputs.config.train.scope)
        case "evaluate":
            evaluate = [inputs.config.evaluate.model_dump(mode="json"), inputs.config.seed]
            versions = [EVALUATION_VERSION, SUBSET_EVALUATION_VERSION, TRANSFER_VERSION, ARM_VERSION]
            return storage.digest(stage, _models(inputs), inputs.config.train.scope, evaluate, versions)
    return ""


def add_session(costs: Costs, session: StageCost, *, is_finished: bool) -> Costs:
    """Add what a session spent on a stage to what earlier ones did on the same result.

    What a stage cost is known by its last finished result; sessions that were interrupted wait until theirs is.
    """
    known = [*costs.stages, *costs.unfinished] if is_finished else costs.unfinished
    earlier = [cost for cost in known if (cost.stage, cost.result) == (session.stage, session.result) and cost.result]
    total = session.model_copy(
        update={
            "seconds": session.seconds + sum(cost.seconds for cost in earlier),
            "trials": session.trials + sum(cost.trials for cost in earlier),
            "images": session.images or max((cost.images for cost in earlier), default=0),
            "driver_bytes": max(session.driver_bytes, *(cost.driver_bytes for cost in earlier), 0),
        }
    )
    unfinished = _without(costs.unfinished, session.stage)
    if not is_finished:
        return costs.model_copy(update={"unfinished": [*unfinished, total]})
    return costs.model_copy(
        update={"stages": [*_without(costs.stages, session.stage), total], "unfinished": unfinished}
    )


def _without(costs: Sequence[StageCost], stage: str) -> list[StageCost]:
    return [cost for cost in costs if cost.stage != stage]


def _models(inputs: RunInputs) -> list[str]:
    return [model_fingerprint(inputs.context, recipe) for recipe in inputs.context.recipes()]
