"""Puts the records of a run together into its report."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator import storage
from orchestrator.errors import StorageError, UnavailableError
from orchestrator.evaluation.answered_images import add_up_by_subset
from orchestrator.evaluation.comparisons import pool
from orchestrator.evaluation.gains import answers_of_shipped, cheapest_baseline
from orchestrator.evaluation.paired_answers import PairedAnswers, add_up
from orchestrator.records import BackboneRanking, Distances, Evaluation, GroupDistances, Report, StageCost
from orchestrator.reporting.advice import advise
from orchestrator.reporting.html import render_html
from orchestrator.stages.context import GroupContext
from orchestrator.stages.evaluate import read_answers, read_evaluations
from orchestrator.stages.explain import read_explanations, read_pictures
from orchestrator.stages.inputs import RunInputs
from orchestrator.stages.investment import SubsetGains, account, gains_of_subsets
from orchestrator.stages.search import read_searches
from orchestrator.stages.shared_inputs import read_costs
from orchestrator.stages.shipped import shipped_answers
from orchestrator.stages.subset_models import read_subset_evaluations
from orchestrator.stages.train import read_models
from orchestrator.stages.transfer import read_transfer


def report(inputs: RunInputs, *, costs: Sequence[StageCost], chosen: BackboneRanking | None) -> None:
    """Write `report.html`, `investment.json` and, last, `report.json`.

    `chosen` is the ranking that chose the run's backbone, if one did. Raises RecordError where a record is missing.
    """
    context, run_directory = inputs.context, inputs.run_directory
    evaluations, explanations = read_evaluations(context), read_explanations(context)
    answers, gains = _compare(context, evaluations)
    found = Report(
        fingerprint=storage.digest("report", [record.fingerprint for record in evaluations]),
        name=inputs.config.name,
        catalogue=inputs.catalogue,
        profile=inputs.profile,
        groups=inputs.groups,
        searches=read_searches(context),
        recipes=context.recipes(),
        models=read_models(context),
        evaluations=evaluations,
        comparisons=pool(
            answers,
            bootstrap_samples=inputs.config.evaluate.bootstrap_samples,
            seed=inputs.config.seed,
        ),
        costs=list(costs),
        search_costs=read_costs(context),
        rankings=_rankings(inputs, chosen),
        distances=_distances(inputs),
        group_distances=_group_distances(inputs),
        explanations=explanations,
        transfer=read_transfer(context),
        subset_evaluations=read_subset_evaluations(context),
        backbone=inputs.backbone,
    )
    investment = account(found, gains, inputs.config, shipped=_compare_shipped(context, found))
    run_directory.write("investment.json", investment)
    found = found.model_copy(update={"investment": investment})
    found = found.model_copy(update={"advice": advise(found)})
    page = render_html(found, read_pictures(context, explanations))
    storage.write_bytes(run_directory.path("report.html"), page.encode())
    run_directory.write("report.json", found)


def _compare(
    context: GroupContext, evaluations: Sequence[Evaluation]
) -> tuple[list[PairedAnswers], dict[str, SubsetGains]]:
    """Add up what every group's model and its baselines got right, and say by group what its subsets gain.

    Of single subsets nothing is held but while their group is read.
    """
    answers: list[PairedAnswers] = []
    gains: dict[str, SubsetGains] = {}
    for evaluation in evaluations:
        by_subset = add_up_by_subset(read_answers(context, evaluation))
        gains[evaluation.group] = gains_of_subsets(evaluation, by_subset, context.config.evaluate, context.config.seed)
        if by_subset:
            answers.append(add_up(by_subset.values()))
    return answers, gains


def _compare_shipped(context: GroupContext, found: Report) -> dict[str, SubsetGains]:
    """Say by group what its subsets gain that another model serves than their group's first one."""
    shipped = shipped_answers(found)
    gains: dict[str, SubsetGains] = {}
    for evaluation in found.evaluations:
        baseline = cheapest_baseline(evaluation)
        mine = {name: shipped[name] for name in context.group(evaluation.group).subsets if name in shipped}
        if baseline is not None and mine:
            answers = answers_of_shipped(read_answers(context, evaluation), baseline.name, mine)
            config = context.config
            gains[evaluation.group] = gains_of_subsets(evaluation, answers, config.evaluate, config.seed)
    return gains


def _rankings(inputs: RunInputs, chosen: BackboneRanking | None) -> list[BackboneRanking]:
    """Give the ranking that chose the backbone, and the last one that was asked for, of the data as it is."""
    asked = inputs.run_directory.find_any("rankings/asked.json", BackboneRanking)
    return [found for found in (chosen, asked) if found is not None and _is_current(inputs, found)]


def _is_current(inputs: RunInputs, ranking: BackboneRanking) -> bool:
    """Tell whether a ranking is of the data, pixels and weights as they are."""
    candidates = inputs.candidates_named([candidate.title for candidate in ranking.candidates])
    try:
        return ranking.fingerprint == candidates.ranking_fingerprint(inputs.catalogue.data_fingerprint)
    except UnavailableError:
        raise
    except StorageError:
        # The weights of a candidate that was only asked about may be gone.
        return False


def _distances(inputs: RunInputs) -> Distances | None:
    if not inputs.measures_features:
        return None
    return inputs.run_directory.find("distances.json", Distances, inputs.distances_fingerprint)


def _group_distances(inputs: RunInputs) -> GroupDistances | None:
    if not inputs.measures_features:
        return None
    return inputs.run_directory.find("group_distances.json", GroupDistances, inputs.group_distances_fingerprint)
