from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import DataError, RecordError
from orchestrator.evaluation.predictions import Predictions
from orchestrator.finetune.validation import load_thinned_validation, save_validation
from orchestrator.records import BackboneSpec, Hyperparameters, ModelCard

SPEC = BackboneSpec(name="x", image_size=32, resize="crop", mean=(0, 0, 0), std=(1, 1, 1))
RECIPE = Hyperparameters(freeze_depth=6, learning_rate=1e-3, epochs=1)


def a_card(weights_digest: str = "abc") -> ModelCard:
    return ModelCard(
        group="low",
        backbone=SPEC,
        classes=["cat", "dog"],
        hyperparameters=RECIPE,
        weights_digest=weights_digest,
        pretrained_digest="none",
        data_fingerprint="data",
        subsets=["north"],
        best_epoch=1,
        history=[],
        seconds=1.0,
        num_workers=1,
    )


def some_predictions(num_images: int = 4) -> Predictions:
    return Predictions(
        ids=[str(index) for index in range(num_images)],
        subsets=["north"] * num_images,
        together=["kin"] * num_images,
        truth=np.arange(num_images) % 2,
        probabilities=np.full((num_images, 2), 0.5, dtype=np.float32),
    )


def test_what_is_kept_beside_a_model_comes_back(tmp_path: Path) -> None:
    save_validation(str(tmp_path), a_card(), some_predictions(), fingerprint="one")
    found = load_thinned_validation(str(tmp_path), a_card())
    assert found.together == ["kin"] * 4
    np.testing.assert_array_equal(found.truth, [0, 1, 0, 1])
    np.testing.assert_array_equal(found.probabilities, some_predictions().probabilities)


def test_images_of_one_subset_are_told_apart_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    mixed = replace(some_predictions(), subsets=["north", "south", "north", "south"])
    save_validation(str(tmp_path), a_card(), mixed, fingerprint="one")
    assert load_thinned_validation(str(tmp_path), a_card(), "south").ids == ["1", "3"]
    with pytest.raises(DataError, match=r"got east. There are north, south"):
        load_thinned_validation(str(tmp_path), a_card(), "east")


def test_at_most_as_many_images_as_are_asked_for_come_back_at_even_distances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = replace(some_predictions(10), subsets=["north", "south"] * 5)
    save_validation(str(tmp_path), a_card(), mixed, fingerprint="one")
    assert load_thinned_validation(str(tmp_path), a_card()).ids == mixed.ids
    monkeypatch.setattr("orchestrator.evaluation.label_shift.MOST_IMAGES", 3)
    assert load_thinned_validation(str(tmp_path), a_card()).ids == ["0", "4", "9"]
    assert load_thinned_validation(str(tmp_path), a_card(), "south").ids == ["1", "5", "9"]
    with pytest.raises(DataError, match=r"got east. There are north, south"):
        load_thinned_validation(str(tmp_path), a_card(), "east")


def test_the_latest_alone_is_kept_and_nothing_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    for fingerprint, count in (("one", 4), ("two", 6)):
        save_validation(str(tmp_path), a_card(), some_predictions(count), fingerprint=fingerprint)
    assert len(load_thinned_validation(str(tmp_path), a_card())) == 6
    assert [path.name for path in (tmp_path / "validation").iterdir()] == ["two.parquet"]
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"


def test_a_model_without_validation_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"needs the model's predictions on validation.*orchestrator evaluate"):
        load_thinned_validation(str(tmp_path), a_card())


def test_validation_of_other_weights_is_refused(tmp_path: Path) -> None:
    save_validation(str(tmp_path), a_card("old"), some_predictions(), fingerprint="one")
    with pytest.raises(RecordError, match="must be of the weights new, got old"):
        load_thinned_validation(str(tmp_path), a_card("new"))


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    save_validation(str(tmp_path), a_card(), some_predictions(), fingerprint="one")
    table = tmp_path / "validation" / "one.parquet"
    table.write_bytes(table.read_bytes()[:-1])
    with pytest.raises(RecordError, match="must have the digest"):
        load_thinned_validation(str(tmp_path), a_card())
