"""The search stage: the groups' studies under one engine, and a recipe for each group."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import slots, trial_resources
from orchestrator.cluster.trials import describe_outcome
from orchestrator.cluster.tuning import TuningPlan, run_search
from orchestrator.errors import ConfigError, SearchError, StorageError
from orchestrator.records import Group, Hyperparameters, Recipe, SearchResult, Trial
from orchestrator.reporting.few_shot_findings import few_shot_finding
from orchestrator.reporting.findings import saving_finding
from orchestrator.search.assignments import Assignment
from orchestrator.search.engine import EngineSettings, SearchEngine
from orchestrator.search.finals import Finals, GroupFacts
from orchestrator.search.samplers import drawn_apart
from orchestrator.search.shared_list import shared_list
from orchestrator.search.space import SearchSpace
from orchestrator.search.spending import Spending
from orchestrator.search.stopping import StoppingRule
from orchestrator.search.studies import GroupStudy
from orchestrator.stages.context import GroupContext
from orchestrator.stages.journals import Journal
from orchestrator.stages.ledger import SearchLedger
from orchestrator.stages.library import add_entry, warm_starts
from orchestrator.stages.search_checks import require_searchable
from orchestrator.stages.shared_inputs import SharedInputs, prepare_inputs, spaces_of
from orchestrator.storage import digest

_LEDGER = "search/ledger.jsonl"
# Trials that all groups try, as a share of what each may try: what several have tried is known better than what one
# has, and a group alone only starts its sampler with them. A third are heads, which cost next to nothing.
_SHARED_SHARE = 2 / 3
_SHARE_ALONE = 1 / 2
_MOST_SHARED = 16
_AT_ONCE_FOR_EACH_GROUP = 2


def search(context: GroupContext) -> int:
    """Search the recipe of every group whose record is not up to date; give the number of trials run.

    Every group's search is finished and recorded before SearchError is raised for one without a usable trial.
    Raises ResourceError, before anything is read, when not even one trial fits the cluster, and ConfigError for methods
    that the final training could not use.
    """
    pending = [group for group in context.groups.groups if _find(context, group) is None]
    if not pending:
        return 0
    require_searchable(context)
    samples = samples_in_folds(context)
    for group in pending:
        _say_few_shot(context, group)
    inputs = prepare_inputs(context, samples)
    run = _SearchRun.open(context, pending, inputs)
    before = run.num_trials
    try:
        run.execute()
    finally:
        run.keep()
    errors = [error for group in pending if (error := _finish(context, run, group))]
    context.say(f"search: {saving_finding(inputs.write_costs(context, run.trials()))}")
    if errors:
        raise errors[0]
    # A search that was killed after its last trial has nothing left to run, and still has done its work here.
    return max(1, run.num_trials - before)


def samples_in_folds(context: GroupContext) -> dict[str, GroupSamples]:
    """Give the samples of every group, in the folds that its trials are judged on where it has several."""
    # Groups that have their recipes are held against the others still: a search that was cut off between two recipes
    # must not choose otherwise than one that was not.
    seed = context.config.seed_of("split")
    return {
        group.name: context.samples(group).with_folds(context.tuning(group).search.folds, seed=seed)
        for group in context.groups.groups
    }


def read_searches(context: GroupContext) -> list[SearchResult]:
    """Give the finished searches. Raises RecordError when the search has to run first."""
    return [
        context.require(group.name, "search.json", SearchResult, context.search_fingerprint(group), stage="search")
        for group in context.groups.groups
    ]


def budget_left_s(context: GroupContext) -> float | None:
    """Give the seconds of training that the search has left of its budget; None where it bounds no time.

    Of GPU-hours, what workers of the final training with a whole GPU each may take; shares of a GPU count as whole.
    """
    budget = context.config.search.budget
    studies = {group.name: context.study_fingerprint(group) for group in context.groups.groups}
    ledger = SearchLedger(Journal(context.run_directory.path(_LEDGER)), studies)
    left = [] if budget.time_budget_s is None else [budget.time_budget_s - ledger.elapsed_s()]
    if budget.gpu_hours is not None:
        gpu_s = 3600 * budget.gpu_hours - ledger.worked_s * context.config.search.num_workers_per_trial
        left.append(gpu_s / context.config.train.num_workers)
    return max(0.0, min(left)) if left else None


def describe(recipe: Hyperparameters) -> str:
    """Write hyperparameters in a few words."""
    return (
        f"freeze depth {recipe.freeze_depth}, rate {recipe.learning_rate:.2g}, {recipe.epochs} epochs, "
        f"batch {recipe.batch_size}, {recipe.optimizer}"
    )


def _say_few_shot(context: GroupContext, group: Group) -> None:
    few_shot = context.tuning(group).few_shot
    if few_shot is not None:
        context.say(f"search {group.name}: {few_shot_finding(few_shot)}")


def _find(context: GroupContext, group: Group) -> Recipe | None:
    return context.find(group.name, "recipe.json", Recipe, context.search_fingerprint(group))


@dataclass(kw_only=True)
class _SearchRun:
    """Hold what one execution of the stage works with."""

    context: GroupContext
    samples: dict[str, GroupSamples]
    compiled_depths: frozenset[int]
    studies: dict[str, GroupStudy]
    journals: list[Journal]
    ledger: SearchLedger
    engine: SearchEngine
    plan: TuningPlan

    @classmethod
    def open(cls, context: GroupContext, pending: list[Group], inputs: SharedInputs) -> _SearchRun:
        """Open the studies and the ledger where an earlier execution has left them."""
        search, groups = context.config.search, context.groups.groups
        closed = {group.name for group in groups} - {group.name for group in pending}
        num_stages, config = context.backbone.num_stages, context.config
        space = SearchSpace.from_config(search.space, num_stages, config.finetune, config.augment)
        spaces = spaces_of(context)
        resources = trial_resources(search, use_gpu=context.use_gpu, gpu_share=inputs.gpu_share)
        settings = engine_settings(context, inputs, resources)
        plan = _tuning_plan(context, settings, resources)
        settings = replace(settings, workers=plan.trials_at_once(context.shape))
        journals = {group.name: Journal(context.path(group.name, "study.log")) for group in groups}
        studies = {
            group.name: open_study(context, group, journals[group.name], spaces[group.name], settings, inputs)
            for group in groups
        }
        ledger_journal = Journal(context.run_directory.path(_LEDGER))
        ledger = SearchLedger(ledger_journal, {group.name: context.study_fingerprint(group) for group in groups})
        facts = {
            group.name: GroupFacts(
                num_train=len(inputs.samples[group.name].train),
                num_validation=len(inputs.samples[group.name].validation),
                fixed_rule=spaces[group.name].clip(context.fixed_rule(group)),
                folds=context.tuning(group).search.folds,
                kind="" if spaces[group.name] == space else "few_shot",
            )
            for group in groups
        }
        engine = SearchEngine(
            studies,
            space,
            settings,
            inputs.predict,
            lambda trials: Finals(
                trials=trials,
                facts=facts,
                metric=search.metric,
                predict=inputs.predict_run,
                most_finalists=settings.spending.race_trials // len(groups),
            ),
            race_runs=ledger.race_runs,
            elapsed_s=ledger.elapsed_s(),
            closed=closed,
            apart={name: own for name, own in spaces.items() if own != space},
        )
        return cls(
            context=context,
            samples=inputs.samples,
            compiled_depths=inputs.compiled_depths,
            studies=studies,
            journals=[*journals.values(), ledger_journal],
            ledger=ledger,
            engine=engine,
            plan=plan,
        )

    @property
    def num_trials(self) -> int:
        """Count the finished trials."""
        return sum(len(study.trials()) for study in self.studies.values())

    def trials(self) -> dict[str, list[Trial]]:
        """Give every group's finished trials."""
        return {name: study.trials() for name, study in self.studies.items()}

    def execute(self) -> None:
        """Run what the engine asks for, and say what came of it."""
        run_search(
            self.engine,
            self.samples,
            replace(self.context.workbench, compiled_depths=self.compiled_depths),
            self.plan,
            self.context.shape,
            clock=self.ledger.keep_time,
            on_finished=self._record,
            on_lost=self._say_lost,
        )
        reached = [name for name in self.studies if self.engine.has_reached(name)]
        for name in reached:
            self.context.say(f"search {name}: search.target {self.engine.settings.target:g} is reached")
        if len(reached) < len(self.studies):
            self._say_spent()

    def _say_spent(self) -> None:
        started = sum(study.progress() for study in self.studies.values())
        wanted = self.engine.settings.spending.search_trials
        budget = self.context.config.search.budget
        if started < wanted and (budget.time_budget_s is not None or budget.gpu_hours is not None):
            self.context.say(
                f"search: the budget of {'GPU-hours' if budget.time_budget_s is None else 'time'} was spent after "
                f"{started} of {wanted} trials; a search with a larger search.budget goes on from here"
            )

    def keep(self) -> None:
        """Copy the journals to the run directory."""
        for journal in self.journals:
            journal.keep(at_once=True)

    def _say_lost(self, assignment: Assignment) -> None:
        self.context.say(f"search {assignment.group}: the worker of {assignment.name} died; it runs once more")

    def _record(self, assignment: Assignment, outcomes: list[Trial]) -> None:
        race = self.engine.race_runs[-1] if assignment.race is not None else None
        self.ledger.append(assignment.group, assignment.kind, outcomes, race)
        for line in describe_outcome(assignment, outcomes, self.context.config.search.metric):
            self.context.say(f"search {assignment.group}: {line}")
        # A copy that fails now is made again with the next trial, and at the end without fail.
        with suppress(StorageError):
            for journal in self.journals:
                journal.keep()


