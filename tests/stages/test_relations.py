"""A labelled source keeps features as a pretraining does: how far subsets and groups lie from it is known and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import write_parquet_shards

from orchestrator.config import ExperimentConfig
from orchestrator.diversity.source_features import SourceFeatures
from orchestrator.pipeline import Pipeline
from orchestrator.records import Distances, GroupDistances

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(300)]

STAGES = ["pretrain", "catalogue", "profile", "group"]


def test_groups_and_subsets_are_compared_with_what_they_are_trained_together_with(
    tiny_experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    # Other pictures of two of the target's classes and one more, and some that are the target's own.
    source = write_parquet_shards(
        tmp_path / "source", subsets={"b": {"circle": 40, "stripe": 40}, "a": {"blob": 20}}, num_shards=1, seed=3
    )
    sections: dict[str, Any] = {
        "diversity": {"measures": ["label_entropy", "feature_diversity"]},
        "grouping": {"num_groups": 2, "measures": ["label_entropy"]},
    }
    config = tiny_experiment(**sections, source={"uri": str(source), "classes": ["circle", "stripe"]})
    directory = Path(config.storage_path) / config.name
    Pipeline(config, say=lambda line: None).run(STAGES)
    distances = Distances.from_json((directory / "distances.json").read_bytes(), source="distances.json")
    (known,) = distances.sources
    assert (known.kind, known.uri, known.classes) == ("joint training", str(source), ["circle", "stripe"])
    kept = SourceFeatures.from_bytes((directory / known.features).read_bytes(), source="")
    assert set(kept.labels) == {"circle", "stripe"} and known.num_images <= len(kept.labels) // 2
    assert {near.subset: near.shared_classes for near in known.subsets} == dict.fromkeys(
        ("even", "full", "plain", "rich"), 2
    )
    groups = GroupDistances.from_json((directory / "group_distances.json").read_bytes(), source="")
    (of_source,) = groups.sources
    assert {near.group: (near.shared_classes, near.num_classes) for near in of_source} == {
        "g0": (2, 2),
        "g1": (2, 4),
    }
    assert all(near.relation.endswith("same task") for near in of_source)

    again: list[str] = []
    Pipeline(config, say=again.append).run(STAGES)
    assert [line.partition(": ")[2] for line in again] == ["up to date, skipped"] * 4
    # Other groups are compared on the features that are kept: their images are not needed.
    regrouped = config.model_copy(update={"grouping": config.grouping.model_copy(update={"num_groups": 1})})
    Pipeline(regrouped, say=again.append).run(["group"])
    merged = GroupDistances.from_json((directory / "group_distances.json").read_bytes(), source="")
    assert [near.num_classes for near in merged.sources[0]] == [4]
    (directory / str(distances.features)).unlink()
    Pipeline(config, say=again.append).run(["profile"])
    assert (directory / str(distances.features)).exists()
    # As negatives the same images have no task, and an experiment without a source none to compare with.
    negatives = tiny_experiment(**sections, source={"uri": str(source), "as_negatives": "reject"})
    Pipeline(negatives, say=again.append).run(["catalogue", "profile"])
    found = Distances.from_json((directory / "distances.json").read_bytes(), source="distances.json")
    assert found.sources[0].classes == []
    assert {near.relation for near in found.sources[0].subsets} <= {"same domain", "another domain"}
    assert [path.name for path in (directory / "source" / "features").iterdir()] == [
        Path(found.sources[0].features).name
    ]
    alone = tiny_experiment(**sections)
    Pipeline(alone, say=again.append).run(["profile", "group"])
    found = Distances.from_json((directory / "distances.json").read_bytes(), source="distances.json")
    assert found.sources == [] and found.features is None and found.between
    assert not (directory / "group_distances.json").exists()
