"""Accounts for what every group and subset cost and gained, from the records of the stages before: no work of its own.

Charged is what work held while it ran. Nodes that idle, workers that start, testing and the report are nobody's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestrator.config import EvaluateConfig, ExperimentConfig, ResourceCosts
from orchestrator.evaluation.gains import cheapest_baseline, subset_gains
from orchestrator.evaluation.paired_answers import PairedAnswers, PairedGain
from orchestrator.records import (
    Baseline,
    Catalogue,
    Evaluation,
    Gain,
    Group,
    GroupInvestment,
    Investment,
    Prospect,
    Report,
    SearchResult,
    Spending,
    SpendingPart,
    StageCost,
    SubsetInvestment,
    of_group,
)
from orchestrator.search.finals import noise_variance
from orchestrator.search.prospects import chance_of_gain
from orchestrator.stages.beside import Beside, add_parts, beside_models
from orchestrator.stages.spendings import add_up, plus, priced, scaled

SubsetGains = Mapping[str, tuple[int, PairedGain]]
"""By subset its test images, and what they gain."""

_SHARED_STAGES = ("pretrain", "catalogue", "profile", "group")


def gains_of_subsets(
    evaluation: Evaluation, answers: Mapping[str, PairedAnswers], config: EvaluateConfig, seed: int
) -> SubsetGains:
    """Say what each tested subset of a group gains over the cheapest of its baselines; nothing where there is none.

    `answers` hold, by subset, what the group's model and its baselines got right.
    """
    baseline = cheapest_baseline(evaluation)
    if baseline is None:
        return {}
    found = subset_gains(answers, baseline.name, bootstrap_samples=config.bootstrap_samples, seed=seed)
    return {name: (num_images, paired) for name, num_images, paired in found}


def account(
    report: Report,
    gains: Mapping[str, SubsetGains],
    config: ExperimentConfig,
    *,
    shipped: Mapping[str, SubsetGains],
) -> Investment:
    """Account for the investment in every group of a run.

    `gains` are by group those of its subsets with its model, `shipped` those of subsets that another model serves.
    """
    prices = config.cluster.cost_per_hour
    shared = _shared(report, config)
    total = sum(sum(_images(report.catalogue, group).values()) for group in report.groups.groups)
    training = {found.subset: found.train for found in report.catalogue.subsets}
    beside = beside_models(report, training, prices)
    groups = []
    for group in report.groups.groups:
        share = sum(_images(report.catalogue, group).values()) / max(1, total)
        found = _account_group(report, group, gains.get(group.name, {}), scaled(shared, share), config)
        found = _with_beside(found, beside)
        groups.append(_with_shipped(found, report, shipped.get(group.name, {}), config))
    return Investment(
        fingerprint=report.fingerprint, cost_per_hour={} if prices is None else prices.model_dump(), groups=groups
    )


def find_prospect(search: SearchResult, *, num_judged: int, folds: int) -> Prospect | None:
    """Say what as many trials again promise, by those that have ended; None where these are too few to tell.

    The values of trials are means over `num_judged` images, judged by `folds` models together.
    """
    sign = -1.0 if search.mode == "min" else 1.0
    ended = sorted(search.trials, key=lambda trial: trial.started + trial.seconds)
    values = [sign * trial.value for trial in ended if trial.value is not None]
    if not values:
        return None
    variance = noise_variance(sign * max(values), num_judged, search.metric, trainings=folds)
    least_gain = math.sqrt(2 * variance)
    chance = chance_of_gain(values, further=len(values), least_gain=least_gain)
    of_next = chance_of_gain(values, further=1, least_gain=least_gain)
    if chance is None or of_next is None:
        return None
    return Prospect(
        num_trials=len(values),
        seconds=sum(trial.seconds for trial in search.trials),
        least_gain=least_gain,
        chance=chance,
        chance_of_next=of_next,
    )


def _with_beside(found: GroupInvestment, beside: Mapping[str, Beside]) -> GroupInvestment:
    """Add to a group and its subsets what was spent on other models for them."""
    subsets = [subset.model_copy(update={"beside": beside.get(subset.subset, {})}) for subset in found.subsets]
    return found.model_copy(update={"beside": add_parts([subset.beside for subset in subsets]), "subsets": subsets})


def _with_shipped(
    found: GroupInvestment, report: Report, gains: SubsetGains, config: ExperimentConfig
) -> GroupInvestment:
    """Account with what a subset is served by, where that is another model than its group's first one.

    It was found by what was spent beside the group's model, which it therefore costs too; verdicts that are but
    reported have found nothing.
    """
    evaluation = of_group(found.group, report.evaluations)
    baseline = None if evaluation is None else cheapest_baseline(evaluation)
    if baseline is None or not gains:
        return found
    is_reported = report.transfer is not None and report.transfer.mode == "report"
    subsets = []
    for subset in found.subsets:
        if subset.subset in gains:
            num_images, paired = gains[subset.subset]
            beside = [cost for part, cost in subset.beside.items() if part == "subset_models" or not is_reported]
            spent = add_up(subset.spent, *beside)
            gain = _gain(baseline, num_images, paired, spent, config.cluster.cost_per_hour, subset.share)
            subset = subset.model_copy(update={"gain": gain, "first_gain": subset.gain})
        subsets.append(subset)
    return found.model_copy(update={"subsets": subsets})


def _account_group(
    report: Report, group: Group, gains: SubsetGains, shared: Spending, config: ExperimentConfig
) -> GroupInvestment:
    prices = config.cluster.cost_per_hour
    search = of_group(group.name, report.searches)
    evaluation = of_group(group.name, report.evaluations)
    parts: dict[SpendingPart, Spending] = {"shared": shared, **_own_parts(report, group, prices)}
    spent = add_up(*(spending for part, spending in parts.items() if part != "baselines"))
    baseline = None if evaluation is None else cheapest_baseline(evaluation)
    gain: Gain | None = None
    if baseline is not None and evaluation is not None:
        assert baseline.accuracy_gain is not None and baseline.accuracy_gain_interval is not None
        paired = (baseline.accuracy_gain, baseline.accuracy_gain_interval)
        gain = _gain(baseline, evaluation.num_images, paired, spent, prices)
    return GroupInvestment(
        group=group.name,
        parts=parts,
        spent=spent,
        gain=gain,
        prospect=None if search is None else _prospect_of(report, group, search),
        subsets=_subsets(report.catalogue, group, spent, baseline, gains, prices),
    )


def _own_parts(report: Report, group: Group, prices: ResourceCosts | None) -> dict[SpendingPart, Spending]:
    """Add up what a group's trials, races, final training and baselines took."""
    parts: dict[SpendingPart, Spending] = {}
    for search in report.searches:
        if search.group == group.name:
            held = search.trial_resources
            parts["search"] = priced(sum(trial.seconds for trial in search.trials), held, prices)
            parts["race"] = priced(sum(run.seconds for run in search.race), held, prices)
    for model in report.models:
        if model.group == group.name:
            parts["training"] = priced(model.seconds * model.num_workers, model.worker_resources, prices)
    for evaluation in report.evaluations:
        if evaluation.group == group.name:
            arms = (priced(baseline.seconds, baseline.resources, prices) for baseline in evaluation.baselines)
            parts["baselines"] = add_up(*arms)
    return parts


