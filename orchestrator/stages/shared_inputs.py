"""What the trials of a search share: measured costs, the decision what to keep, and the kept activations."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.cluster.activation_index import ActivationIndex
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.probing import probe_compiled, probe_costs
from orchestrator.cluster.resources import gpu_share, trial_resources
from orchestrator.config import AugmentConfig
from orchestrator.finetune.companions import Companion
from orchestrator.finetune.contracts import MOST_ACTIVATION_BYTES, NO_AUGMENTATION
from orchestrator.records import CostFigures, DepthCost, Hyperparameters, SearchCosts, Trial
from orchestrator.search.costs import (
    DepthPlan,
    SourceLoad,
    Workload,
    compile_what_pays,
    expected_epochs,
    plan_cache,
    source_seconds,
    worth_compiling,
)
from orchestrator.search.fresh_draws import share_kept
from orchestrator.search.shared_list import at, searches_depth
from orchestrator.search.space import SearchSpace
from orchestrator.stages.context import GroupContext
from orchestrator.stages.kept_activations import as_built, cache_uri, keep_activations, most_folds, with_kept

COSTS = "search/costs.json"
# Features of a search that would not fit beside a trial's other memory are not held whole for batched heads.
_MOST_FEATURE_BYTES = 2 * 2**30


@dataclass(frozen=True, kw_only=True)
class SharedInputs:
    """Hold the groups' samples with what is kept of them, and what a trial is predicted to cost.

    `plans` has a decision for each freeze depth, 0 first; its seconds are of one epoch over all groups. `gpu_share`
    is what a trial of one process needs of a GPU. A trial is a training on each of the `folds` of its group. With a
    source, what it adds follows from the `figures` that were measured and how `augment`, or a recipe of its own, varies
    samples.
    """

    samples: dict[str, GroupSamples]
    plans: Sequence[DepthPlan]
    index: ActivationIndex | None
    probe_seconds: float
    heads_fit: bool
    gpu_share: float = 1.0
    compiled_depths: frozenset[int] = frozenset()
    folds: Mapping[str, int] = field(default_factory=dict)
    figures: CostFigures | None = None
    augment: AugmentConfig = NO_AUGMENTATION

    def predict(self, group: str, recipe: Hyperparameters) -> float:
        """Give the seconds that a trial of a group is predicted to take."""
        return self.folds.get(group, 1) * self.predict_run(group, recipe)

    def predict_run(self, group: str, recipe: Hyperparameters) -> float:
        """Give the seconds that one training of a recipe on a group is predicted to take."""
        plan = self.plans[recipe.freeze_depth]
        epoch_s = plan.epoch_s if self._takes_kept(recipe) else plan.uncached_epoch_s
        # An adversarial image takes a pass forward and back to make, and is trained on beside the one it is made of.
        work = 3 if recipe.adversarial > 0 else 1
        epochs = 1 if recipe.has_one_pass(len(self.plans) - 1) else recipe.epochs
        return epochs * self._share(group) * epoch_s * work + self._source_s(group, recipe)

    def write_costs(self, context: GroupContext, trials: Mapping[str, Sequence[Trial]]) -> SearchCosts:
        """Record what was decided for each depth, and what its epochs took; gives the record."""
        spent = self.spent(trials)
        record = SearchCosts(
            depths=[self._depth_cost(plan, *spent.get(plan.depth, (0.0, 0.0))) for plan in self.plans],
            computed=0 if self.index is None else self.index.computed,
            reused=0 if self.index is None else self.index.reused,
            build_seconds=0.0 if self.index is None else self.index.seconds,
            probe_seconds=self.probe_seconds,
        )
        context.run_directory.write(COSTS, record)
        return record

    def _source_s(self, group: str, recipe: Hyperparameters) -> float:
        """Give the seconds that a source adds to one training of a recipe."""
        mine = self.samples[group]
        has_one_pass = recipe.has_one_pass(len(self.plans) - 1)
        if mine.companion is None or mine.companion.is_idle(has_one_pass=has_one_pass) or self.figures is None:
            return 0.0
        views = _views(recipe.augmented(self.augment))
        load = SourceLoad(
            num_images=len(mine.companion.samples),
            num_draws=self._num_draws(mine.companion, recipe, len(mine.train)),
            views=min(1, views) if has_one_pass else views,
            most_bytes=self._room(mine, recipe),
        )
        return source_seconds(self.figures, load, recipe.freeze_depth)

    def _num_draws(self, companion: Companion, recipe: Hyperparameters, num_target: int) -> int:
        """Count the source images that a training has beside so many of the target."""
        if recipe.has_one_pass(len(self.plans) - 1):
            # Prototypes go through what they are made of twice, which is computed twice where nothing is kept.
            return companion.looked_at(num_target) * (2 if recipe.augmented(self.augment).draws_afresh else 1)
        return companion.drawn(recipe.epochs * num_target)

    def _room(self, samples: GroupSamples, recipe: Hyperparameters) -> int:
        """Give the bytes that a training has left for what frozen stages give for a source."""
        assert self.figures is not None
        if recipe.freeze_depth in samples.kept and self._takes_kept(recipe):
            return MOST_ACTIVATION_BYTES
        rows = len(samples.train) * _views(recipe.augmented(self.augment)) + len(samples.validation)
        held = rows * self.figures.activation_bytes[recipe.freeze_depth]
        return MOST_ACTIVATION_BYTES - (held if held <= MOST_ACTIVATION_BYTES else 0)

    def _takes_kept(self, recipe: Hyperparameters) -> bool:
        """Tell whether kept activations are of use to a recipe: training images are not others in every epoch."""
        return not (recipe.changes_images or recipe.augmented(self.augment).draws_afresh)

    def _share(self, group: str) -> float:
        everyone = sum(len(samples.train) + len(samples.validation) for samples in self.samples.values())
        mine = self.samples[group]
        return (len(mine.train) + len(mine.validation)) / max(1, everyone)

    def spent(self, trials: Mapping[str, Sequence[Trial]]) -> dict[int, tuple[float, float]]:
        """Sum the trials' seconds by depth, and their epochs, as epochs over the samples of all groups.

        Heads that were trained together count with their share of the time. Where activations are kept, those trials
        alone count that can use them: of what the others take nothing was predicted.
        """
        sources = {plan.depth: plan.source for plan in self.plans}
        seconds: dict[int, float] = defaultdict(float)
        epochs: dict[int, float] = defaultdict(float)
        for group, found in trials.items():
            for trial in found:
                depth = trial.hyperparameters.freeze_depth
                is_planned = sources.get(depth) != "activations" or self._takes_kept(trial.hyperparameters)
                if trial.history and is_planned:
                    seconds[depth] += trial.seconds
                    epochs[depth] += self.folds.get(group, 1) * len(trial.history) * self._share(group)
        return {depth: (seconds[depth], epochs[depth]) for depth in epochs}

    def _depth_cost(self, plan: DepthPlan, seconds: float, epochs: float) -> DepthCost:
        return DepthCost(
            depth=plan.depth,
            source=plan.source,
            predicted_epoch_s=plan.epoch_s,
            predicted_uncached_epoch_s=plan.uncached_epoch_s,
            measured_epoch_s=seconds / epochs if epochs else None,
            num_epochs=epochs,
            stored_bytes=plan.stored_bytes,
            saving_s=plan.saving_s,
            is_compiled=plan.depth in self.compiled_depths,
        )


def read_costs(context: GroupContext) -> SearchCosts | None:
    """Give the costs of the last search, None when there was none."""
    return context.run_directory.find(COSTS, SearchCosts, "")


def prepare_inputs(context: GroupContext, samples: dict[str, GroupSamples]) -> SharedInputs:
    """Measure, decide and build what the groups' trials share; says what was decided."""
    started = time.perf_counter()
    resources = trial_resources(context.config.search, use_gpu=context.use_gpu)
    spaces = list(spaces_of(context).values())
    # Adversarial images are in the batch of those that they are made of.
    growth = _batch_growth(context) + any(space.has_adversaries for space in spaces)
    figures, errors = probe_costs(
        context.workbench,
        samples,
        resources,
        directory=cache_uri(context),
        use_gpu=context.use_gpu,
        largest_batch=math.ceil(context.config.largest_batch * growth),
        copies_of_weights=max(space.copies_of_weights for space in spaces),
        stall_timeout_s=context.config.cluster.stall_timeout_s,
        dtype=context.config.cache.dtype,
    )
    figures, compiled = _compile(context, spaces, samples, figures, resources)
    probe_seconds = time.perf_counter() - started
    plans = _decide(context, spaces, samples, figures)
    depths = [plan.depth for plan in sorted(plans, key=_worth, reverse=True) if plan.source == "activations"]
    index = (
        keep_activations(context, depths, errors, expected_s=_pass_seconds(plans, figures, resources))
        if depths
        else None
    )
    if index is not None:
        samples = {name: with_kept(context, found, index) for name, found in samples.items()}
        plans = [as_built(plan, index) for plan in plans]
    _say(context, plans, index)
    feature_bytes = sum(len(found.train) + len(found.validation) for found in samples.values())
    feature_bytes *= context.backbone.feature_dim * 4 * max(1, context.config.augment.views)
    folds = {group.name: context.tuning(group).search.folds for group in context.groups.groups}
    return SharedInputs(
        samples=samples,
        plans=plans,
        index=index,
        probe_seconds=probe_seconds,
        heads_fit=_are_plain(context) and most_folds(context) * feature_bytes <= _MOST_FEATURE_BYTES,
        gpu_share=_gpu_share(figures, most_folds(context)),
        compiled_depths=compiled,
        folds=folds,
        figures=figures,
        augment=context.config.augment,
    )


