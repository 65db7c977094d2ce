"""The diversity pass opens only what its measures need, and gives the same bits whatever finishes first."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import ROW_SCHEMA, build_rows, write_parquet_shards
from PIL import Image
from scipy.stats import entropy
from tiny_experiments import SUBSETS
from workbenches import random_workbench

from orchestrator.cluster import profiling
from orchestrator.cluster.ingest import IngestPlan, make_catalogue, pixel_reader, read_samples
from orchestrator.cluster.profiling import ProfilePlan, make_profile, require_room, runs_of, sampled
from orchestrator.cluster.workers import Workbench
from orchestrator.config import DataConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.identity import stable_fraction
from orchestrator.data.reader import PixelReader
from orchestrator.diversity.category_counts import count_rows
from orchestrator.diversity.profiling import ProfileSettings
from orchestrator.diversity.subset_counts import SubsetCounts
from orchestrator.errors import ConfigError, DataError, ResourceError
from orchestrator.records import BackboneSpec

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


def plan(
    *measures: str,
    split: Literal["train", "all"] = "all",
    sample_per_subset: int | None = None,
    partials_uri: str | None = None,
    attributes: Sequence[str] = (),
) -> ProfilePlan:
    return ProfilePlan(
        partials_uri=partials_uri,
        settings=ProfileSettings(
            num_labels=4, measures=measures, split=split, min_images=0, seed=0, attributes=attributes
        ),
        sample_per_subset=sample_per_subset,
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


def test_a_sample_is_of_the_lowest_hashes_in_every_subset() -> None:
    ids, subsets = [f"image-{index}" for index in range(60)], ["abc"[index % 3] for index in range(60)]
    table = pa.table({"id": ids, "subset": subsets})
    positions = np.arange(50, dtype=np.int64)
    found = sampled(table, positions, plan("label_entropy", sample_per_subset=4))
    expected = [
        sorted((i for i in range(50) if subsets[i] == name), key=lambda i: stable_fraction(ids[i], 0))[:4]
        for name in "abc"
    ]
    assert found.tolist() == sorted(index for kept in expected for index in kept)


def test_subsets_whose_features_would_not_fit_the_driver_are_refused_before_the_pass() -> None:
    rows = {"subset": np.repeat([f"site-{index}" for index in range(1000)], 2).tolist(), "label": ["cat", "dog"] * 1000}
    counted = SubsetCounts.of(count_rows(pa.table(rows)), ["label"])
    require_room(counted, 1280, memory=2 * 2000 * 1280 * 4)
    with pytest.raises(ResourceError, match=r"1,000 subsets, of 1,280 dimensions.*Set or lower diversity.sample"):
        require_room(counted, 1280, memory=2 * 2000 * 1280 * 4 - 2)


def weathered(directory: Path) -> Path:
    """Write shards with a column of weathers beside the tiny data's, one of them missing in each shard."""
    data = write_parquet_shards(directory, subsets=SUBSETS, num_shards=3)
    for path in data.glob("*.parquet"):
        table = pq.read_table(path)
        weather = [None, *(["sun", "rain", "snow"][index % 3] for index in range(table.num_rows - 1))]
        pq.write_table(table.append_column("weather", pa.array(weather)), path)
    return data


def test_attributes_are_counted_over_the_rows_that_are_measured(tmp_path: Path) -> None:
    data = weathered(tmp_path / "data")
    samples, reader = ingest(data, tmp_path / "run")
    settings = plan("label_entropy", split="train", attributes=["weather", "label"])
    profile = make_profile(samples, reader, None, settings, fingerprint="p")
    rows = {row["id"]: row for row in pq.read_table(data).to_pylist()}
    for subset in profile.subsets:
        trained = samples.table.take(samples.where(subsets=[subset.subset], split="train")).column("id").to_pylist()
        weathers = Counter(rows[name]["weather"] for name in trained)
        joint = Counter((rows[name]["weather"], rows[name]["label"]) for name in trained)
        assert subset.attribute_entropies["weather"] == pytest.approx(entropy(list(weathers.values())), abs=1e-12)
        assert subset.attribute_entropies["label"] == pytest.approx(subset.label_entropy, abs=1e-12)
        assert subset.joint_attribute_entropy == pytest.approx(entropy(list(joint.values())), abs=1e-12)


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


