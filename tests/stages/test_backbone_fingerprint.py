"""A backbone that is pretrained from given weights depends on what these hold, not on where they lie."""

from __future__ import annotations

from pathlib import Path

from tiny_experiments import experiment_dict

from orchestrator.experiment_file import validate_experiment
from orchestrator.stages.ranking import backbone_fingerprint


def fingerprint(weights: str | None, name: str = "pretrain") -> str:
    pretrain = {"data": {"uri": "/source"}, **({} if weights is None else {"weights": weights})}
    return backbone_fingerprint(
        validate_experiment(experiment_dict("/data", "/runs", backbone={"weights": name}, pretrain=pretrain)), "files"
    )


def test_the_content_of_the_weights_that_pretraining_begins_with_counts(tmp_path: Path) -> None:
    one, same, other = (tmp_path / f"{name}.pt" for name in ("one", "same", "other"))
    for file, content in ((one, b"a"), (same, b"a"), (other, b"b")):
        file.write_bytes(content)
    assert fingerprint(str(one)) == fingerprint(str(same)) != fingerprint(str(other))
    assert len({fingerprint(None), fingerprint("DEFAULT"), fingerprint(str(one))}) == 3
    assert fingerprint(None) == fingerprint("none")
    # Weights from elsewhere do not depend on a source task that nothing trains.
    assert fingerprint(str(one), name="none") == fingerprint(None, name="none")
