from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_examples import LABELS, a_spec, some_hyperparameters, some_samples, some_settings

from orchestrator.errors import RecordError, StorageError, WeightsError
from orchestrator.finetune.classifier import Classifier, new_classifier, predict_probabilities
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.models import is_saved, load_card, load_model, save_model
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec, ModelCard, SourceUse

MOBILENET = a_spec("mobilenet_v2", image_size=32, width_mult=0.25)


def a_card(spec: BackboneSpec, **changes: object) -> ModelCard:
    fields = {
        "group": "low",
        "backbone": spec,
        "classes": list(LABELS),
        "hyperparameters": some_hyperparameters(),
        "weights_digest": "",
        "pretrained_digest": "none",
        "data_fingerprint": "abc",
        "subsets": ["plain"],
        "best_epoch": 1,
        "history": [],
        "seconds": 1.0,
        "num_workers": 1,
    }
    return ModelCard.model_validate({**fields, **changes})


@pytest.fixture
def saved_model(tmp_path: Path, tiny_classifier: Callable[..., Classifier]) -> Path:
    save_model(str(tmp_path / "model"), tiny_classifier(), a_card(a_spec()))
    return tmp_path / "model"


def test_a_trained_model_predicts_the_same_after_loading(tmp_path: Path) -> None:
    classifier = new_classifier(load_pretrained("none", MOBILENET, seed=0)[0], len(LABELS), seed=0)
    train = some_samples(8, image_size=32)
    fine_tune(classifier, MOBILENET, train, train, some_hyperparameters(epochs=1), some_settings(batch_norm="train"))
    card = save_model(str(tmp_path), classifier, a_card(MOBILENET))
    loaded, loaded_card = load_model(str(tmp_path))
    assert loaded_card == card and len(card.weights_digest) == 16
    assert load_card(str(tmp_path)) == card
    assert not loaded.training
    np.testing.assert_array_equal(
        predict_probabilities(loaded, MOBILENET, train.pixels, device="cpu"),
        predict_probabilities(classifier, MOBILENET, train.pixels, device="cpu"),
    )
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_loading_leaves_torchs_generator_alone(saved_model: Path) -> None:
    before = torch.get_rng_state()
    load_model(str(saved_model))
    assert torch.equal(torch.get_rng_state(), before)


def test_damaged_weights_are_refused(saved_model: Path) -> None:
    weights = saved_model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    with pytest.raises(WeightsError, match="must have the digest"):
        load_model(str(saved_model))


def test_weights_of_another_model_are_refused(saved_model: Path) -> None:
    card = load_card(str(saved_model))
    other = card.model_copy(update={"classes": ["one", "two"]})
    (saved_model / "model.json").write_text(other.to_json())
    with pytest.raises(WeightsError, match=r"head.weight \[3, 16\] for \[2, 16\]"):
        load_model(str(saved_model))


def test_a_missing_or_damaged_card_is_named(saved_model: Path) -> None:
    (saved_model / "model.json").write_text("{}")
    with pytest.raises(RecordError, match=r"model\.json"):
        load_model(str(saved_model))
    (saved_model / "model.json").unlink()
    with pytest.raises(StorageError, match=r"model\.json"):
        load_model(str(saved_model))


def test_a_model_is_saved_as_long_as_its_card_and_its_weights_are_there(saved_model: Path) -> None:
    digest = load_card(str(saved_model)).weights_digest
    assert is_saved(str(saved_model), digest)
    assert not is_saved(str(saved_model), "of others") and not is_saved(str(saved_model / "elsewhere"), digest)
    weights = saved_model / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    assert not is_saved(str(saved_model), digest)
    weights.write_bytes(content)
    (saved_model / "model.json").write_text("{}")
    assert not is_saved(str(saved_model), digest)


def test_a_model_that_rejects_has_one_output_more_than_classes(tmp_path: Path) -> None:
    use = SourceUse(
        uri="/source",
        num_images=9,
        shared_classes=[],
        num_other_classes=0,
        batch_share=0.5,
        weight=1.0,
        penalty="none",
        penalty_weight=1.0,
        as_negatives="reject",
    )
    card = a_card(a_spec(), source=use)
    classifier = new_classifier(load_pretrained("none", a_spec(), seed=0)[0], len(LABELS) + 1, seed=0)
    save_model(str(tmp_path), classifier, card)
    loaded, again = load_model(str(tmp_path))
    assert loaded.head.out_features == sum(again.output_counts) == len(LABELS) + 1
    assert again.negatives == "reject" and a_card(a_spec()).negatives == "none"