def _shared(report: Report, config: ExperimentConfig) -> Spending:
    """Add up what all groups share: the stages before the search, and what the search prepared for all its trials.

    While these run, nothing else does: they are charged with all CPUs, and with all GPUs where networks run on them.
    """
    on_gpu = {
        "pretrain": config.backbone.weights == "pretrain",
        "profile": "feature_diversity" in config.diversity.measures,
    }
    by_stage = {cost.stage: cost for cost in report.costs}
    on_record = _seconds_on_record(report, config)
    parts = []
    for stage in _SHARED_STAGES:
        # What a session held that was killed outright nobody knows.
        cost = by_stage.get(stage, StageCost(stage=stage, seconds=0.0))
        seconds = max(cost.seconds, on_record.get(stage, 0.0))
        parts.append(_of_cluster(seconds, cost, config, on_gpu=on_gpu.get(stage, False)))
    if report.search_costs is not None and "search" in by_stage:
        prepared_s = report.search_costs.build_seconds + report.search_costs.probe_seconds
        parts.append(_of_cluster(prepared_s, by_stage["search"], config, on_gpu=True))
    return add_up(*parts)


def _seconds_on_record(report: Report, config: ExperimentConfig) -> dict[str, float]:
    """Give what stages' own records say of their seconds: a session that was killed outright has told nothing else."""
    pretraining = None if report.backbone is None else report.backbone.pretraining
    own = {} if pretraining is None or config.own_pretraining is None else {"pretrain": pretraining.seconds}
    return {"catalogue": report.catalogue.seconds, "profile": report.profile.seconds, **own}


