"""A saved model's pass over catalogue rows gives every image its row, its kin and its share of the class sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import write_parquet_shards

from orchestrator.cluster.inference import InferencePlan
from orchestrator.cluster.ingest import IngestPlan, make_catalogue, pixel_reader, read_samples
from orchestrator.config import DataConfig
from orchestrator.data.reader import blocks_of, number_rows
from orchestrator.diversity.feature_sums import DirectionSums
from orchestrator.diversity.vendi import unit_directions
from orchestrator.evaluation.parts import whole
from orchestrator.finetune.classifier import new_classifier, predict_with_features
from orchestrator.finetune.models import save_model
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec, Hyperparameters, ModelCard
from orchestrator.stages.predicted import predicted

SPEC = BackboneSpec(
    name="mobilenet_v2",
    kwargs={"width_mult": 0.25},
    image_size=32,
    resize="crop",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
RECIPE = Hyperparameters(freeze_depth=6, learning_rate=1e-3, epochs=1, batch_size=8, optimizer="adam", weight_decay=0)
CLASSES = ["cat", "dog"]


@pytest.mark.usefixtures("ray_cluster")
def test_predictions_kin_and_class_sums_are_those_of_the_images_whatever_the_blocks(tmp_path: Path) -> None:
    subsets = {"north": {"cat": 7, "dog": 5}, "south": {"cat": 4}}
    columns = {"image": "image", "label": "label", "subset": "subset", "id": "id"}
    data = DataConfig.model_validate(
        {
            "uri": str(write_parquet_shards(tmp_path / "data", subsets=subsets, num_shards=3)),
            **columns,
            "split": {"keep_together": "subset"},
        }
    )
    ingest = IngestPlan(
        data=data,
        image_size=SPEC.image_size,
        resize=SPEC.resize,
        seed=0,
        run_uri=str(tmp_path / "run"),
        folder="catalogue",
        stall_timeout_s=60,
    )
    catalogue = make_catalogue(ingest, fingerprint="test")
    reader, rows = pixel_reader(ingest, catalogue), read_samples(ingest.run_uri, catalogue).table
    classifier = new_classifier(load_pretrained("none", SPEC, seed=0)[0], len(CLASSES), seed=0)
    card = ModelCard(
        group="low",
        backbone=SPEC,
        classes=CLASSES,
        hyperparameters=RECIPE,
        weights_digest="",
        pretrained_digest="none",
        data_fingerprint="abc",
        subsets=list(subsets),
        best_epoch=1,
        history=[],
        seconds=1.0,
        num_workers=1,
    )
    saved = save_model(str(tmp_path / "model"), classifier, card)
    plan = InferencePlan(
        model_uri=str(tmp_path / "model"), weights_digest=saved.weights_digest, use_gpu=False, stall_timeout_s=60
    )
    blocks = blocks_of(number_rows(rows), 4)
    with predicted(rows, blocks, reader, plan, saved) as ([found], directions):
        predictions = whole(found)
        assert (len(found), found.num_units, found.has_kin("south")) == (16, 2, True)

    probabilities, features = predict_with_features(classifier, SPEC, reader.read(rows), device="cpu")
    labels = rows.column("label").to_pylist()
    assert predictions.ids == rows.column("id").to_pylist()
    assert predictions.together == predictions.subsets == rows.column("subset").to_pylist()
    assert [CLASSES[index] for index in predictions.truth] == labels
    np.testing.assert_allclose(predictions.probabilities, probabilities, atol=1e-5)
    expected = DirectionSums.of(unit_directions(features), labels)
    assert directions.counts == expected.counts == {"cat": 11, "dog": 5}
    for name in CLASSES:
        np.testing.assert_allclose(directions.sums[name], expected.sums[name], atol=1e-4)

    with predicted(rows.slice(0, 0), [], reader, plan, saved) as ([nothing], no_directions):
        assert len(whole(nothing)) == no_directions.num_images == 0
