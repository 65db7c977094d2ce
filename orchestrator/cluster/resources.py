"""Plans what fits the cluster, before anything starts: pure decisions over the nodes' resources."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from resource import RUSAGE_SELF, getrusage

import ray

from orchestrator.config import SearchConfig, TrainConfig
from orchestrator.errors import ConfigError, ResourceError

Resources = Mapping[str, float]

TRIAL_ACTOR_CPU = 0.1  # of a trial of several workers: its own process only waits, the workers reserve theirs
GPU_MARGIN = 1.25  # of a measured peak: freed blocks that fit no later tensor stay with their process
GPU_PROCESS_BYTES = 2**30  # CUDA's context and its libraries take several hundred MB of each process
MOST_PER_GPU = 8
DATA_TASK_CPU = 1.0  # what one task of Ray Data takes


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


def peak_memory() -> int:
    """Give the most bytes of memory that this process has had."""
    peak = getrusage(RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def driver_memory() -> int:
    """Give the bytes of memory that Ray counts on the driver's node; 0 where it counts none."""
    here = ray.get_runtime_context().get_node_id()
    return next((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["NodeID"] == here), 0)


def uses_gpu(train: TrainConfig, shape: ClusterShape) -> bool:
    """Resolve `train.use_gpu`: `auto` is yes when the cluster has a GPU.

    Raises ConfigError for `auto` where nodes that are not there yet would decide.
    """
    if shape.elastic and train.use_gpu == "auto" and shape.total("GPU") == 0:
        raise ConfigError(
            "train.use_gpu must be true or false where cluster.autoscaling is on and no node has a GPU yet",
            value="auto",
            remedy="Set train.use_gpu.",
        )
    return shape.total("GPU") > 0 if train.use_gpu == "auto" else train.use_gpu


def trial_resources(search: SearchConfig, *, use_gpu: bool, gpu_share: float = 1.0) -> dict[str, float]:
    """Give the resources of one trial, or of each of its workers: what the experiment says, else one CPU.

    And, where used, the share of a GPU that was measured to be enough; workers of one trial have whole ones.
    """
    share = gpu_share if search.num_workers_per_trial == 1 else 1.0
    default: dict[str, float] = {"CPU": 1.0, "GPU": share} if use_gpu else {"CPU": 1.0}
    return {**default, **(search.resources_per_trial or {})}


