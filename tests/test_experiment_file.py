from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import ExperimentConfig, Range
from orchestrator.errors import ConfigError
from orchestrator.experiment_file import dump_experiment, is_weights_path, load_experiment, parse_yaml

MINIMAL = "name: test\ndata: {uri: images}\n"


def write(directory: Path, text: str) -> Path:
    path = directory / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(directory: Path, text: str, *overrides: str) -> ExperimentConfig:
    return load_experiment(write(directory, text), overrides)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-4", 1e-4), ("1E3", 1e3), ("-2e-1", -0.2), (".5", 0.5), ("5.", 5.0), ("1.5e+2", 150.0), ("3", 3)],
)
def test_numbers_are_numbers(text: str, number: float) -> None:
    value = parse_yaml(f"value: {text}", source="test")["value"]
    assert value == number
    assert type(value) is type(number)


@pytest.mark.parametrize("text", ["1e-4x", "e5", "1.2.3", "-a", "1e", "demo-1", "resnet18"])
def test_text_that_looks_a_little_like_a_number_stays_text(text: str) -> None:
    assert parse_yaml(f"value: {text}", source="test")["value"] == text


def test_a_learning_rate_may_be_written_in_any_way(tmp_path: Path) -> None:
    text = MINIMAL + "search: {space: {learning_rate: {low: 1e-4, high: .01, log: true}}}\n"
    assert load(tmp_path, text).search.space.learning_rate == Range(low=1e-4, high=1e-2, log=True)


def test_paths_in_the_file_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load(
        tmp_path,
        "name: test\nstorage_path: runs\ndata: {uri: ../images, image_root: photos}\n"
        "pretrain: {weights: start.pt, data: {uri: source, image_root: s3://bucket/x}}\n"
        "backbone: {weights: weights/model.pt}\n",
    )
    assert config.storage_path == str(tmp_path / "runs")
    assert config.data.uri == str(tmp_path.parent / "images")
    assert config.pretrain is not None and config.pretrain.data is not None
    assert config.pretrain.data.uri == str(tmp_path / "source")
    assert config.pretrain.weights == str(tmp_path / "start.pt")
    assert (config.data.image_root, config.pretrain.data.image_root) == (str(tmp_path / "photos"), "s3://bucket/x")
    assert config.backbone.weights == str(tmp_path / "weights" / "model.pt")


def test_paths_in_overrides_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, MINIMAL)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    config = load_experiment(path, ["data.uri=other", "storage_path=runs", "backbone.weights=./w.safetensors"])
    assert config.data.uri == str(here / "other")
    assert config.storage_path == str(here / "runs")
    assert config.backbone.weights == str(here / "w.safetensors")


@pytest.mark.parametrize("uri", ["s3://bucket/images", "gs://bucket/images", "demo://digits", "/absolute/images"])
def test_uris_and_absolute_paths_are_left_alone(tmp_path: Path, uri: str) -> None:
    assert load(tmp_path, f"name: test\ndata: {{uri: '{uri}'}}\n").data.uri == uri


def test_the_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    config = load(tmp_path, "name: test\ndata: {uri: ~/images}\n")
    assert config.data.uri == "/somewhere/images"
    assert config.storage_path == "/somewhere/ray_results"


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V2", "none", "pretrain"])
def test_names_of_weights_are_no_paths(tmp_path: Path, weights: str) -> None:
    assert not is_weights_path(weights)
    text = MINIMAL + f"backbone: {{weights: {weights}}}\npretrain: {{data: {{uri: x}}}}\n"
    assert load(tmp_path, text).backbone.weights == weights


def test_overrides_set_keys_at_any_depth_in_order(tmp_path: Path) -> None:
    config = load(
        tmp_path, MINIMAL + "search: {num_samples: 5}\n",
        "seed=7", "search.num_samples=20", "search.space.learning_rate={low: 1e-4, high: 1e-3}", "seed=8",
    )  # fmt: skip
    assert (config.seed, config.search.num_samples) == (8, 20)
    assert config.search.space.learning_rate == Range(low=1e-4, high=1e-3)


def test_prices_are_set_by_the_name_of_the_resource(tmp_path: Path) -> None:
    prices = load(tmp_path, MINIMAL, "cluster.cost_per_hour.GPU=2.5").cluster.cost_per_hour
    assert prices is not None and (prices.CPU, prices.GPU) == (0.0, 2.5)
    assert load(tmp_path, MINIMAL).cluster.cost_per_hour is None
    with pytest.raises(ConfigError, match=r"cluster.cost_per_hour.TPU is not a key.*Did you mean|Known keys"):
        load(tmp_path, MINIMAL, "cluster.cost_per_hour.TPU=2.5")
    with pytest.raises(ConfigError, match=r"cluster.cost_per_hour.CPU must be at least 0"):
        load(tmp_path, MINIMAL, "cluster.cost_per_hour.CPU=-1")


