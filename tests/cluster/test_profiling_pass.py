"""The diversity pass opens only what its measures need, and gives the same bits whatever finishes first."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import write_parquet_shards
from PIL import Image
from scipy.stats import entropy
from tiny_experiments import SUBSETS

from orchestrator.cluster.ingest import IngestPlan, make_catalogue, pixel_reader, read_samples
from orchestrator.cluster.profiling import ProfilePlan, make_profile, sampled
from orchestrator.config import DataConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.reader import PixelReader
from orchestrator.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("ray_cluster")


def ingest(data: Path, run: Path, **data_options: object) -> tuple[SampleTable, PixelReader]:
    config = DataConfig.model_validate(
        {"uri": str(data), "image": "image", "label": "label", "subset": "subset", "id": "id", "max_bad_fraction": 0.1}
        | data_options
    )
    plan = IngestPlan(
        data=config, image_size=16, resize="crop", seed=0, run_uri=str(run), folder="catalogue", stall_timeout_s=60
    )
    catalogue = make_catalogue(plan, fingerprint="test")
    return read_samples(str(run), catalogue), pixel_reader(plan, catalogue)


def plan(*measures: str, split: str = "all", sample_per_subset: int | None = None) -> ProfilePlan:
    return ProfilePlan(
        measures=measures,
        split=split,
        sample_per_subset=sample_per_subset,
        min_images=0,
        seed=0,
        num_labels=4,
        stall_timeout_s=60,
    )


def test_entropies_equal_those_of_one_process(tiny_data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(tiny_data, tmp_path)
    profile = make_profile(samples, reader, None, plan("label_entropy", "pixel_entropy"), fingerprint="p")
    contents = {row["id"]: row for row in pq.read_table(tiny_data).to_pylist()}
    for subset in profile.subsets:
        assert subset.label_entropy == pytest.approx(entropy(list(SUBSETS[subset.subset].values())), abs=1e-12)
        usable = samples.table.take(samples.where(subsets=[subset.subset])).column("id").to_pylist()
        assert subset.pixel_entropy == pytest.approx(np.mean([_pixel_entropy(contents[i]["image"]) for i in usable]))


def _pixel_entropy(content: bytes) -> float:
    grey = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    return float(entropy(np.bincount(grey.ravel(), minlength=256)))


def test_a_second_pass_gives_the_same_bits(tiny_data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(tiny_data, tmp_path)
    first, second = (
        make_profile(samples, reader, None, plan("label_entropy", "pixel_entropy"), fingerprint="p") for _ in range(2)
    )
    assert first.subsets == second.subsets


def test_label_measures_open_no_image(tmp_path: Path) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=2)
    for path in data.glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["image"]), path)
    samples, reader = ingest(data, tmp_path / "run", verify="none", image=None)
    profile = make_profile(samples, reader, None, plan("label_entropy"), fingerprint="p")
    assert {subset.subset: subset.label_counts for subset in profile.subsets} == SUBSETS


def test_the_training_split_alone_is_measured_unless_all_is_asked_for(tiny_data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(tiny_data, tmp_path)
    profile = make_profile(samples, reader, None, plan("label_entropy", split="train"), fingerprint="p")
    counted = {subset.subset: subset.num_images for subset in profile.subsets}
    assert counted == {name: len(samples.where(subsets=[name], split="train")) for name in SUBSETS}


def test_a_sample_takes_that_many_of_each_subset_and_is_part_of_a_larger_one(tiny_data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(tiny_data, tmp_path)
    profile = make_profile(samples, reader, None, plan("label_entropy", sample_per_subset=9), fingerprint="p")
    assert {subset.num_images for subset in profile.subsets} == {9}
    nine, twelve = (
        set(sampled(samples.table, samples.where(), plan("label_entropy", sample_per_subset=count)))
        for count in (9, 12)
    )
    assert nine < twelve


def test_data_without_a_usable_sample_says_why(tmp_path: Path) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets={"broken": {"x": 3}}, num_shards=1)
    for path in data.glob("*.parquet"):
        table = pq.read_table(path).drop_columns(["image"])
        pq.write_table(table.append_column("image", pa.array([b"no image"] * table.num_rows)), path)
    with pytest.raises(DataError, match="at least one usable sample, got 3 bad rows"):
        ingest(data, tmp_path / "run")


def test_a_missing_subset_column_is_named_with_the_columns_there_are(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.subset must name a column .* got nothing.*label"):
        ingest(tiny_data, tmp_path, subset=None)