def engine_settings(context: GroupContext, inputs: SharedInputs, resources: dict[str, float]) -> EngineSettings:
    """Say how all groups are searched; `resources` are those of one worker of a trial.

    Raises ConfigError for a budget of GPU-hours where trials hold no GPU.
    """
    search = context.config.search
    budget = search.budget
    gpus = resources.get("GPU", 0.0) * search.num_workers_per_trial
    if budget.gpu_hours is not None and gpus == 0:
        raise ConfigError(
            "search.budget.gpu_hours must bound trials that hold a GPU",
            value=f"{budget.gpu_hours:g} for trials without one",
            remedy="Set search.budget.time_budget_s, or train.use_gpu and search.resources_per_trial.",
        )
    spending = Spending(
        num_trials=budget.trials or search.num_samples * len(context.groups.groups),
        seconds=budget.time_budget_s,
        work_seconds=None if budget.gpu_hours is None else 3600 * budget.gpu_hours / gpus,
        tolerance=0.0,
    )
    return EngineSettings(
        spending=spending,
        stopping=StoppingRule(margin=0.01) if search.early_stopping else None,
        heads=search.heads if inputs.heads_fit else 1,
        num_stages=context.backbone.num_stages,
        metric=search.metric,
        seed=context.config.seed_of("sampler"),
        target=search.target,
    )


