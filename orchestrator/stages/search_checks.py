"""Refuses a search that could not run, or that would judge by the wrong images, before anything is trained."""

from __future__ import annotations

from orchestrator.cluster.resources import (
    require_reading_cpu,
    trial_resources,
    trials_at_once,
    uses_gpu,
    worker_resources,
)
from orchestrator.config import weights_by_name
from orchestrator.data.reader import is_streamed
from orchestrator.errors import ConfigError
from orchestrator.reporting.wording import shortened
from orchestrator.stages.context import GroupContext


def require_searchable(context: GroupContext) -> None:
    """Raise ResourceError when not even one trial fits the cluster, and ConfigError for what does not go together."""
    _require_room(context)
    _require_reader(context)
    _require_held(context)
    require_known_heads(context)
    require_unlearnt_folds(context)


def require_unlearnt_folds(context: GroupContext) -> None:
    """Raise ConfigError for folds that would judge by training samples which the pretrained weights have learnt."""
    folds = context.config.search.folds
    if folds > 1 and context.is_learnt:
        raise ConfigError(
            "search.folds must be 1 where the pretrained weights have learnt the run's training images",
            value=folds,
            remedy="Leave it out, or take other weights.",
        )


def require_known_heads(context: GroupContext) -> None:
    """Raise ConfigError for fixed weights of heads that no subset of the data has."""
    subsets = sorted({name for group in context.groups.groups for name in group.subsets})
    weights = weights_by_name(context.config.finetune.task_weighting) or {}
    unknown = [name for name in weights if name not in subsets]
    if unknown:
        raise ConfigError(
            "finetune.task_weighting must name subsets of the data",
            value=", ".join(unknown),
            remedy=f"There are {shortened(subsets, most=10)}.",
        )


def _require_held(context: GroupContext) -> None:
    """Refuse to balance classes where some training samples are not cached: a stream shows each of them once."""
    if not (context.config.finetune.balanced or True in (context.config.search.space.balanced or [])):
        return
    streamed = [group.name for group in context.groups.groups if is_streamed(context.rows(group, "train"))]
    if streamed:
        raise ConfigError(
            "finetune.balanced must be off, and not be searched, where training samples do not fit the cache of pixels",
            value=f"groups {', '.join(streamed)}",
            remedy="Raise data.max_cache_bytes, or leave it out.",
        )


def _require_reader(context: GroupContext) -> None:
    """Refuse before the search what the final training would be refused after it: workers that leave no CPU to read."""
    groups = context.groups.groups
    if not context.streams_source and not any(is_streamed(context.rows(group, "train")) for group in groups):
        return
    train, shape = context.config.train, context.shape
    resources = worker_resources(train, shape, use_gpu=uses_gpu(train, shape), streaming=True, num_groups=len(groups))
    require_reading_cpu(resources, train.num_workers, shape)


def _require_room(context: GroupContext) -> None:
    search = context.config.search
    resources = trial_resources(search, use_gpu=context.use_gpu)
    trials_at_once(resources, search.num_workers_per_trial, context.shape, most=1)
