"""The distance to a source task is measured on kept features of the classes that it has."""

from __future__ import annotations

from pathlib import Path

import pytest
from finetune_examples import a_spec
from tiny_experiments import SUBSETS
from workbenches import random_workbench

from orchestrator.cluster.ingest import IngestPlan, make_catalogue, pixel_reader, read_samples
from orchestrator.cluster.ranking import shuffled_features
from orchestrator.config import DataConfig
from orchestrator.stages.distances import KnownSource, LabelledImages, distances_of

# Workers of Ray import no backbone of the tests.
SPEC = a_spec("mobilenet_v2", image_size=32, width_mult=0.25)
pytestmark = pytest.mark.usefixtures("ray_cluster")


def images_of(data: Path, run: Path, folder: str, classes: list[str] | None = None) -> LabelledImages:
    config = DataConfig(uri=str(data), image="image", label="label", subset="subset", id="id", max_bad_fraction=0.1)
    plan = IngestPlan(
        data=config, image_size=32, resize="crop", seed=0, run_uri=str(run), folder=folder, stall_timeout_s=60
    )
    catalogue = make_catalogue(plan, fingerprint="test")
    return LabelledImages(
        catalogue=catalogue,
        samples=read_samples(str(run), catalogue),
        reader=pixel_reader(plan, catalogue),
        classes=classes or catalogue.labels,
    )


def test_subsets_are_compared_with_each_other_and_with_the_classes_of_the_source(
    tiny_data: Path, tmp_path: Path
) -> None:
    images = images_of(tiny_data, tmp_path, "catalogue")
    whole, classes = images_of(tiny_data, tmp_path, "pretrain/catalogue"), ["circle", "stripe"]
    rows, features = shuffled_features(
        whole.samples, whole.reader, random_workbench(SPEC), classes=classes, most_per_subset=1024, stall_timeout_s=60
    )
    assert set(rows.column("label").to_pylist()) == set(classes)
    source = KnownSource(kind="pretraining", uri="/source", path="kept", features=features, classes=classes)
    found, sample = distances_of(images, [source], random_workbench(SPEC), min_images=10, stall_timeout_s=60)
    (known,) = found.sources
    assert found.subsets == sorted(SUBSETS) and len(found.between) == len(SUBSETS)
    assert set(sample.labels) == set(SUBSETS) and len(sample.features) == len(images.samples.where(split="train"))
    assert {near.subset: (near.shared_classes, near.num_classes) for near in known.subsets} == {
        "even": (2, 2),
        "full": (2, 4),
        "plain": (2, 2),
        "rich": (2, 3),
    }
    assert known.own_range > 0
    nearest = min(known.subsets, key=lambda near: near.distance)
    # The source lacks two of the classes of `full`, and has those of `even` in other shares.
    assert nearest.subset in ("even", "plain")


def test_without_a_source_only_the_distances_between_subsets_are_known(tiny_data: Path, tmp_path: Path) -> None:
    images = images_of(tiny_data, tmp_path, "catalogue")
    found, _ = distances_of(images, [], random_workbench(SPEC), min_images=10, stall_timeout_s=60)
    assert found.sources == []
    assert all(row[place] == 0 for place, row in enumerate(found.between))