def _tuning_plan(context: GroupContext, settings: EngineSettings, resources: dict[str, float]) -> TuningPlan:
    search, most = context.config.search, context.config.search.max_concurrent_trials
    if most is None and context.shape.elastic:
        # A cluster that grows with what waits would start all trials at once, and none would learn from another.
        most = max(slots(resources, context.shape), _AT_ONCE_FOR_EACH_GROUP * len(context.groups.groups))
    return TuningPlan(
        resources_per_trial=resources,
        max_concurrent_trials=most,
        use_gpu=context.use_gpu,
        stall_timeout_s=context.config.cluster.stall_timeout_s,
        metric=search.metric,
        stopping=settings.stopping,
        num_trials=settings.spending.num_trials,
        num_workers_per_trial=search.num_workers_per_trial,
    )


def open_study(
    context: GroupContext,
    group: Group,
    journal: Journal,
    space: SearchSpace,
    settings: EngineSettings,
    inputs: SharedInputs,
) -> GroupStudy:
    """Open the study of a group where an earlier execution has left it, with what is to be tried first in its queue."""
    config = context.config
    study = GroupStudy.open(
        journal.path,
        group=group.name,
        name=_study_name(context, group),
        space=space,
        search=context.tuning(group).search,
        seed=config.seed_of("sampler"),
        first=context.fixed_rule(group),
        storage=config.search.storage,
    )
    again = study.reconcile()
    if again:
        context.say(f"search {group.name}: {again} interrupted trial(s) will run again")
    apart = drawn_apart(config.search.sampler, space)
    if apart:
        context.say(f"search {group.name}: {config.search.sampler} draws {', '.join(apart)} apart from the rest")
    # A library that has grown since must not change a search that has begun.
    for entry in warm_starts(context, group) if study.progress() == 0 else []:
        study.enqueue(entry.recipe, "warm_start")
    listed = _shared(context, space, settings)
    for recipe in sorted(listed, key=lambda recipe: inputs.predict(group.name, recipe)):
        study.enqueue(recipe, "shared")
    return study


