"""A tiny experiment: seconds of work, every stage real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SUBSETS = {
    "plain": {"circle": 36, "stripe": 4},
    "even": {"circle": 20, "stripe": 20},
    "rich": {"circle": 14, "stripe": 14, "cross": 14},
    "full": {"circle": 12, "stripe": 12, "cross": 12, "noise": 12},
}


def experiment_dict(data_uri: Path, storage_path: Path | str, **sections: Any) -> dict[str, Any]:
    """Give a tiny experiment: seconds of work, every stage real."""
    base: dict[str, Any] = {
        "name": "tiny",
        "storage_path": str(storage_path),
        "data": {
            "uri": str(data_uri),
            "image": "image",
            "label": "label",
            "subset": "subset",
            "id": "id",
            "split": {"fractions": {"val": 0.25, "test": 0.25}},
        },
        "backbone": {
            "name": "mobilenet_v2",
            "kwargs": {"width_mult": 0.25},
            "weights": "none",
            "image_size": 32,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
        "grouping": {"num_groups": 2},
        "search": {
            "num_samples": 2,
            "space": {"freeze_depth": [0, 3, 6], "learning_rate": [0.001, 0.01], "epochs": [1, 2]},
        },
        "train": {"batch_norm": "train"},
        "evaluate": {"bootstrap_samples": 200},
        "cluster": {"stall_timeout_s": 120},
    }
    for name, section in sections.items():
        base[name] = {**base[name], **section} if isinstance(base.get(name), dict) else section
    return base
