"""The weights that a pretraining begins with are kept in the run, where workers find them."""

from __future__ import annotations

from pathlib import Path

import pytest
from finetune_examples import a_spec

from orchestrator.cluster.pretraining_start import keep_start
from orchestrator.errors import StorageError
from orchestrator.finetune.models import save_backbone
from orchestrator.finetune.weights import load_pretrained


def test_named_weights_are_copied_and_random_ones_are_not(tmp_path: Path) -> None:
    backbone, digest = load_pretrained("none", a_spec(), seed=5)
    save_backbone(str(tmp_path / "start.safetensors"), backbone)
    kept = keep_start(str(tmp_path / "start.safetensors"), a_spec(), str(tmp_path / "run"), "pretrain/phases")
    assert kept is not None and (kept.digest, kept.weights) == (digest, f"pretrain/phases/{digest}.safetensors")
    assert load_pretrained(str(tmp_path / "run" / kept.weights), a_spec(), seed=0)[1] == digest
    assert keep_start("none", a_spec(), str(tmp_path / "run"), "pretrain/phases") is None


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="a file must be readable"):
        keep_start(str(tmp_path / "none.safetensors"), a_spec(), str(tmp_path), "pretrain/phases")
