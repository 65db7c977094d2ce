"""Keeps what frozen stages give for the samples of a search, and hands it out to the groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from orchestrator import storage
from orchestrator.cluster.activation_index import ActivationIndex
from orchestrator.cluster.activations import ActivationPlan, build_activations
from orchestrator.cluster.group_samples import GroupSamples, KeptDepth
from orchestrator.finetune.contracts import StoredType
from orchestrator.search.costs import DepthPlan
from orchestrator.stages.context import GroupContext


def keep_activations(
    context: GroupContext, depths: Sequence[int], errors: Mapping[int, float], *, expected_s: float
) -> ActivationIndex:
    """Keep what is given at the freeze depths, in the order of their worth, where it is not kept yet.

    `errors` say by how much the smaller type changes the outputs of a depth, as a share of their spread: above
    `cache.tolerance` they are kept as fp32, and that is said. The pass is taken to last `expected_s` seconds.
    """
    config = context.config
    wanted: StoredType = config.cache.dtype
    # A type of half the size is taken only where the outputs stay within the tolerance.
    dtypes: dict[int, StoredType] = {
        depth: wanted if errors.get(depth, 0.0) <= config.cache.tolerance else "fp32" for depth in depths
    }
    refused = [depth for depth in depths if dtypes[depth] != wanted]
    if refused:
        context.say(
            f"search: freeze depths {refused} are kept as fp32: {wanted} would change the outputs by more than "
            f"cache.tolerance = {config.cache.tolerance:g} of their spread"
        )
    plan = activation_plan(context, dtypes, expected_s=expected_s)
    return build_activations(context.table, context.reader, context.workbench, plan)


def activation_plan(context: GroupContext, dtypes: dict[int, StoredType], *, expected_s: float) -> ActivationPlan:
    """Say how the outputs of the frozen stages are kept, each of these freeze depths in its type."""
    config = context.config
    return ActivationPlan(
        uri=cache_uri(context),
        max_bytes=config.cache.max_bytes,
        depths=tuple(dtypes),
        dtypes=dtypes,
        augment=config.augment,
        seed=config.seed_of("loader"),
        use_gpu=context.use_gpu,
        stall_timeout_s=config.cluster.stall_timeout_s,
        expected_s=expected_s,
        all_views=most_folds(context) > 1,
    )


def with_kept(context: GroupContext, samples: GroupSamples, index: ActivationIndex) -> GroupSamples:
    """Give a group's samples with the rows of what is kept of them."""
    group = context.group(samples.group)
    train, validation = (context.cached_positions(group, split) for split in ("train", "val"))
    images_only = context.config.augment.varies and not len(samples.folds)
    kept = {
        depth: KeptDepth(
            layout=index.layouts[depth],
            dtype=index.dtypes[depth],
            train=index.rows(train, depth),
            validation=index.rows(validation, depth),
            pool=None if images_only else index.rows(np.concatenate([train, validation]), depth),
        )
        for depth in index.depths
    }
    return replace(samples, kept=kept)


def as_built(plan: DepthPlan, index: ActivationIndex) -> DepthPlan:
    """Take back the decision for a depth that did not fit the store."""
    if plan.source != "activations" or plan.depth in index.depths:
        return plan
    return replace(plan, source="pixels", epoch_s=plan.uncached_epoch_s, stored_bytes=0, saving_s=0.0)


def cache_uri(context: GroupContext) -> str:
    """Say where activations are kept."""
    return context.config.cache.uri or storage.join(context.config.storage_path, "cache")


def most_folds(context: GroupContext) -> int:
    """Count the folds of the group that has the most."""
    return max(context.tuning(group).search.folds for group in context.groups.groups)