def _of_cluster(seconds: float, cost: StageCost, config: ExperimentConfig, *, on_gpu: bool) -> Spending:
    gpus = cost.gpus if on_gpu and config.train.use_gpu is not False else 0.0
    held = {"CPU": cost.cpus, "GPU": gpus} if cost.cpus else {}
    return priced(seconds, held, config.cluster.cost_per_hour)


def _gain(
    baseline: Baseline,
    num_images: int,
    paired: PairedGain,
    spent: Spending,
    prices: ResourceCosts | None,
    share: float = 1.0,
) -> Gain:
    """Set what was gained against what was spent beyond the baseline's own training.

    The incremental cost-effectiveness ratio (Drummond et al., "Methods for the Economic Evaluation of Health Care
    Programmes", 2015): extra costs over extra effect, in points of accuracy.
    """
    gain, interval = paired
    of_baseline = scaled(priced(baseline.seconds, baseline.resources, prices), share)
    extra_s = spent.seconds - of_baseline.seconds
    extra_money = plus(spent.money, None if of_baseline.money is None else -of_baseline.money)
    points = 100 * gain if interval[0] > 0 else None
    return Gain(
        baseline=baseline.name,
        num_images=num_images,
        gain=gain,
        interval=interval,
        extra_seconds=extra_s,
        extra_money=extra_money,
        seconds_per_point=None if points is None else extra_s / points,
        money_per_point=None if points is None or extra_money is None else extra_money / points,
    )


def _subsets(
    catalogue: Catalogue,
    group: Group,
    spent: Spending,
    baseline: Baseline | None,
    gains: SubsetGains,
    prices: ResourceCosts | None,
) -> list[SubsetInvestment]:
    training = {found.subset: found.train for found in catalogue.subsets if found.subset in set(group.subsets)}
    total = max(1, sum(training.values()))
    found = []
    for name in group.subsets:
        share = training.get(name, 0) / total
        own = scaled(spent, share)
        gain: Gain | None = None
        if baseline is not None and name in gains:
            num_images, paired = gains[name]
            gain = _gain(baseline, num_images, paired, own, prices, share)
        found.append(SubsetInvestment(subset=name, share=share, spent=own, gain=gain))
    return found


def _prospect_of(report: Report, group: Group, search: SearchResult) -> Prospect | None:
    splits = ("val",) if search.folds == 1 else ("train", "val")
    images = _images(report.catalogue, group)
    return find_prospect(search, num_judged=sum(images[split] for split in splits), folds=search.folds)


def _images(catalogue: Catalogue, group: Group) -> dict[str, int]:
    """Count a group's images by split."""
    members = set(group.subsets)
    found = [subset for subset in catalogue.subsets if subset.subset in members]
    return {split: sum(getattr(subset, split) for subset in found) for split in ("train", "val", "test")}
