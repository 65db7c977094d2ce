"""What images with any number of labels imply in an experiment file, and what is refused beside them, by name."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import fingerprints, storage
from orchestrator.config import DataConfig, EvaluateConfig, ExperimentConfig, FineTuneConfig
from orchestrator.errors import ConfigError
from orchestrator.experiment_file import validate_experiment

DATA = {"uri": "/data", "image": "image", "label": "labels", "label_separator": "|"}


def experiment(data: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    return {"name": "test", "data": {**DATA, **(data or {})}, **sections}


def test_a_separator_implies_the_loss_and_that_nothing_is_explained() -> None:
    config = validate_experiment(experiment(finetune={"optimizer": "sgd"}))
    assert (config.finetune.loss, config.finetune.optimizer) == ("binary_cross_entropy", "sgd")
    assert config.evaluate.explanations == 0
    assert config.few_shot_heads == ("linear",)
    assert validate_experiment(config.model_dump(mode="json")) == config
    plain = validate_experiment(experiment({"label_separator": None}))
    assert (plain.finetune.loss, plain.evaluate.explanations) == ("cross_entropy", 3)


def test_sections_that_are_objects_get_what_is_implied() -> None:
    config = ExperimentConfig(
        name="test",
        data=DataConfig.model_validate(DATA),
        finetune=FineTuneConfig(optimizer="sgd"),
        evaluate=EvaluateConfig(explanations=0),
    )
    assert (config.finetune.loss, config.finetune.optimizer) == ("binary_cross_entropy", "sgd")


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"data": {"tasks": ["x"]}, "train": {"scope": "multitask"}}, "data.tasks"),
        ({"source": {"uri": "/more"}}, "source must be left out"),
        ({"backbone": {"candidates": [{"name": "resnet18"}]}}, "backbone.candidates"),
        ({"train": {"scope": "subset"}}, "train.scope must be group with data.label_separator, got subset"),
        ({"finetune": {"loss": "focal"}}, "finetune.loss must be binary_cross_entropy with data.label_separator"),
        ({"finetune": {"head": "prototype"}}, "finetune.head must be linear with data.label_separator"),
        ({"finetune": {"label_smoothing": 0.1}}, "finetune.label_smoothing must be 0.0"),
        ({"finetune": {"class_weights": "balanced"}}, "finetune.class_weights must be none"),
        ({"finetune": {"balanced": True}}, "finetune.balanced must be false"),
        ({"search": {"space": {"loss": ["focal"]}}}, "finetune.loss"),
        ({"search": {"space": {"head": ["linear", "cosine"]}}}, "finetune.head"),
        ({"search": {"space": {"label_smoothing": {"low": 0, "high": 0.2}}}}, "finetune.label_smoothing"),
        ({"search": {"space": {"balanced": [False, True]}}}, "finetune.balanced"),
        ({"evaluate": {"label_shift": "em"}}, "evaluate.label_shift must be none"),
        ({"evaluate": {"episodes": {}}}, "evaluate.episodes"),
        ({"evaluate": {"on_negative_transfer": "report"}}, "evaluate.on_negative_transfer"),
        ({"evaluate": {"explanations": 3}}, "evaluate.explanations must be 0"),
        (
            {"backbone": {"weights": "pretrain"}, "pretrain": {"data": DATA}},
            "pretrain.data.label_separator must be left out",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused_by_name(sections: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_experiment(experiment(sections.pop("data", None), **sections))
    assert named in str(caught.value)


def test_the_loss_is_refused_without_a_separator_and_so_is_a_source_with_one() -> None:
    for sections in (
        {"finetune": {"loss": "binary_cross_entropy"}},
        {"search": {"space": {"loss": ["binary_cross_entropy"]}}},
    ):
        with pytest.raises(ConfigError, match=r"finetune\.loss must be cross_entropy or focal without"):
            validate_experiment(experiment({"label_separator": None}, **sections))
    with pytest.raises(ConfigError, match=r"source\.data\.label_separator must be left out"):
        validate_experiment(experiment({"label_separator": None}, source={"data": DATA}))


def test_a_catalogue_depends_on_the_separator_and_without_one_is_what_it_was() -> None:
    def fingerprint(separator: str | None) -> str:
        config = validate_experiment(experiment({"label_separator": separator}))
        return fingerprints.of_catalogue(config, config.data, listing="x", version=3)

    assert len({fingerprint(None), fingerprint("|"), fingerprint(";")}) == 3
    config = validate_experiment(experiment({"label_separator": None}))
    section = config.data.model_dump(mode="json")
    del section["label_separator"]
    sizes = (config.backbone.image_size, config.backbone.resize, config.seed)
    assert fingerprint(None) == storage.digest("catalogue", 3, section, "x", *sizes)
