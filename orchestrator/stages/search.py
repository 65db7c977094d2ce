"""The search stage: a study for each group, all in one Tuner, and a recipe from each."""

from __future__ import annotations

from contextlib import suppress

from orchestrator.cluster.resources import trial_resources
from orchestrator.cluster.tuning import TuningPlan, search_groups
from orchestrator.errors import SearchError, StorageError
from orchestrator.records import Group, Hyperparameters, Recipe, SearchResult, Trial
from orchestrator.search.space import SearchSpace
from orchestrator.search.studies import GroupStudy
from orchestrator.search.winner import choose_recipe
from orchestrator.stages.context import GroupContext
from orchestrator.stages.journal import StudyJournal


def search(context: GroupContext) -> int:
    """Search the recipe of every group whose record is not up to date; give the number of trials run.

    Every group's search is finished and recorded before SearchError is raised for one without a usable trial.
    """
    pending = [group for group in context.groups.groups if _find(context, group) is None]
    if not pending:
        return 0
    journals = {group.name: StudyJournal(context.path(group.name, "study.log")) for group in pending}
    studies = {group.name: _open_study(context, group, journals[group.name]) for group in pending}
    before = sum(len(study.trials()) for study in studies.values())
    try:
        _run(context, pending, studies, journals)
    finally:
        for journal in journals.values():
            journal.keep(at_once=True)
    errors = [error for group in pending if (error := _finish(context, group, studies[group.name]))]
    if errors:
        raise errors[0]
    # A search that was killed after its last trial has nothing left to run, and still has done its work here.
    return max(1, sum(len(study.trials()) for study in studies.values()) - before)


def read_searches(context: GroupContext) -> list[SearchResult]:
    """Give the finished searches. Raises RecordError when the search has to run first."""
    return [
        context.require(group.name, "search.json", SearchResult, context.search_fingerprint(group), stage="search")
        for group in context.groups.groups
    ]


def describe(recipe: Hyperparameters) -> str:
    """Write hyperparameters in a few words."""
    return (
        f"freeze depth {recipe.freeze_depth}, rate {recipe.learning_rate:.2g}, {recipe.epochs} epochs, "
        f"batch {recipe.batch_size}, {recipe.optimizer}"
    )


def _find(context: GroupContext, group: Group) -> Recipe | None:
    return context.find(group.name, "recipe.json", Recipe, context.search_fingerprint(group))


def _open_study(context: GroupContext, group: Group, journal: StudyJournal) -> GroupStudy:
    config = context.config
    study = GroupStudy.open(
        journal.path,
        group=group.name,
        name=f"{config.name}-{group.name}-{context.study_fingerprint(group)}",
        space=SearchSpace.from_config(config.search, context.backbone.num_stages),
        search=config.search,
        seed=config.seed,
        first=context.fixed_rule(group),
    )
    again = study.reconcile()
    if again:
        context.say(f"search {group.name}: {again} interrupted trial(s) will run again")
    return study


def _run(
    context: GroupContext,
    groups: list[Group],
    studies: dict[str, GroupStudy],
    journals: dict[str, StudyJournal],
) -> None:
    config = context.config.search

    def on_trial(group: str, trial: Trial) -> None:
        result = trial.error if trial.value is None else f"{config.metric} {trial.value:.3f}"
        context.say(
            f"search {group}: trial {trial.trial_id} {result} in {trial.seconds:.1f} s "
            f"({describe(trial.hyperparameters)})"
        )
        # A copy that fails now is made again with the next trial, and at the end without fail.
        with suppress(StorageError):
            journals[group].keep()

    plan = TuningPlan(
        resources_per_trial=trial_resources(config, use_gpu=context.use_gpu),
        max_concurrent_trials=config.max_concurrent_trials,
        use_gpu=context.use_gpu,
        time_budget_s=config.time_budget_s,
        stall_timeout_s=context.config.cluster.stall_timeout_s,
    )
    samples = {group.name: context.samples(group) for group in groups}
    cut_off = search_groups(studies, samples, context.workbench, plan, context.shape, on_trial=on_trial)
    if cut_off:
        context.say(
            f"search: search.time_budget_s of {config.time_budget_s:g} s is spent, {cut_off} trial(s) were cut off; "
            "a search with a larger budget runs them again"
        )


def _finish(context: GroupContext, group: Group, study: GroupStudy) -> SearchError | None:
    fingerprint = context.search_fingerprint(group)
    config = context.config.search
    result = SearchResult(
        fingerprint=fingerprint,
        group=group.name,
        metric=config.metric,
        mode=config.direction,
        trials=study.trials(),
    )
    context.write(group.name, "search.json", result)
    try:
        recipe = choose_recipe(result).model_copy(update={"fingerprint": fingerprint})
    except SearchError as error:
        context.say(f"search {group.name}: {error}")
        return error
    context.write(group.name, "recipe.json", recipe)
    context.say(f"search {group.name}: best {config.metric} {recipe.value:.3f} ({describe(recipe.hyperparameters)})")
    return None
