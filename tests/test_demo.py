import io
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from orchestrator.config import DEMO_URI, SOURCE_URI, DataConfig
from orchestrator.demo import resolve_demo
from orchestrator.errors import ConfigError


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def sites(directory: Path) -> pa.Table:
    return read(resolve_demo(DataConfig(uri=DEMO_URI), directory))


@pytest.fixture(scope="module")
def rendered(directory: Path) -> pa.Table:
    return read(resolve_demo(DataConfig(uri=SOURCE_URI), directory))


def read(config: DataConfig) -> pa.Table:
    return pq.read_table(config.uri)


def decode(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def label_entropies(table: pa.Table) -> dict[str, float]:
    entropies = {}
    for site in set(table["site"].to_pylist()):
        labels = [row["label"] for row in table.select(["site", "label"]).to_pylist() if row["site"] == site]
        shares = np.unique(labels, return_counts=True)[1] / len(labels)
        entropies[site] = float(-(shares * np.log(shares)).sum())
    return entropies


def test_the_config_comes_back_with_the_columns_of_the_shards(directory: Path, sites: pa.Table) -> None:
    config = resolve_demo(DataConfig(uri=DEMO_URI), directory)
    assert (config.format, config.image, config.label, config.subset, config.id) == (
        "parquet", "image", "label", "site", "id",
    )  # fmt: skip
    assert {config.image, config.label, config.subset, config.id} == set(sites.column_names)


def test_the_source_task_has_no_subset(directory: Path, rendered: pa.Table) -> None:
    assert resolve_demo(DataConfig(uri=SOURCE_URI), directory).subset is None
    assert set(rendered.column_names) == {"image", "label", "id"}


def test_what_the_config_says_itself_is_kept(directory: Path) -> None:
    config = resolve_demo(DataConfig(uri=DEMO_URI, subset="label", max_bad_fraction=0.5), directory)
    assert (config.subset, config.max_bad_fraction) == ("label", 0.5)


def test_other_data_is_left_alone(tmp_path: Path) -> None:
    config = DataConfig(uri="s3://bucket/images")
    assert resolve_demo(config, tmp_path) is config
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_demo_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="demo://letters") as caught:
        resolve_demo(DataConfig(uri="demo://letters"), tmp_path)
    assert DEMO_URI in caught.value.remedy and SOURCE_URI in caught.value.remedy


def test_there_are_eight_sites_of_60_to_400_images(sites: pa.Table) -> None:
    names, counts = np.unique(sites["site"].to_pylist(), return_counts=True)
    assert len(names) == 8
    assert counts.min() >= 60 and counts.max() <= 400


def test_sites_differ_clearly_in_diversity(sites: pa.Table) -> None:
    entropies = sorted(label_entropies(sites).values())
    assert entropies[0] < 0.5 and entropies[-1] > 2.2
    assert min(np.diff(entropies)) > 0.05


def test_no_handwritten_digit_occurs_twice(sites: pa.Table) -> None:
    assert len(set(sites["id"].to_pylist())) == sites.num_rows
    digits = load_digits()
    for row in sites.to_pylist():
        assert str(digits.target[int(row["id"].removeprefix("handwritten-"))]) == row["label"]


def test_every_site_is_spread_over_several_shards(directory: Path, sites: pa.Table) -> None:
    config = resolve_demo(DataConfig(uri=DEMO_URI), directory)
    shards = sorted(Path(config.uri).glob("*.parquet"))
    homes = dict.fromkeys(sites["site"].to_pylist(), 0)
    for shard in shards:
        for site in set(pq.read_table(shard, columns=["site"])["site"].to_pylist()):
            homes[site] += 1
    assert len(shards) > 1 and min(homes.values()) > 1


def test_handwritten_images_are_enlarged_to_the_full_range_of_grey(sites: pa.Table) -> None:
    digits = load_digits()
    for row in sites.slice(0, 100).to_pylist():
        image = decode(row["image"])
        assert (image.format, image.mode, image.size) == ("PNG", "L", (32, 32))
        original = digits.images[int(row["id"].removeprefix("handwritten-"))] * (255 / 16)
        shrunk = np.asarray(image.resize((8, 8), Image.Resampling.BOX), dtype=float)
        # Bicubic enlargement overshoots and blurs a little; another image or another scale would be far off.
        assert np.corrcoef(shrunk.ravel(), original.ravel())[0, 1] > 0.97
        assert abs(shrunk.mean() - original.mean()) < 8


def test_rendered_digits_are_balanced_distinct_and_light_on_dark(rendered: pa.Table) -> None:
    labels, counts = np.unique(rendered["label"].to_pylist(), return_counts=True)
    assert labels.tolist() == list("0123456789") and set(counts) == {600}
    assert len(set(rendered["id"].to_pylist())) == len(set(rendered["image"].to_pylist())) == 6000
    for content in rendered["image"].to_pylist()[:200]:
        image = decode(content)
        assert (image.mode, image.size) == ("L", (32, 32))
        pixels = np.asarray(image, dtype=float)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert np.median(border) < 64 < pixels.max()


def test_a_second_call_finds_the_shards_and_rewrites_nothing(directory: Path, sites: pa.Table) -> None:
    def stamps() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in directory.rglob("*")}

    before = stamps()
    resolve_demo(DataConfig(uri=DEMO_URI), directory)
    assert stamps() == before


def test_the_same_bytes_are_made_anywhere(directory: Path, sites: pa.Table, tmp_path: Path) -> None:
    elsewhere = resolve_demo(DataConfig(uri=DEMO_URI), tmp_path)
    here = resolve_demo(DataConfig(uri=DEMO_URI), directory)
    for shard in Path(here.uri).glob("*.parquet"):
        assert shard.read_bytes() == (Path(elsewhere.uri) / shard.name).read_bytes()


def test_an_interrupted_writing_is_done_again(tmp_path: Path) -> None:
    root = Path(resolve_demo(DataConfig(uri=DEMO_URI), tmp_path).uri)
    (root / "_SUCCESS").unlink()
    shard = sorted(root.glob("*.parquet"))[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100])
    resolve_demo(DataConfig(uri=DEMO_URI), tmp_path)
    assert shard.read_bytes() == whole and (root / "_SUCCESS").exists()


def test_rendering_the_source_task_takes_seconds_and_gives_the_same_bytes(rendered: pa.Table, tmp_path: Path) -> None:
    started = time.perf_counter()
    again = read(resolve_demo(DataConfig(uri=SOURCE_URI), tmp_path))
    assert time.perf_counter() - started < 30
    assert again.equals(rendered)