def _study_name(context: GroupContext, group: Group) -> str:
    config = context.config
    name = f"{config.search.study_name or config.name}-{group.name}-{context.study_fingerprint(group)}"
    # In a database that others use too, a run must not take another's running trials for its own interrupted ones.
    return name if config.search.storage is None else f"{name}-{digest(context.run_directory.uri)[:8]}"


def _shared(context: GroupContext, space: SearchSpace, settings: EngineSettings) -> list[Hyperparameters]:
    """Give the recipes that every group tries."""
    num_groups = len(context.groups.groups)
    each = settings.spending.search_trials // num_groups
    count = min(_MOST_SHARED, int(each * (_SHARED_SHARE if num_groups > 1 else _SHARE_ALONE)))
    heads = min(count // 3, settings.heads) if settings.heads > 1 else 0
    return shared_list(
        space,
        num_stages=settings.num_stages,
        heads=heads,
        others=count - heads,
        seed=settings.seed,
    )


def _finish(context: GroupContext, run: _SearchRun, group: Group) -> SearchError | None:
    fingerprint = context.search_fingerprint(group)
    config = context.config.search
    finals = run.engine.finals()
    result = SearchResult(
        fingerprint=fingerprint,
        group=group.name,
        metric=config.metric,
        mode=config.direction,
        trials=run.studies[group.name].trials(),
        race=[race for race in finals.runs if race.group == group.name],
        few_shot=context.tuning(group).few_shot,
        trial_resources=run.plan.held_by_trial,
        folds=context.tuning(group).search.folds,
    )
    context.write(group.name, "search.json", result)
    try:
        recipe = finals.recipe(group.name)
        few_shot = "" if result.few_shot is None else f"; {few_shot_finding(result.few_shot)}"
        recipe = recipe.model_copy(update={"fingerprint": fingerprint, "reason": f"{recipe.reason}{few_shot}"})
    except SearchError as error:
        context.say(f"search {group.name}: {error}")
        return error
    context.write(group.name, "recipe.json", recipe)
    add_entry(context, group, result, recipe)
    value = recipe.value if recipe.score is None else recipe.score
    reached = "" if value is None else f", {config.metric} {value:.3f}"
    source = {"group": "its own recipe", "pooled": "the pooled recipe", "fixed_rule": "the fixed rule"}[recipe.origin]
    context.say(f"search {group.name}: {source}{reached} ({describe(recipe.hyperparameters)}): {recipe.reason}")
    return None
