"""The keys whose defaults are others for a group with few images a class."""

from __future__ import annotations

from orchestrator.config.experiment import ExperimentConfig

FINETUNE_KEYS = ("head", "weight_decay")
SEARCH_KEYS = ("folds",)
SPACE_KEYS = ("freeze_depth", "head", "learning_rate", "weight_decay")


def open_keys(config: ExperimentConfig) -> dict[str, dict[str, object]]:
    """Give those keys that the experiment file does not name, nested as pydantic's `exclude` wants them.

    A resolved file that named them would make them the user's choice when it is read again.
    """
    finetune, search = config.finetune, config.search
    space = {name: True for name in SPACE_KEYS if name not in search.space.model_fields_set}
    return {
        "finetune": {name: True for name in FINETUNE_KEYS if name not in finetune.model_fields_set},
        "search": {
            **{name: True for name in SEARCH_KEYS if name not in search.model_fields_set},
            **({"space": space} if space else {}),
        },
    }