def gpu_share(peak_bytes: int, total_bytes: int) -> float:
    """Give the share of a GPU that a trial of one process needs by its measured peak: 1, 1/2 and so on down to 1/8.

    A quarter more than the peak is kept for what the allocator cannot use, and a GiB for the process itself. What
    does not fit with that gets the whole GPU: it ran there.
    """
    needed = GPU_MARGIN * peak_bytes + GPU_PROCESS_BYTES
    return 1.0 / min(MOST_PER_GPU, max(1, int(total_bytes // needed)))


def worker_resources(
    train: TrainConfig, shape: ClusterShape, *, use_gpu: bool, streaming: bool, num_groups: int
) -> dict[str, float]:
    """Give the resources of one training worker.

    By default one GPU and one CPU, or as many whole CPUs as every worker of as many groups as can train at the
    same time gets on the nodes there are. Streaming leaves one whole CPU to the tasks that read: without it they
    never start and the workers wait for ever.
    """
    if use_gpu:
        default: dict[str, float] = {"CPU": 1.0, "GPU": 1.0}
    else:
        default = {"CPU": _cpu_share(train.num_workers, shape, streaming=streaming, num_groups=num_groups)}
    return {**default, **(train.resources_per_worker or {})}


def _cpu_share(num_workers: int, shape: ClusterShape, *, streaming: bool, num_groups: int) -> float:
    free = shape.total("CPU") - (1.0 if streaming else 0.0)
    for at_once in range(num_groups, 0, -1):
        workers = num_workers * at_once
        for share in range(int(free // workers), 0, -1):
            if slots({"CPU": share}, shape) >= workers:
                return float(share)
    return 0.5


def models_at_once(
    bundle: Resources, num_workers: int, shape: ClusterShape, *, streaming: bool, num_models: int
) -> int:
    """Count how many models train at the same time: with streaming, one CPU stays free for reading.

    At least one, whether it fits or not: `require_fit` refuses what does not. An elastic cluster takes all.
    """
    if shape.elastic:
        return num_models
    fitting = slots(bundle, shape) // num_workers
    if streaming and bundle.get("CPU", 0.0) > 0:
        free = shape.total("CPU") - 1.0
        fitting = min(fitting, int(free / (bundle["CPU"] * num_workers) + 1e-9))
    return max(1, min(num_models, fitting))


def trials_at_once(bundle: Resources, num_workers: int, shape: ClusterShape, *, most: int) -> int:
    """Count how many trials of `num_workers` workers run at the same time, at most `most`.

    Raises ResourceError when not even one fits; an elastic cluster takes `most`.
    """
    if num_workers > 1:
        return distributed_trials_at_once(bundle, num_workers, shape, most=most)
    require_fit(bundle, 1, shape, what="one trial of the search", remedy="Lower search.resources_per_trial.")
    return most if shape.elastic else max(1, min(most, slots(bundle, shape)))


def distributed_trials_at_once(bundle: Resources, num_workers: int, shape: ClusterShape, *, most: int) -> int:
    """Count how many trials of `num_workers` workers run at the same time: trials, workers and a data task all fit.

    Whichever nodes Ray picks for them, as long as each bundle lies on one node. Raises ResourceError when not even
    one trial fits; an elastic cluster takes `most`.
    """
    if shape.elastic:
        return most
    at_once = next((count for count in range(most, 0, -1) if _hold_together(bundle, num_workers, shape, count)), 0)
    if at_once == 0:
        raise ResourceError(
            f"a trial of {num_workers} workers must fit the cluster: wanted {num_workers} x {show(bundle)}, "
            f"{TRIAL_ACTOR_CPU:g} CPU for the trial itself, and {DATA_TASK_CPU:g} CPU left to data tasks",
            value=f"nodes with {'; '.join(show(node) for node in shape.nodes)}",
            remedy="Lower search.num_workers_per_trial or search.resources_per_trial.",
        )
    return at_once


def _hold_together(bundle: Resources, num_workers: int, shape: ClusterShape, num_trials: int) -> bool:
    """Tell whether trials, their workers and a data task find room, wherever Ray puts those that come first."""
    workers = num_workers * num_trials
    # Trial actors come before their workers, and may lie where they cost most: each at most the slots that its share
    # touches, and all of them at most what they would cost if every node had them all.
    touched = num_trials * ceil(TRIAL_ACTOR_CPU / bundle["CPU"]) if bundle.get("CPU", 0.0) > 0 else 0
    crowded = sum(_slots_on(bundle, _without_cpu(node, TRIAL_ACTOR_CPU * num_trials)) for node in shape.nodes)
    if max(slots(bundle, shape) - touched, crowded) < workers:
        return False
    # A data task comes last. A whole CPU is left on some node when fewer whole ones were broken than there are, or
    # when all that is taken cannot bring every node below one.
    whole = slots({"CPU": DATA_TASK_CPU}, shape)
    cpu = bundle.get("CPU", 0.0)
    broken = workers * ceil(cpu / DATA_TASK_CPU) + num_trials * ceil(TRIAL_ACTOR_CPU / DATA_TASK_CPU)
    spare = sum(max(0.0, node.get("CPU", 0.0) - DATA_TASK_CPU) for node in shape.nodes)
    return broken < whole or workers * cpu + num_trials * TRIAL_ACTOR_CPU <= spare + 1e-9


def _without_cpu(node: Resources, amount: float) -> Resources:
    return {**node, "CPU": max(0.0, node.get("CPU", 0.0) - amount)}


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


def require_reading_cpu(bundle: Resources, num_workers: int, shape: ClusterShape) -> None:
    """Prove that the workers of one model leave a CPU to the tasks that read a stream. Raises ResourceError."""
    taken = bundle.get("CPU", 0.0) * num_workers
    if not shape.elastic and shape.total("CPU") - taken < DATA_TASK_CPU:
        raise ResourceError(
            "streaming must leave one CPU to the tasks that read",
            value=f"{shape.total('CPU'):g} CPUs and workers that take {taken:g}",
            remedy="Lower train.resources_per_worker, or raise max_cache_bytes of the section whose data is streamed: "
            "data, source.data or pretrain.data.",
        )


def show(resources: Resources) -> str:
    """Write resources as `2 CPU, 1 GPU`, leaving out what Ray keeps for itself."""
    named = {name: amount for name, amount in resources.items() if name in {"CPU", "GPU"} or _is_custom(name)}
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(named.items())) or "nothing"


def _is_custom(name: str) -> bool:
    return not name.startswith(("node:", "accelerator_type:", "memory", "object_store_memory"))