def spaces_of(context: GroupContext) -> dict[str, SearchSpace]:
    """Give what each group is searched in, one object for all that are searched alike."""
    found: dict[str, SearchSpace] = {}
    for group in context.groups.groups:
        tuning = context.tuning(group)
        augment, num_stages = context.config.augment, context.backbone.num_stages
        space = SearchSpace.from_config(tuning.search.space, num_stages, tuning.finetune, augment)
        found[group.name] = next((other for other in found.values() if other == space), space)
    return found


def _batch_growth(context: GroupContext) -> float:
    """Say how many times as many images a batch has with those of a source."""
    source = context.config.source
    return 1.0 if source is None else 1 / (1 - source.batch_share)


def _are_plain(context: GroupContext) -> bool:
    """Tell whether heads can train together: on one task, without a source, on features that do not change."""
    config = context.config
    return config.source is None and config.several_heads is None and not config.augment.draws_afresh


def _compile(
    context: GroupContext,
    spaces: Sequence[SearchSpace],
    samples: Mapping[str, GroupSamples],
    figures: CostFigures,
    resources: Mapping[str, float],
) -> tuple[CostFigures, frozenset[int]]:
    """Decide at which depths trials go through torch.compile: on a GPU, where they last long enough."""
    search = context.config.search
    # What is trained beside a source is not compiled.
    if not context.use_gpu or search.num_workers_per_trial > 1 or context.config.source is not None:
        return figures, frozenset()
    # Heads are trained without their stages.
    depths = _searched_depths(spaces, range(context.backbone.num_stages))
    trained_rows = _mean_epochs(spaces) * float(np.mean([len(found.train) for found in samples.values()]))
    candidates = worth_compiling(figures, depths, trained_rows=trained_rows)
    if not candidates:
        return figures, frozenset()
    measured = probe_compiled(
        context.workbench,
        samples,
        resources,
        depths=candidates,
        stall_timeout_s=context.config.cluster.stall_timeout_s,
    )
    figures, compiled = compile_what_pays(figures, measured, trained_rows=trained_rows)
    chosen = ", ".join(map(str, sorted(compiled))) or "none"
    context.say(f"search: torch.compile was measured at freeze depths {candidates}; it pays at {chosen}")
    return figures, compiled


