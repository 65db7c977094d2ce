"""The keys whose defaults are others for a group with few images a class."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic.main import IncEx

from orchestrator.config.experiment import ExperimentConfig

FINETUNE_KEYS = ("head", "weight_decay")
SEARCH_KEYS = ("folds",)
SPACE_KEYS = ("freeze_depth", "head", "learning_rate", "weight_decay")


def open_keys(config: ExperimentConfig) -> dict[str, IncEx | bool]:
    """Give those keys that the experiment file does not name, nested as pydantic's `exclude` wants them.

    A resolved file that named them would make them the user's choice when it is read again.
    """
    search: dict[str, IncEx | bool] = dict.fromkeys(_open(SEARCH_KEYS, config.search), True)
    search["space"] = _open(SPACE_KEYS, config.search.space)
    return {"finetune": _open(FINETUNE_KEYS, config.finetune), "search": search}


def _open(keys: tuple[str, ...], section: BaseModel) -> set[str]:
    return set(keys) - section.model_fields_set
