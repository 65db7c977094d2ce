"""What images with any number of labels imply for the other sections, and what does not go with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from orchestrator.config.space import Range

if TYPE_CHECKING:
    from orchestrator.config.experiment import ExperimentConfig

BINARY_CROSS_ENTROPY = "binary_cross_entropy"


def with_implied(sections: Any) -> Any:
    """Give the sections of an experiment with what `data.label_separator` implies where they do not say otherwise.

    The loss is the binary cross-entropy; no predictions are explained, for there is none but of many labels.
    """
    if not isinstance(sections, dict):
        return sections
    data = sections.get("data")
    separator = data.get("label_separator") if isinstance(data, dict) else getattr(data, "label_separator", None)
    if separator is None:
        return sections
    return {
        **sections,
        "finetune": _with_default(sections.get("finetune"), "loss", BINARY_CROSS_ENTROPY),
        "evaluate": _with_default(sections.get("evaluate"), "explanations", 0),
    }


def _with_default(section: Any, key: str, value: object) -> Any:
    if isinstance(section, BaseModel):
        return section if key in section.model_fields_set else section.model_copy(update={key: value})
    if section is None or isinstance(section, dict):
        return {key: value, **(section or {})}
    return section


def require_labels_fit(config: ExperimentConfig) -> None:
    """Refuse what does not go with the number of labels that images have. Raises ValueError."""
    source_task = None if config.pretrain is None else config.pretrain.data
    if source_task is not None and source_task.is_multi_label:
        raise ValueError("pretrain.data.label_separator must be left out, got one: its images have one label each")
    if config.source is not None and config.source.data is not None and config.source.data.is_multi_label:
        raise ValueError("source.data.label_separator must be left out, got one: its images have one label each")
    losses = {config.finetune.loss, *(config.search.space.loss or [])}
    if not config.data.is_multi_label:
        if BINARY_CROSS_ENTROPY in losses:
            raise ValueError(
                f"finetune.loss must be cross_entropy or focal without data.label_separator, got "
                f"{BINARY_CROSS_ENTROPY}: name what parts the labels of an image, or take another loss"
            )
        return
    if others := sorted(losses - {BINARY_CROSS_ENTROPY}):
        raise ValueError(
            f"finetune.loss must be {BINARY_CROSS_ENTROPY} with data.label_separator, got {', '.join(others)}: "
            "leave it out, and do not search it"
        )
    _require_plain_targets(config)
    _require_plain_stages(config)


def _require_plain_targets(config: ExperimentConfig) -> None:
    """Refuse what changes targets of one class an image."""
    finetune, space = config.finetune, config.search.space
    choices: list[tuple[str, object, Sequence[object]]] = [
        ("label_smoothing", 0.0, _values(finetune.label_smoothing, space.label_smoothing)),
        ("class_weights", "none", _values(finetune.class_weights, space.class_weights)),
        ("balanced", False, _values(finetune.balanced, space.balanced)),
    ]
    for name, plain, values in choices:
        for value in values:
            if value != plain:
                raise ValueError(
                    f"finetune.{name} must be {str(plain).lower()} with data.label_separator, got "
                    f"{str(value).lower()}: leave it out, and do not search it"
                )


def _require_plain_stages(config: ExperimentConfig) -> None:
    """Refuse what knows an image by its one class."""
    evaluate = config.evaluate
    refused: list[tuple[str, str, object]] = [
        ("data.tasks", "left out", config.data.tasks),
        ("source", "left out", "one" if config.source is not None else None),
        ("pretrain.with_target", "left out", "one" if config.pretrains_on_target else None),
        ("pretrain.data", "given", "none" if config.learns_own_subsets else None),
        ("backbone.candidates", "left out", "some" if config.backbone.candidates else None),
        ("train.scope", "group", config.train.scope if config.train.scope != "group" else None),
        ("evaluate.label_shift", "none", evaluate.label_shift if evaluate.label_shift != "none" else None),
        ("evaluate.episodes", "left out", "some" if evaluate.episodes is not None else None),
        ("evaluate.on_negative_transfer", "left out", evaluate.on_negative_transfer),
        ("evaluate.explanations", "0", evaluate.explanations),
    ]
    for name, rule, value in refused:
        if value:
            raise ValueError(
                f"{name} must be {rule} with data.label_separator, got {value}: it knows an image by its one class"
            )


def _values(of_all: object, searched: Range | Sequence[object] | None) -> list[object]:
    if isinstance(searched, Range):
        return [of_all, searched.low, searched.high]
    return [of_all, *(searched or [])]
