"""A search with trials of two ranks on three raylets of its own: run as a program, it prints what came and stayed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from builders import class_image
from finetune_examples import a_spec
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table
from ray.util.state import list_actors

from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import observe_cluster
from orchestrator.cluster.session import set_environment
from orchestrator.cluster.trials import run_trial
from orchestrator.cluster.tuning import TuningPlan, run_search
from orchestrator.cluster.workers import Workbench
from orchestrator.config import FineTuneConfig, SearchConfig
from orchestrator.data.pixels import PixelCache, write_pixels
from orchestrator.data.samples import CachedSamples
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import EpochMetrics, Hyperparameters, PretrainedBackbone, Trial
from orchestrator.search.assignments import Assignment, Member
from orchestrator.search.engine import EngineSettings, SearchEngine
from orchestrator.search.finals import Finals, GroupFacts
from orchestrator.search.space import SearchSpace
from orchestrator.search.spending import Spending
from orchestrator.search.stopping import StoppingRule
from orchestrator.search.studies import GroupStudy

GROUP = "only"
CLASSES = ("circle", "cross", "stripe")
METRIC = "val_loss"
IMAGE_PX = 32
SPEC = a_spec(image_size=IMAGE_PX)
A_DAY = 86400.0  # what every trial is said to take: a race of finalists would be too dear

# A trial that learns is better from its first epoch, and one that does not never is. The rung is early.
MODEST = 1.08
RULE = StoppingRule(rungs=(0.02,), keep=(0.5,), least_seen=2)


def a_recipe(*, learning_rate: float, epochs: int, freeze_depth: int = 1) -> Hyperparameters:
    return Hyperparameters(
        freeze_depth=freeze_depth,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=16,
        optimizer="adam",
        weight_decay=0.0,
    )


EARLIER = a_recipe(learning_rate=1e-2, epochs=2)
DIVERGING = a_recipe(learning_rate=1e30, epochs=2)
HEADS = [a_recipe(learning_rate=rate, epochs=1, freeze_depth=3) for rate in (1e-3, 1e-2)]
SHORT = a_recipe(learning_rate=3e-3, epochs=3)
HOPELESS = a_recipe(learning_rate=1e-9, epochs=100)


def some_samples(directory: Path, *, num_train: int = 90, num_validation: int = 30) -> GroupSamples:
    rng = np.random.default_rng(0)
    count = num_train + num_validation
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    pixels = np.stack([class_image(CLASSES[label], rng, IMAGE_PX) for label in labels])
    write_pixels(str(directory), 0, pixels)

    def part(start: int, stop: int) -> CachedSamples:
        rows = np.arange(start, stop, dtype=np.int32)
        return CachedSamples(
            labels=labels[start:stop],
            keys=rows.astype(np.uint64),
            pixels=PixelCache.open(str(directory), np.zeros_like(rows), rows),
        )

    return GroupSamples(
        group=GROUP,
        classes=CLASSES,
        train=part(0, num_train),
        validation=part(num_train, count),
        units=np.arange(count, dtype=np.uint64),
    )


def a_workbench() -> Workbench:
    backbone, digest = load_pretrained("none", SPEC, seed=0)
    record = PretrainedBackbone(
        spec=SPEC,
        source="none",
        weights="none",
        digest=digest,
        num_stages=backbone.num_stages,
        feature_dim=backbone.feature_dim,
    )
    return Workbench(backbone=record, weights_uri="none", seed=0, batch_norm="frozen", precision="fp32", metric=METRIC)


def an_engine(directory: Path, samples: GroupSamples, recipes: list[Hyperparameters], num_stages: int) -> SearchEngine:
    """Put an engine over the study of an interrupted search, whose one finished trial is hard to match."""
    known = [EARLIER, *recipes]
    choices = {
        "freeze_depth": sorted({recipe.freeze_depth for recipe in known}),
        "learning_rate": sorted({recipe.learning_rate for recipe in known}),
        "epochs": sorted({recipe.epochs for recipe in known}),
    }
    search = SearchConfig.model_validate({"num_samples": len(known), "space": choices, "metric": METRIC})
    space = SearchSpace.from_config(search.space, num_stages, FineTuneConfig(batch_size=EARLIER.batch_size))
    study = GroupStudy.open(
        directory / "journal.log",
        group=GROUP,
        name=GROUP,
        space=space,
        search=search,
        seed=0,
        first=EARLIER,
        storage=None,
    )
    _record_earlier(study)
    for recipe in recipes:
        study.enqueue(recipe, "shared")
    settings = EngineSettings(
        spending=Spending(num_trials=len(known) + 1),
        stopping=RULE,
        heads=len(HEADS),
        num_stages=num_stages,
        metric=METRIC,
        seed=0,
    )
    facts = GroupFacts(num_train=len(samples.train), num_validation=len(samples.validation), fixed_rule=EARLIER)
    return SearchEngine(
        {GROUP: study},
        space,
        settings,
        lambda group, recipe: A_DAY,
        lambda trials: Finals(trials=trials, facts={GROUP: facts}, metric=METRIC, predict=lambda group, recipe: A_DAY),
    )


def _record_earlier(study: GroupStudy) -> None:
    asked = study.ask("listed")
    assert asked is not None
    number, recipe = asked
    history = [EpochMetrics(epoch=epoch, train_loss=MODEST, val_loss=MODEST, val_accuracy=0.5) for epoch in (1, 2)]
    study.record(
        number,
        Trial(
            trial_id=f"{GROUP}-{number}",
            hyperparameters=recipe,
            status="complete",
            value=MODEST,
            history=history,
            seconds=1.0,
        ),
    )


def search(directory: Path, recipes: list[Hyperparameters], *, num_workers: int) -> tuple[list[Trial], float]:
    """Give the trials in the order they ended, and when the last one did."""
    samples, workbench = some_samples(directory / "pixels"), a_workbench()
    engine = an_engine(directory, samples, recipes, workbench.backbone.num_stages)
    plan = TuningPlan(
        resources_per_trial={"CPU": 1.0},
        max_concurrent_trials=None,
        use_gpu=False,
        stall_timeout_s=200,
        metric=METRIC,
        stopping=RULE,
        num_trials=len(recipes) + 1,
        num_workers_per_trial=num_workers,
    )
    found: list[Trial] = []
    started = time.monotonic()
    ended = [started]

    def keep(assignment: Assignment, outcomes: list[Trial]) -> None:
        found.extend(outcomes)
        ended.append(time.monotonic())

    run_search(
        engine,
        {GROUP: samples},
        workbench,
        plan,
        observe_cluster(elastic=False),
        clock=lambda: time.monotonic() - started,
        on_finished=keep,
    )
    return found, ended[-1]


def what_is_left() -> dict[str, Any]:
    """Say what the search still holds of the cluster, and how many workers it had."""
    actors = list_actors(address=ray.get_runtime_context().gcs_address, limit=1000, detail=True)
    # Ray Train asks an autoscaler for room through an actor that serves the whole cluster for as long as it lives.
    own = [actor for actor in actors if actor.class_name != "_AutoscalingCoordinatorActor"]
    held = [f"actor {actor.class_name}" for actor in own if actor.state != "DEAD"]
    held += [f"process {actor.class_name}" for actor in own if _runs(actor)]
    held += [
        f"placement group {group['state']}" for group in placement_group_table().values() if group["state"] != "REMOVED"
    ]
    cpus = ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0.0)
    return {
        "held": sorted(held) + ([f"{cpus:g} CPU"] if cpus else []),
        "num_workers": sum(actor.class_name == "RayTrainWorker" for actor in actors),
    }


def _runs(actor: Any) -> bool:
    """Tell whether the process of an actor is still there, and still its own."""
    command = ["ps", "-p", str(actor.pid), "-o", "command="]
    return actor.class_name in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def one_process(directory: Path, recipe: Hyperparameters) -> Trial:
    """Train a recipe in this process, as a trial of one process does."""
    assignment = Assignment(
        kind="trial",
        group=GROUP,
        members=(Member(name="alone", number=0, hyperparameters=recipe),),
        seconds=1.0,
    )
    return run_trial(assignment, some_samples(directory / "alone"), a_workbench(), "cpu", on_epoch=lambda metrics: None)


def main(directory: Path) -> None:
    set_environment()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "dashboard_port": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level="warning", log_to_driver=False)
    try:
        trials, ended = search(directory, [DIVERGING, *HEADS, SHORT, HOPELESS], num_workers=2)
        while what_is_left()["held"] and time.monotonic() - ended < 60:
            time.sleep(0.2)
        facts = {
            "free_after_s": time.monotonic() - ended,
            "left": what_is_left(),
            "trials": [trial.model_dump(mode="json") for trial in trials],
            "one_process": one_process(directory, SHORT).model_dump(mode="json"),
        }
        print(json.dumps(facts))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