def _searched_depths(spaces: Sequence[SearchSpace], depths: range) -> list[int]:
    return [depth for depth in depths if any(searches_depth(space, depth) for space in spaces)]


def _mean_epochs(spaces: Sequence[SearchSpace]) -> float:
    return max(float(np.mean([_epochs_at(space, place) for place in (0.0, 0.5, 1.0)])) for space in spaces)


def _gpu_share(figures: CostFigures, folds: int) -> float:
    if figures.peak_bytes is None or figures.device_bytes is None:
        return 1.0
    # Folds are trained in step, and each holds its weights and the state of its optimizer.
    return gpu_share(folds * figures.peak_bytes, figures.device_bytes)


def _decide(
    context: GroupContext, spaces: Sequence[SearchSpace], samples: Mapping[str, GroupSamples], figures: CostFigures
) -> list[DepthPlan]:
    cache = context.config.cache
    searched = _searched_depths(spaces, range(context.backbone.num_stages + 1))
    folds = most_folds(context)
    most_kept = max(map(share_kept, spaces))
    epochs = expected_epochs(
        dict.fromkeys(searched, 1 / max(1, len(searched))),
        num_trials=_trials_of_each_group(context),
        mean_epochs=_mean_epochs(spaces) * folds * most_kept,
    )
    views = _views(context.config.augment)
    workload = Workload(
        num_train=sum(len(found.train) for found in samples.values()),
        num_validation=sum(len(found.validation) for found in samples.values()),
        views=views,
        validation_views=views if folds > 1 else 1,
        epochs={} if cache.activations == "never" or most_kept == 0 else epochs,
    )
    return plan_cache(figures, workload, max_bytes=cache.max_bytes, always=cache.activations == "always")