def test_an_override_replaces_the_value_as_a_whole(tmp_path: Path) -> None:
    text = MINIMAL + "search: {space: {learning_rate: {low: 1e-4, high: 1e-3, log: true}, epochs: [1]}}\n"
    config = load(tmp_path, text, "search.space.learning_rate={low: 1e-3, high: 1e-2}")
    assert config.search.space.learning_rate == Range(low=1e-3, high=1e-2)
    assert config.search.space.epochs == [1]


def test_an_override_of_one_end_keeps_the_other(tmp_path: Path) -> None:
    text = MINIMAL + "search: {space: {learning_rate: {low: 1e-4, high: 1e-3, log: true}}}\n"
    config = load(tmp_path, text, "search.space.learning_rate.high=1e-2")
    assert config.search.space.learning_rate == Range(low=1e-4, high=1e-2, log=True)


def test_an_override_may_hold_an_equals_sign(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL, "data.uri=s3://bucket/day=1").data.uri == "s3://bucket/day=1"


@pytest.mark.parametrize("override", ["seed", "=3", ".seed=3", "search..num_samples=3"])
def test_an_override_without_key_or_value_is_an_error_that_shows_how(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=r"dotted\.key=value.*--set search\.num_samples=20"):
        load(tmp_path, MINIMAL, override)


def test_an_override_that_is_no_yaml_is_an_error_that_shows_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"seed=\[1"):
        load(tmp_path, MINIMAL, "seed=[1")


def test_a_misspelt_override_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean search\.num_samples\?"):
        load(tmp_path, MINIMAL, "search.num_sample=3")


def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_experiment(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: test\ndata: {uri: x\n", "line 3"),
        ("name: test\nname: other\ndata: {uri: x}\n", "line 2.*name occurs twice"),
        ("", "mapping of sections"),
        ("- name\n", "mapping of sections"),
        ("name: test\ndata: {uri: x, 3: 4}\n", "data keys must be text, got 3"),
    ],
    ids=["torn", "a key twice", "empty", "a list", "a number as key"],
)
def test_a_file_that_is_no_mapping_of_sections_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, text)


def test_the_file_runs_no_code(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 1"):
        load(tmp_path, "name: !!python/object/apply:os.getcwd []\n")


def test_a_dumped_experiment_is_read_back_equal(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
name: 2024-run
data: {uri: images, label: "yes", subset: "1e3", split: {fractions: {val: 0.2, test: 1e-1}}}
backbone: {name: mobilenet_v2, kwargs: {width_mult: 0.35, version: "1e5"}, mean: [0.5, 0.5, 0.5], weights: null}
pretrain: {data: {uri: source}, classes: ["1", "2e2", "null"]}
grouping: {method: thresholds, thresholds: [1e-3, 2]}
search: {space: {freeze_depth: {low: 0, high: 3}, learning_rate: [1e-5, 1], optimizer: [sgd, adam]}}
train: {use_gpu: false, resources_per_worker: {CPU: 0.5}}
""",
    )
    again = load(tmp_path, dump_experiment(config))
    assert again == config
    assert again.search.space.freeze_depth == Range(low=0, high=3)


@pytest.mark.parametrize(
    "named", ["", "finetune: {head: linear, weight_decay: 0.1}\nsearch: {folds: 1, space: {freeze_depth: [2]}}\n"]
)
def test_a_resolved_file_names_what_is_decided_by_group_only_where_the_experiment_does(
    tmp_path: Path, named: str
) -> None:
    config = load(tmp_path, MINIMAL + named)
    again = load(tmp_path, dump_experiment(config))
    assert again == config
    for one, other in ((config.finetune, again.finetune), (config.search.space, again.search.space)):
        open_keys = {"head", "weight_decay", "freeze_depth", "learning_rate"}
        assert one.model_fields_set & open_keys == other.model_fields_set & open_keys
    assert ("folds" in again.search.model_fields_set) == bool(named)


@given(
    text=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1)
    | st.from_regex(r"[-+]?[0-9.]{1,4}(e[-+]?[0-9]{1,3})?", fullmatch=True)
)
def test_any_text_survives_dumping_and_reading(text: str) -> None:
    config = ExperimentConfig.model_validate({"name": "test", "data": {"uri": "/data", "label": text}})
    assert ExperimentConfig.model_validate(parse_yaml(dump_experiment(config), source="test")) == config


def test_paths_of_candidates_are_relative_to_the_file_and_survive_writing(tmp_path: Path) -> None:
    text = MINIMAL + "backbone: {candidates: [{name: resnet18}, {name: resnet18, title: own, weights: weights/x.pt}]}\n"
    config = load(tmp_path, text)
    assert [found.weights for found in config.backbone.candidates] == ["DEFAULT", str(tmp_path / "weights" / "x.pt")]
    assert load(tmp_path, dump_experiment(config)) == config
