"""A run with candidates takes the one that knows the classes, measures each once, and goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from finetune_examples import a_spec, some_hyperparameters, some_samples, some_settings

from orchestrator.cli import main
from orchestrator.config import ExperimentConfig
from orchestrator.errors import BackboneError, ConfigError, RecordError, StorageError
from orchestrator.experiment_file import dump_experiment
from orchestrator.finetune.backbones import create_backbone
from orchestrator.finetune.classifier import new_classifier
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.models import save_backbone
from orchestrator.finetune.randomness import seeded
from orchestrator.pipeline import Pipeline
from orchestrator.records import BackboneRanking, PretrainedBackbone, Profile

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(300)]

MakeExperiment = Callable[..., ExperimentConfig]
# Workers of Ray import no backbone of the tests.
NAME, KWARGS = "mobilenet_v2", {"width_mult": 0.25}
STAGES = ["pretrain", "catalogue", "profile"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny backbone that has learnt to tell the classes of the tiny data apart."""
    spec = a_spec(NAME, image_size=32, **KWARGS)
    with seeded(0):
        classifier = new_classifier(create_backbone(NAME, KWARGS, 32), 3, seed=0)
    fine_tune(
        classifier,
        spec,
        some_samples(96, image_size=32),
        some_samples(30, seed=1, image_size=32),
        some_hyperparameters(freeze_depth=0, epochs=10, learning_rate=1e-2),
        some_settings(batch_norm="train"),
    )
    path = tmp_path_factory.mktemp("trained") / "tiny.safetensors"
    save_backbone(str(path), classifier.backbone)
    return path


@pytest.fixture
def choosing(trained: Path, tiny_experiment: MakeExperiment) -> MakeExperiment:
    """Make an experiment that chooses between the trained backbone and the same one re-initialised."""

    def make(*more: dict[str, object]) -> ExperimentConfig:
        shared = {"name": NAME, "kwargs": KWARGS, "mean": [0.5, 0.4, 0.6], "std": [0.2, 0.25, 0.3]}
        candidates = [
            {**shared, "title": "re-initialised", "weights": "none"},
            {**shared, "title": "trained", "weights": str(trained)},
            *more,
        ]
        config = tiny_experiment(diversity={"measures": ["label_entropy", "feature_diversity"]})
        backbone = type(config.backbone).model_validate({"image_size": 32, "candidates": candidates})
        return config.model_copy(update={"backbone": backbone})

    return make


def run(config: ExperimentConfig, stages: list[str] = STAGES) -> list[str]:
    lines: list[str] = []
    Pipeline(config, say=lines.append).run(stages)
    return lines


def read(config: ExperimentConfig, name: str, kind: type) -> object:
    path = Path(config.storage_path, config.name, name)
    return kind.from_json(path.read_bytes(), source=name)


def test_the_backbone_that_knows_the_classes_is_taken_and_nothing_is_measured_twice(choosing: MakeExperiment) -> None:
    config = choosing()
    lines = run(config)
    ranking = read(config, "rankings/candidates.json", BackboneRanking)
    backbone = read(config, "backbone.json", PretrainedBackbone)
    assert ranking.chosen == ranking.candidates[0].title == "trained"
    assert backbone.source.endswith("tiny.safetensors")
    assert "backbone: trained is taken" in lines
    assert all(found.feature_diversity is not None for found in read(config, "profile.json", Profile).subsets)

    assert [line for line in run(config) if "skipped" not in line] == []

    lines = run(choosing({"name": NAME, "title": "wide", "weights": "none", "kwargs": {"width_mult": 0.35}}))
    assert [line for line in lines if "measured in" in line and "wide" not in line] == []
    assert "backbone: trained is taken" in lines
    # The same weights on the same images: the profile stands.
    assert not [line for line in lines if line.startswith("profile: label_entropy")]


def test_a_choice_that_was_cut_short_is_made_from_what_was_measured(choosing: MakeExperiment) -> None:
    config = choosing()
    run(config)
    directory = Path(config.storage_path, config.name)
    (directory / "backbone.json").unlink()
    (directory / "rankings" / "candidates.json").unlink()
    lines = run(config, ["profile"])
    assert "backbone: trained is taken" in lines
    assert not [line for line in lines if "measured in" in line]


def test_backbones_can_be_ranked_on_the_command_line_without_changing_the_run(
    choosing: MakeExperiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = choosing()
    run(config, ["catalogue"])
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(dump_experiment(config))
    assert main(["profile", str(experiment), "--backbones", "trained,re-initialised"]) == 0
    shown = capsys.readouterr().out
    assert "all, mean" in shown and "LogME" in shown and "Best fit for its cost: trained" in shown
    directory = Path(config.storage_path, config.name)
    assert read(config, "rankings/asked.json", BackboneRanking).chosen == "trained"
    assert not (directory / "backbone.json").exists() and not (directory / "profile.json").exists()


def test_a_ranking_needs_names_that_exist_and_a_catalogue(choosing: MakeExperiment) -> None:
    pipeline = Pipeline(choosing(), say=lambda line: None)
    with pytest.raises(ConfigError, match="must name a backbone"):
        pipeline.rank([])
    with pytest.raises(RecordError, match="orchestrator catalogue"):
        pipeline.rank(["trained"])
    pipeline.run(["catalogue"])
    with pytest.raises(BackboneError, match=r"backbone.name must be .* got resnet81"):
        Pipeline(choosing(), say=lambda line: None).rank(["resnet81"])


def test_a_stage_before_the_choice_names_the_stage_that_makes_it(choosing: MakeExperiment) -> None:
    config = choosing()
    run(config, ["pretrain", "catalogue"])
    with pytest.raises(RecordError, match="orchestrator profile"):
        run(config, ["group"])


def test_missing_weights_of_a_candidate_are_found_before_the_images_are_read(
    choosing: MakeExperiment, tmp_path: Path
) -> None:
    config = choosing({"name": NAME, "title": "lost", "weights": str(tmp_path / "lost.pt")})
    with pytest.raises(StorageError, match=r"lost\.pt"):
        run(config, ["pretrain"])
