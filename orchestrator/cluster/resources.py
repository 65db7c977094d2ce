"""Plans what fits the cluster, before anything starts: pure decisions over the nodes' resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import ray

from orchestrator.config import SearchConfig, TrainConfig
from orchestrator.errors import ResourceError

Resources = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ClusterShape:
    """Hold the resources of each live node; `elastic` says that an autoscaler may add more."""

    nodes: tuple[Resources, ...]
    elastic: bool = False

    def total(self, resource: str) -> float:
        """Sum a resource over the nodes."""
        return sum(node.get(resource, 0.0) for node in self.nodes)


def observe_cluster(*, elastic: bool) -> ClusterShape:
    """Look at the nodes that are alive now."""
    alive = (node for node in ray.nodes() if node["Alive"])
    return ClusterShape(nodes=tuple(dict(node["Resources"]) for node in alive), elastic=elastic)


def uses_gpu(train: TrainConfig, shape: ClusterShape) -> bool:
    """Resolve `train.use_gpu`: `auto` is yes when the cluster has a GPU."""
    return shape.total("GPU") > 0 if train.use_gpu == "auto" else train.use_gpu


def trial_resources(search: SearchConfig, *, use_gpu: bool) -> dict[str, float]:
    """Give the resources of one trial: what the experiment says, else one CPU and, where used, one GPU."""
    default: dict[str, float] = {"CPU": 1.0, "GPU": 1.0} if use_gpu else {"CPU": 1.0}
    return {**default, **(search.resources_per_trial or {})}


def worker_resources(
    train: TrainConfig, shape: ClusterShape, *, use_gpu: bool, streaming: bool, num_groups: int
) -> dict[str, float]:
    """Give the resources of one training worker.

    By default one GPU and one CPU, or an equal share of the CPUs among the workers of as many groups as train at
    the same time. Streaming leaves one whole CPU to the tasks that read: without it they never start and the
    workers wait for ever.
    """
    if use_gpu:
        default: dict[str, float] = {"CPU": 1.0, "GPU": 1.0}
    else:
        free = shape.total("CPU") - (1.0 if streaming else 0.0)
        at_once = max(1, min(num_groups, int(free // train.num_workers)))
        share = free / (train.num_workers * at_once)
        default = {"CPU": float(int(share)) if share >= 1 else 0.5}
    return {**default, **(train.resources_per_worker or {})}


def slots(bundle: Resources, shape: ClusterShape) -> int:
    """Count how many bundles the nodes hold at the same time."""
    return sum(_slots_on(bundle, node) for node in shape.nodes)


def _slots_on(bundle: Resources, node: Resources) -> int:
    wanted = {name: amount for name, amount in bundle.items() if amount > 0}
    # The small term forgives the rounding of fractions such as 3 * 0.1.
    return min((int(node.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items()), default=0)


def require_fit(bundle: Resources, count: int, shape: ClusterShape, *, what: str, remedy: str) -> None:
    """Prove that `count` equal bundles fit the nodes together. Raises ResourceError; an elastic cluster may grow."""
    if not shape.elastic and slots(bundle, shape) < count:
        raise ResourceError(
            f"{what} must fit the cluster: wanted {count} x {show(bundle)}",
            value=f"nodes with {'; '.join(show(node) for node in shape.nodes)}",
            remedy=remedy,
        )


def show(resources: Resources) -> str:
    """Write resources as `2 CPU, 1 GPU`, leaving out what Ray keeps for itself."""
    named = {name: amount for name, amount in resources.items() if name in {"CPU", "GPU"} or _is_custom(name)}
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(named.items())) or "nothing"


def _is_custom(name: str) -> bool:
    return not name.startswith(("node:", "accelerator_type:", "memory", "object_store_memory"))
