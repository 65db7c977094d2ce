"""The activation pass computes what is missing and nothing else, and its rows are those of the frozen stages."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import safetensors.torch
from builders import ROW_SCHEMA, build_rows, write_parquet_shards
from torch import nn

from orchestrator import storage
from orchestrator.cluster import activations
from orchestrator.cluster.activations import ActivationIndex, ActivationPlan, build_activations
from orchestrator.cluster.ingest import IngestPlan, make_catalogue, pixel_reader, read_samples
from orchestrator.cluster.workers import Workbench
from orchestrator.config import AugmentConfig, DataConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.identity import sample_keys
from orchestrator.data.reader import PixelReader
from orchestrator.errors import ConfigError, DataError
from orchestrator.finetune.prefix import prefix_rows
from orchestrator.finetune.views import vary
from orchestrator.finetune.weights import load_pretrained, weights_digest
from orchestrator.records import BackboneSpec, PretrainedBackbone

pytestmark = pytest.mark.usefixtures("ray_cluster")

SUBSETS = {"north": {"cat": 12, "dog": 12}, "south": {"cat": 16}}
SHARDS = 5
SPEC = BackboneSpec(
    name="mobilenet_v2",
    kwargs={"width_mult": 0.25},
    image_size=32,
    resize="crop",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
VARIED = AugmentConfig(views=3, flip=True, crop=0.1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_parquet_shards(tmp_path / "data", subsets=SUBSETS, num_shards=SHARDS)


def ingest(
    data: Path, run: Path | str, *, spec: BackboneSpec = SPEC, **options: Any
) -> tuple[SampleTable, PixelReader]:
    columns = {"image": "image", "label": "label", "subset": "subset", "id": "id"}
    config = DataConfig.model_validate({"uri": str(data), **columns, **options})
    plan = IngestPlan(
        data=config,
        image_size=spec.image_size,
        resize=spec.resize,
        seed=0,
        run_uri=str(run),
        folder="catalogue",
        stall_timeout_s=60,
    )
    catalogue = make_catalogue(plan, fingerprint="test")
    return read_samples(str(run), catalogue), pixel_reader(plan, catalogue)


def a_workbench(
    spec: BackboneSpec = SPEC, weights: Path | None = None, precision: str = "fp32", scale: float = 1.0
) -> Workbench:
    """Take random weights, or those times `scale`, written to the file `weights`."""
    backbone, digest = load_pretrained("none", spec, seed=0)
    if weights is not None:
        state = {
            name: value * scale if value.is_floating_point() else value for name, value in backbone.state_dict().items()
        }
        backbone.load_state_dict(state)
        digest = weights_digest(backbone)
        weights.write_bytes(safetensors.torch.save(state))
    uri = "none" if weights is None else str(weights)
    record = PretrainedBackbone(
        spec=spec,
        source=uri,
        weights=uri,
        digest=digest,
        num_stages=backbone.num_stages,
        feature_dim=backbone.feature_dim,
    )
    return Workbench(
        backbone=record, weights_uri=uri, seed=0, batch_norm="frozen", precision=precision, metric="val_accuracy"
    )


def a_plan(uri: Path | str, *depths: int, **changes: Any) -> ActivationPlan:
    depths = depths or (6, 3)
    base = ActivationPlan(
        uri=str(uri),
        max_bytes=2**30,
        depths=depths,
        dtypes=dict.fromkeys(depths, "fp32"),
        augment=AugmentConfig(),
        seed=0,
        use_gpu=False,
        stall_timeout_s=60,
    )
    return replace(base, **changes)


def expected_rows(
    samples: SampleTable,
    reader: PixelReader,
    workbench: Workbench,
    positions: np.ndarray,
    plan: ActivationPlan,
    depth: int,
    view: int,
) -> np.ndarray:
    """Compute the rows of samples one by one, as no batch of the pass did."""
    stages = nn.Sequential(*workbench.pretrained().stages)
    rows = []
    for position in positions.tolist():
        row = samples.table.take(pa.array([position]))
        keys = sample_keys(row.column("id").to_pylist())
        pixels = vary(reader.read(row), keys, view, plan.augment, plan.seed)
        found = prefix_rows(stages, pixels, [depth], workbench.backbone.spec, workbench.settings("cpu"), plan.dtypes)
        rows.append(found[depth])
    return np.concatenate(rows)


def files_of(cache: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in cache.glob("*.npy")}


def test_a_short_pass_in_this_process_stores_what_tasks_store(data: Path, tmp_path: Path) -> None:
    table, reader = ingest(data, tmp_path / "run")
    by_tasks = build_activations(table, reader, a_workbench(), a_plan(tmp_path / "tasks", augment=VARIED))
    here = build_activations(table, reader, a_workbench(), a_plan(tmp_path / "here", augment=VARIED, expected_s=1.0))
    assert here.computed == by_tasks.computed > 0
    assert contents_of(tmp_path / "here") == contents_of(tmp_path / "tasks")
    again = build_activations(table, reader, a_workbench(), a_plan(tmp_path / "here", augment=VARIED, expected_s=1.0))
    assert again.computed == 0 and again.reused == here.computed


def contents_of(cache: Path) -> dict[str, bytes]:
    return {name: content for name, (_, content) in files_of(cache).items()}


def test_stored_rows_are_those_of_the_frozen_stages_in_every_view(data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    workbench, plan = a_workbench(), a_plan(tmp_path / "cache", augment=VARIED)
    index = pickle.loads(pickle.dumps(build_activations(samples, reader, workbench, plan)))
    assert index.depths == (6, 3)
    for subset, split, num_views in (("north", "train", 3), ("south", "val", 1)):
        positions = samples.where(subsets=[subset], split=split)
        for depth in index.depths:
            stored = index.rows(positions, depth)
            assert len(stored) == len(positions) > 0
            assert len(stored.entries) == num_views
            for view in range(num_views):
                expected = expected_rows(samples, reader, workbench, positions, plan, depth, view)
                np.testing.assert_allclose(stored.load(view), expected, rtol=1e-4, atol=1e-5)


def test_validation_samples_have_every_view_where_folds_train_on_them(data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    workbench, plan = a_workbench(), a_plan(tmp_path / "cache", 6, augment=VARIED, all_views=True)
    index = build_activations(samples, reader, workbench, plan)
    train, validation = (samples.where(split=split) for split in ("train", "val"))
    pool = np.concatenate([train, validation])
    for view in range(3):
        expected = expected_rows(samples, reader, workbench, pool, plan, 6, view)
        np.testing.assert_allclose(index.rows(pool, 6).load(view), expected, rtol=1e-4, atol=1e-5)


def test_reduced_types_and_precision_are_kept_as_asked(data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    workbench = a_workbench(precision="bf16")
    plan = a_plan(tmp_path / "cache", dtypes={6: "fp16", 3: "bf16"})
    index = build_activations(samples, reader, workbench, plan)
    train = samples.where(split="train")
    assert index.rows(train, 6).load().dtype == np.float16
    stored = index.rows(train, 3).load()
    assert stored.dtype == np.uint16
    expected = expected_rows(samples, reader, workbench, train, plan, 3, 0)
    as_floats = [(rows.astype(np.uint32) << 16).view(np.float32) for rows in (stored, expected)]
    np.testing.assert_allclose(*as_floats, rtol=0.05, atol=0.05)
    again = build_activations(samples, reader, a_workbench(), plan)
    assert (again.computed, again.reused) == (2 * SHARDS, 0)


def test_a_second_run_starts_no_pass(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    plan = a_plan(tmp_path / "cache", augment=VARIED)
    first = build_activations(samples, reader, a_workbench(), plan)
    assert (first.computed, first.reused) == (2 * 3 * SHARDS, 0)
    assert first.bytes == sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.npy"))
    monkeypatch.setattr(ray.data, "from_arrow", lambda blocks: pytest.fail("a pass was started"))
    second = build_activations(samples, reader, a_workbench(), plan)
    assert (second.computed, second.reused) == (0, 2 * 3 * SHARDS)
    assert second.entries == first.entries


def test_only_new_shards_are_computed_and_nothing_else_is_touched(tmp_path: Path) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets={"north": {"cat": 60, "dog": 60}}, num_shards=10)
    plan = a_plan(tmp_path / "cache")
    build_activations(*ingest(data, tmp_path / "run"), a_workbench(), plan)
    before = files_of(tmp_path / "cache")
    rows = [{**row, "id": f"new/{row['id']}"} for row in build_rows(subsets={"east": {"cat": 12}}, seed=9)]
    # Listed before all others, so that every old shard has another number than before.
    pq.write_table(pa.Table.from_pylist(rows, schema=ROW_SCHEMA), data / "extra.parquet")
    samples, reader = ingest(data, tmp_path / "run2")
    index = build_activations(samples, reader, a_workbench(), plan)
    assert (index.computed, index.reused) == (2, 20)
    assert before.items() <= files_of(tmp_path / "cache").items()
    new = samples.where(subsets=["east"], split="train")
    expected = expected_rows(samples, reader, a_workbench(), new, plan, 6, 0)
    np.testing.assert_allclose(index.rows(new, 6).load(), expected, rtol=1e-4, atol=1e-5)


def test_another_depth_computes_that_one_alone(data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    build_activations(samples, reader, a_workbench(), a_plan(tmp_path / "cache", 6))
    before = files_of(tmp_path / "cache")
    index = build_activations(samples, reader, a_workbench(), a_plan(tmp_path / "cache", 6, 4))
    assert (index.computed, index.reused) == (SHARDS, SHARDS)
    assert before.items() <= files_of(tmp_path / "cache").items()


def test_more_views_compute_the_new_ones_and_share_the_image_itself(data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    plan = a_plan(tmp_path / "cache", 6)
    build_activations(samples, reader, a_workbench(), plan)
    three = build_activations(samples, reader, a_workbench(), replace(plan, augment=VARIED))
    assert (three.computed, three.reused) == (2 * SHARDS, SHARDS)
    other = replace(plan, augment=VARIED.model_copy(update={"colour": 0.2}))
    assert build_activations(samples, reader, a_workbench(), other).computed == 2 * SHARDS


@pytest.mark.parametrize("change", ["weights", "size", "preprocessing"])
def test_what_the_rows_depend_on_misses(data: Path, tmp_path: Path, change: str) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    plan = a_plan(tmp_path / "cache", 6)
    build_activations(samples, reader, a_workbench(weights=tmp_path / "one.safetensors"), plan)
    match change:
        case "weights":
            workbench = a_workbench(weights=tmp_path / "two.safetensors", scale=1.5)
        case "preprocessing":
            workbench = a_workbench(SPEC.model_copy(update={"mean": (0.4, 0.5, 0.5)}))
        case _:
            small = SPEC.model_copy(update={"image_size": 40})
            samples, reader = ingest(data, tmp_path / "run2", spec=small)
            workbench = a_workbench(small)
    index = build_activations(samples, reader, workbench, plan)
    assert (index.computed, index.reused) == (SHARDS, 0)
    train = samples.where(split="train")
    expected = expected_rows(samples, reader, workbench, train, plan, 6, 0)
    np.testing.assert_allclose(index.rows(train, 6).load(), expected, rtol=1e-4, atol=1e-5)


def test_another_image_misses_in_its_shard_alone(data: Path, tmp_path: Path) -> None:
    plan = a_plan(tmp_path / "cache", 6)
    samples, reader = ingest(data, tmp_path / "run")
    build_activations(samples, reader, a_workbench(), plan)
    kept = samples.where(split="train")[0]
    file = data / samples.table.column("file")[int(kept)].as_py()
    rows = pq.read_table(file).to_pylist()
    place = samples.table.column("row")[int(kept)].as_py()
    rows[place]["image"] = build_rows(subsets={"x": {"cross": 1}}, seed=5)[0]["image"]
    pq.write_table(pa.Table.from_pylist(rows, schema=ROW_SCHEMA), file)
    index = build_activations(*ingest(data, tmp_path / "run2"), a_workbench(), plan)
    assert (index.computed, index.reused) == (1, SHARDS - 1)


def test_a_damaged_entry_is_rebuilt(data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    plan = a_plan(tmp_path / "cache", 6)
    build_activations(samples, reader, a_workbench(), plan)
    before = files_of(tmp_path / "cache")
    cut, flipped = sorted((tmp_path / "cache").glob("*.npy"))[:2]
    cut.write_bytes(cut.read_bytes()[:-40])
    content = bytearray(flipped.read_bytes())
    content[-1] ^= 1
    flipped.write_bytes(content)
    index = build_activations(samples, reader, a_workbench(), plan)
    assert index.computed == 1
    # A listing does not show a flipped bit: the reader finds it, and the next pass mends it.
    everything = np.sort(np.concatenate([samples.where(split=split) for split in ("train", "val")]))
    with pytest.raises(DataError, match="must be there and whole"):
        index.rows(everything, 6).load()
    mended = build_activations(samples, reader, a_workbench(), plan)
    assert mended.computed == 1
    assert len(mended.rows(everything, 6).load()) == len(everything)
    assert {name: content for name, (_, content) in files_of(tmp_path / "cache").items()} == {
        name: content for name, (_, content) in before.items()
    }


def test_damage_anywhere_is_found_before_a_training_begins(data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    index = build_activations(samples, reader, a_workbench(), a_plan(tmp_path / "cache", 6))
    train = samples.where(split="train")
    rows = index.rows(train, 6)
    rows.check()
    last = tmp_path / "cache" / f"{rows.entries[0][int(rows.shards.max())]}.npy"
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    with pytest.raises(DataError, match="must be there and whole"):
        index.rows(train, 6).check()


def test_a_pass_rebuilds_what_it_finds_damaged_beside_what_is_missing(data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    build_activations(samples, reader, a_workbench(), a_plan(tmp_path / "cache", 6))
    for path in (tmp_path / "cache").glob("*.npy"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    index = build_activations(samples, reader, a_workbench(), a_plan(tmp_path / "cache", 6, 4))
    assert (index.computed, index.reused) == (2 * SHARDS, 0)
    assert all(index.store.check(name) for name in index.store.entries())


def test_depths_that_do_not_fit_are_left_out_from_the_end(data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    head_bytes = build_activations(samples, reader, a_workbench(), a_plan(tmp_path / "probe", 6)).bytes
    small = a_plan(tmp_path / "cache", 6, 2, 5, max_bytes=head_bytes + 1000)
    assert build_activations(samples, reader, a_workbench(), small).depths == (6,)
    nothing = build_activations(samples, reader, a_workbench(), replace(small, max_bytes=10))
    assert (nothing.depths, nothing.computed, nothing.bytes) == ((), 0, 0)
    with pytest.raises(DataError, match="must be stored, got 6"):
        nothing.rows(samples.where(split="train"), 6)


def test_older_entries_make_room_for_this_run(data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    first = build_activations(samples, reader, a_workbench(), a_plan(tmp_path / "cache", 6))
    for path in (tmp_path / "cache").glob("*.json"):
        os.utime(path, (1000, 1000))
    room = first.bytes + 100 * SHARDS
    other = a_plan(tmp_path / "cache", 6, max_bytes=room, dtypes={6: "fp16"})
    second = build_activations(samples, reader, a_workbench(), other)
    assert second.computed == SHARDS
    left = second.store.entries()
    assert set(second.entries[6][0]) <= set(left)
    assert len(left) < 2 * SHARDS


def test_uncached_samples_are_left_out_as_pixels_are(data: Path, tmp_path: Path) -> None:
    image_bytes = SPEC.image_size**2 * 3
    samples, reader = ingest(data, tmp_path / "run", max_cache_bytes=20 * image_bytes)
    index = build_activations(samples, reader, a_workbench(), a_plan(tmp_path / "cache", 6))
    train = samples.where(split="train")
    cached = train[np.asarray(samples.table.column("pixel_row"))[train] >= 0]
    assert 0 < len(cached) < len(train)
    np.testing.assert_array_equal(index.rows(train, 6).load(), index.rows(cached, 6).load())
    with pytest.raises(DataError, match="only samples for train and val"):
        index.rows(samples.where(split="test"), 6)


def test_a_mixture_of_training_and_validation_has_the_images_themselves(data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    index = build_activations(samples, reader, a_workbench(), a_plan(tmp_path / "cache", 6, augment=VARIED))
    train, validation = (samples.where(split=split) for split in ("train", "val"))
    mixed = index.rows(np.concatenate([validation, train]), 6)
    np.testing.assert_array_equal(mixed.load(1), mixed.load(0))
    np.testing.assert_array_equal(mixed.load()[len(validation) :], index.rows(train, 6).load(0))
    assert not np.array_equal(index.rows(train, 6).load(1), index.rows(train, 6).load(0))


def test_large_fragments_are_cut_into_bounded_shards(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, _ = ingest(data, tmp_path / "run")
    whole = activations.shard_positions(samples)
    monkeypatch.setattr(activations, "_MAX_ROWS", 3)
    cut = activations.shard_positions(samples)
    assert max(map(len, cut)) == 3
    assert sorted(np.concatenate(cut)) == sorted(np.concatenate(whole))
    split, fragment = (np.asarray(samples.table.column(name).to_pylist()) for name in ("split", "fragment"))
    for positions in cut:
        assert len(set(fragment[positions])) == 1
        assert list(split[positions]) == sorted(split[positions])


def test_views_that_are_drawn_afresh_cannot_be_kept(data: Path, tmp_path: Path) -> None:
    samples, reader = ingest(data, tmp_path / "run")
    afresh = a_plan(tmp_path / "cache", augment=AugmentConfig(views=0, flip=True))
    with pytest.raises(ConfigError, match=r"augment\.views must be at least 1"):
        build_activations(samples, reader, a_workbench(), afresh)


@pytest.fixture
def remote_uri(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "scratch"))
    return f"{s3_bucket}/cache"


def test_a_store_elsewhere_is_reused_and_read(data: Path, tmp_path: Path, remote_uri: str) -> None:
    """Write the entries as the pass would: the cluster's workers have not this test's credentials."""
    samples, reader = ingest(data, tmp_path / "run")
    local = build_activations(samples, reader, a_workbench(), a_plan(tmp_path / "cache", 6))
    for path in (tmp_path / "cache").iterdir():
        if path.is_file():
            storage.write_bytes(f"{remote_uri}/{path.name}", path.read_bytes())
    remote: ActivationIndex = build_activations(samples, reader, a_workbench(), a_plan(remote_uri, 6))
    assert (remote.computed, remote.reused) == (0, SHARDS)
    train = samples.where(split="train")
    np.testing.assert_array_equal(remote.rows(train, 6).load(), local.rows(train, 6).load())
