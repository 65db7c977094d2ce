"""Predictions of any images are corrected for how frequent classes are among them, part by part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import write_parquet_shards

from orchestrator.cli import main
from orchestrator.cluster.corrected_inference import corrected_table
from orchestrator.evaluation.class_calibration import ClassCalibration
from orchestrator.evaluation.predictions import Predictions
from orchestrator.finetune.classifier import new_classifier
from orchestrator.finetune.models import save_model
from orchestrator.finetune.validation import save_validation
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec, Hyperparameters, ModelCard, PredictedFrequencies

SPEC = BackboneSpec(
    name="mobilenet_v2",
    kwargs={"width_mult": 0.25},
    image_size=32,
    resize="crop",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
RECIPE = Hyperparameters(freeze_depth=6, learning_rate=1e-3, epochs=1)
CLASSES = ["cat", "dog"]
CALIBRATION = ClassCalibration(sharpness=1.0, biases=np.zeros(2), prior=np.array([0.5, 0.5]))


def a_raw_table() -> pa.Table:
    return pa.table(
        {
            "file": ["a", "b", "c"],
            "row": [0, 0, 0],
            "label": ["cat", None, "dog"],
            "probability_cat": pa.array([0.6, None, 0.1], type=pa.float32()),
            "probability_dog": pa.array([0.4, None, 0.9], type=pa.float32()),
            "error": [None, "the image is truncated", None],
        }
    )


def a_model(folder: Path, *, with_validation: bool = True) -> str:
    """Save an untrained model that calls half of the validation images right."""
    classifier = new_classifier(load_pretrained("none", SPEC, seed=0)[0], len(CLASSES), seed=0)
    card = ModelCard(
        group="low",
        backbone=SPEC,
        classes=CLASSES,
        hyperparameters=RECIPE,
        weights_digest="",
        pretrained_digest="none",
        data_fingerprint="abc",
        subsets=["north"],
        best_epoch=1,
        history=[],
        seconds=1.0,
        num_workers=1,
    )
    saved = save_model(str(folder), classifier, card)
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(2), size=80).astype(np.float32)
    validation = Predictions(
        ids=[str(index) for index in range(80)],
        subsets=["north"] * 80,
        together=[""] * 80,
        truth=(rng.random(80) < probabilities[:, 1]).astype(np.int64),
        probabilities=probabilities,
    )
    if with_validation:
        save_validation(str(folder), saved, validation, fingerprint="abc")
    return str(folder)


def test_corrected_columns_stand_beside_the_raw_ones_and_bad_rows_stay_empty() -> None:
    raw = a_raw_table()
    table = corrected_table(raw, CLASSES, CALIBRATION, np.array([0.2, 0.8]))
    assert table.select(raw.column_names).equals(raw)
    assert table.column("corrected_label").to_pylist() == ["dog", None, "dog"]
    first, bad, last = table.select(["corrected_probability_cat", "corrected_probability_dog"]).to_pylist()
    assert list(first.values()) == pytest.approx([0.12 / 0.44, 0.32 / 0.44])
    assert list(last.values()) == pytest.approx([0.02 / 0.74, 0.72 / 0.74])
    assert set(bad.values()) == {None}
    assert table.column_names[-1] == "error"


def test_a_further_task_has_corrected_columns_of_its_own() -> None:
    raw = a_raw_table()
    renamed = raw.rename_columns(
        [name.replace("label", "label[form]").replace("probability", "probability[form]") for name in raw.column_names]
    )
    table = corrected_table(renamed, CLASSES, CALIBRATION, np.array([0.2, 0.8]), suffix="[form]")
    expected = corrected_table(raw, CLASSES, CALIBRATION, np.array([0.2, 0.8]))
    for stem in ("label", "probability"):
        for name in [name for name in expected.column_names if name.startswith(f"corrected_{stem}")]:
            assert table.column(name.replace(stem, f"{stem}[form]")).equals(expected.column(name))


@pytest.mark.usefixtures("ray_cluster")
def test_all_parts_are_corrected_for_the_frequencies_of_all_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_parquet_shards(tmp_path / "data", subsets={"north": {"cat": 20, "dog": 6}}, num_shards=3, bad_rows=2)
    model = a_model(tmp_path / "model")
    for method in ("confusion", "em"):
        output = tmp_path / method
        # What a command that was cut short has left of its first pass is no part of the next one.
        (output / "_raw").mkdir(parents=True)
        (output / "_raw" / "part-00099.parquet").write_bytes(b"cut")
        assert main(["predict", model, str(data), "--output", str(output), "--label-shift", method]) == 0
        text = (output / "_label_shift.json").read_text()
        record = PredictedFrequencies.from_json(text, source="test")
        assert (record.method, record.num_images, record.num_validation) == (method, 26, 80)
        estimated = np.array([found.estimated for found in record.frequencies])
        assert estimated.sum() == pytest.approx(1.0) and record.is_converged
        assert all(found.true is None for found in record.frequencies)
        assert f"{100 * estimated[0]:.1f}%" in capsys.readouterr().out
        assert sorted(path.name for path in output.iterdir())[:1] == ["_label_shift.json"]
        assert not (output / "_raw").exists()
        rows = pq.read_table(output).to_pylist()
        assert len(rows) == 28 and sum(row["error"] is not None for row in rows) == 2
        for row in rows:
            if row["error"] is None:
                corrected = {name: row[f"corrected_probability_{name}"] for name in CLASSES}
                assert sum(corrected.values()) == pytest.approx(1.0, abs=1e-5)
                assert row["corrected_label"] == max(CLASSES, key=corrected.__getitem__)
    # A folder in which some parts are corrected is not taken for an empty one.
    (output / "_label_shift.json").unlink()
    assert main(["predict", model, str(data), "--output", str(output), "--label-shift", "em"]) == 1
    bare = a_model(tmp_path / "bare", with_validation=False)
    assert main(["predict", bare, str(data), "--output", str(tmp_path / "bare-out"), "--label-shift", "em"]) == 1
    assert not (tmp_path / "bare-out").exists()