def a_workbench(mean: float = 0.5) -> Workbench:
    spec = BackboneSpec(
        name="mobilenet_v2",
        kwargs={"width_mult": 0.25},
        image_size=16,
        resize="crop",
        mean=(mean, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    return random_workbench(spec)


ALL_MEASURES = ("label_entropy", "pixel_entropy", "feature_diversity")


def kept_files(partials: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in partials.iterdir()}


def add_shard(data: Path, name: str, count: int) -> None:
    rows = build_rows(subsets={"even": {"circle": count, "stripe": count}}, seed=7)
    pq.write_table(
        pa.Table.from_pylist([{**row, "id": f"{name}/{row['id']}"} for row in rows], ROW_SCHEMA), data / name
    )


def test_kept_measures_give_the_same_bits_and_open_no_image(tmp_path: Path) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=3)
    samples, reader = ingest(data, tmp_path / "run")
    kept = plan(*ALL_MEASURES, partials_uri=str(tmp_path / "partials"))
    plain = make_profile(samples, reader, a_workbench(), plan(*ALL_MEASURES), fingerprint="p")
    first = make_profile(samples, reader, a_workbench(), kept, fingerprint="p")
    for path in [*data.glob("*.parquet"), *(tmp_path / "run").rglob("*.npy")]:
        path.unlink()
    second = make_profile(samples, reader, a_workbench(), kept, fingerprint="p")
    assert plain.subsets == first.subsets == second.subsets


def test_blocks_are_put_together_by_their_number_alone_and_stay_in_order() -> None:
    blocks = [pa.table({"id": [f"{number}"], "block": [number]}) for number in range(200)]
    runs = runs_of(blocks)
    assert [run.num_rows for run in runs] == [3] * 66 + [2]
    assert pa.concat_tables(runs).column("block").to_pylist() == list(range(200))
    assert [run.column("key").unique().to_pylist() for run in runs] == [[key] for key in range(67)]
    assert [run.num_rows for run in runs_of(blocks[:20])] == [1] * 20
    assert {run.num_rows for run in runs_of(blocks * 8)} == {16} and runs_of([]) == []


def test_a_task_that_merges_blocks_keeps_and_gives_what_single_blocks_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=4)
    samples, reader = ingest(data, tmp_path / "run")
    kept = plan(*ALL_MEASURES, partials_uri=str(tmp_path / "partials"))
    single = make_profile(samples, reader, a_workbench(), kept, fingerprint="p")
    before = kept_files(tmp_path / "partials")
    monkeypatch.setattr(profiling, "_LEAST_RUNS", 2)
    merged = make_profile(samples, reader, a_workbench(), kept, fingerprint="p")
    assert kept_files(tmp_path / "partials") == before
    for one, other in zip(single.subsets, merged.subsets, strict=True):
        assert (one.subset, one.label_counts) == (other.subset, other.label_counts)
        assert other.feature_diversity == one.feature_diversity
        assert other.pixel_entropy == pytest.approx(one.pixel_entropy, rel=1e-12)
        assert other.raw_feature_diversity == pytest.approx(one.raw_feature_diversity, rel=1e-9)


def test_a_new_shard_alone_is_measured(tmp_path: Path) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=4)
    kept = plan(*ALL_MEASURES, partials_uri=str(tmp_path / "partials"))
    make_profile(*ingest(data, tmp_path / "run"), a_workbench(), kept, fingerprint="p")
    before = kept_files(tmp_path / "partials")
    # Listed before all others, so that every old shard has another number than before.
    add_shard(data, "extra.parquet", 8)
    samples, reader = ingest(data, tmp_path / "run2")
    grown = make_profile(samples, reader, a_workbench(), kept, fingerprint="p")
    after = kept_files(tmp_path / "partials")
    assert len(before) == 2 * 4
    assert len(after) == 2 * 5
    assert before.items() <= after.items()
    assert grown.subsets == make_profile(samples, reader, a_workbench(), plan(*ALL_MEASURES), fingerprint="p").subsets


def test_another_label_opens_no_image_and_other_preprocessing_opens_all(tmp_path: Path) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=2)
    samples, reader = ingest(data, tmp_path / "run")
    kept = plan(*ALL_MEASURES, partials_uri=str(tmp_path / "partials"))
    make_profile(samples, reader, a_workbench(), kept, fingerprint="p")
    before = kept_files(tmp_path / "partials")
    labels = samples.table.column("label").to_pylist()
    place = samples.table.column_names.index("label")
    other = next(label for label in labels if label != labels[0])
    relabelled = SampleTable(samples.table.set_column(place, "label", pa.array([other, *labels[1:]])))
    profile = make_profile(relabelled, reader, a_workbench(), kept, fingerprint="p")
    counts = sum((Counter(subset.label_counts) for subset in profile.subsets), Counter[str]())
    split = None if kept.settings.split == "all" else kept.settings.split
    measured = relabelled.table.take(pa.array(relabelled.where(split=split)))
    assert counts == Counter(measured.column("label").to_pylist())
    assert kept_files(tmp_path / "partials") == before
    make_profile(samples, reader, a_workbench(mean=0.4), kept, fingerprint="p")
    after = kept_files(tmp_path / "partials")
    assert len(after) == len(before)
    assert after.keys().isdisjoint(before)


def test_damaged_measures_are_made_anew(tmp_path: Path) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=2)
    samples, reader = ingest(data, tmp_path / "run")
    kept = plan(*ALL_MEASURES, partials_uri=str(tmp_path / "partials"))
    first = make_profile(samples, reader, a_workbench(), kept, fingerprint="p")
    damaged, whole = sorted((tmp_path / "partials").glob("*.npz"))
    content, mended = bytearray(damaged.read_bytes()), whole.stat().st_mtime_ns
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert make_profile(samples, reader, a_workbench(), kept, fingerprint="p").subsets == first.subsets
    assert damaged.read_bytes() != bytes(content)
    assert whole.stat().st_mtime_ns == mended


def test_label_measures_keep_nothing(tiny_data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(tiny_data, tmp_path / "run")
    make_profile(samples, reader, None, plan("label_entropy", partials_uri=str(tmp_path / "partials")), fingerprint="p")
    assert not (tmp_path / "partials").exists()
