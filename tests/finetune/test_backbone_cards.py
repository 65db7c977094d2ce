from pathlib import Path

import pytest
from finetune_examples import a_spec

from orchestrator.errors import RecordError, WeightsError
from orchestrator.finetune.backbone_cards import features_of, find_card, save_card
from orchestrator.records import PretrainedBackbone


def a_record(**changes: object) -> PretrainedBackbone:
    fields = {"spec": a_spec(), "source": "pretrain", "weights": "w", "digest": "d", "num_stages": 3, "feature_dim": 16}
    return PretrainedBackbone.model_validate({**fields, **changes})


def found(weights: str, **changes: object) -> PretrainedBackbone | None:
    record = a_record(**changes)
    return find_card(weights, digest=record.digest, image_size=record.spec.image_size)


def test_a_card_is_found_beside_its_weights(tmp_path: Path) -> None:
    weights, record = str(tmp_path / "a.safetensors"), a_record(source_accuracy=0.5)
    assert found(weights) is None
    save_card(weights, record)
    assert found(weights) == record
    assert {path.name for path in tmp_path.iterdir()} == {"a.card.json"}
    assert features_of(weights) == str(tmp_path / "a.source.safetensors")


@pytest.mark.parametrize("weights", ["DEFAULT", "none", "pretrain", "/folder/model.pt"])
def test_other_weights_have_no_card(weights: str) -> None:
    assert found(weights) is None


def test_the_card_of_other_weights_is_refused_but_not_where_they_were_fitted_to_another_size(tmp_path: Path) -> None:
    weights = str(tmp_path / "a.safetensors")
    save_card(weights, a_record())
    with pytest.raises(WeightsError, match="must have the digest d of the card beside them, got e in"):
        found(weights, digest="e")
    assert found(weights, digest="e", spec=a_spec(image_size=24)) == a_record()


def test_a_damaged_card_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.card.json").write_text("{")
    with pytest.raises(RecordError, match="must be a PretrainedBackbone record"):
        found(str(tmp_path / "a.safetensors"))