def _views(augment: AugmentConfig) -> int:
    """Give the views that each training image has; 0 where every epoch draws afresh."""
    return augment.views if augment.varies else 1


def _trials_of_each_group(context: GroupContext) -> int:
    search, num_groups = context.config.search, len(context.groups.groups)
    return search.num_samples if search.budget.trials is None else -(-search.budget.trials // num_groups)


def _worth(plan: DepthPlan) -> float:
    return plan.saving_s / max(1, plan.stored_bytes)


def _pass_seconds(plans: Sequence[DepthPlan], figures: CostFigures, resources: Mapping[str, float]) -> float:
    """Bound what one CPU needs for the pass: one run through the stages, and writing every depth.

    The stages were timed with all CPUs of a trial; with one they are taken to be that many times as slow.
    """
    kept = [plan for plan in plans if plan.source == "activations"]
    written_s = sum(plan.stored_bytes for plan in kept) / figures.write_bytes_per_s
    return written_s + max(1.0, resources.get("CPU", 1.0)) * max((plan.build_s for plan in kept), default=0.0)


def _say(context: GroupContext, plans: Sequence[DepthPlan], index: ActivationIndex | None) -> None:
    kept = [plan for plan in plans if plan.source == "activations"]
    if not kept or index is None:
        context.say("search: no activations are kept, it would not pay at any freeze depth")
        return
    factors = ", ".join(f"{plan.depth} ({plan.uncached_epoch_s / plan.epoch_s:.1f}x)" for plan in kept)
    context.say(
        f"search: activations are kept for freeze depths {factors}, predicted against computing them each epoch; "
        f"{index.computed} of {index.computed + index.reused} entries computed in {index.seconds:.1f} s, "
        f"{index.bytes / 2**20:.0f} MiB"
    )


def _epochs_at(space: SearchSpace, place: float) -> int:
    """Give the epochs at a place from 0 to 1 of the space."""
    distribution = space.distributions.get("epochs")
    value = space.constants["epochs"] if distribution is None else at(distribution, place)
    return int(str(value))
