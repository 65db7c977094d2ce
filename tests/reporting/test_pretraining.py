import pytest
from report_examples import a_configuration, a_history, a_report

from orchestrator.config import ReptileConfig, SimSiamConfig
from orchestrator.records import (
    BackboneSpec,
    PretrainedBackbone,
    Pretraining,
    PretrainingTarget,
    Report,
    ReptilePhase,
    ReptilePoint,
    SimSiamEpoch,
    SimSiamPhase,
    StartingWeights,
    SupervisedPhase,
)
from orchestrator.reporting.html import render_html
from orchestrator.reporting.pretraining import phase_rows, pretraining_finding
from orchestrator.reporting.pretraining_inputs import cache_finding

IMAGES = SimSiamPhase(
    num_images=900,
    settings=SimSiamConfig(epochs=2),
    history=[SimSiamEpoch(epoch=1, loss=-0.2, spread=0.97), SimSiamEpoch(epoch=2, loss=-0.61, spread=0.91)],
    seconds=100.0,
    num_workers=2,
)
LABELS = SupervisedPhase(
    num_images=700,
    hyperparameters=a_configuration(),
    best_epoch=3,
    accuracy=0.62,
    history=a_history(4, 0.62),
    seconds=60.0,
    num_workers=2,
)


def a_pretraining(**changes: object) -> Pretraining:
    fields = {
        "data_uri": "s3://bucket/<source>",
        "data_fingerprint": "f00",
        "num_images": 1200,
        "classes": ["dog", "house"],
        "phases": [IMAGES, LABELS],
        "features": "backbone/x.source.safetensors",
        "neighbour_accuracy": 0.583,
        "trained_in": "/runs/first",
        "seconds": 160.0,
    }
    return Pretraining.model_validate({**fields, **changes})


def test_the_finding_says_what_was_learnt_from_what_and_how_well() -> None:
    said = pretraining_finding(a_pretraining())
    assert "(SimSiam, without labels and supervised) on 900 of 1,200 images of 2 classes" in said
    assert "at s3://bucket/<source>" in said
    assert "Classes: dog, house." in said and "58.3%" in said


def test_without_labels_nothing_is_said_of_classes_or_neighbours() -> None:
    said = pretraining_finding(a_pretraining(classes=[], phases=[IMAGES], neighbour_accuracy=None))
    assert "lasses" not in said and "nearest" not in said and "on 900 of 1,200 images at" in said


def test_what_was_learnt_beside_the_source_is_said_with_its_weights_and_the_regulariser() -> None:
    target = PretrainingTarget(
        data_uri="s3://bucket/own",
        data_fingerprint="f01",
        num_images=70,
        shared_classes=["dog"],
        own_classes=["cat", "fox"],
        batch_share=0.2,
        weight=0.5,
    )
    held = a_configuration().model_copy(update={"regularizer": "l2_sp", "regularizer_weight": 1e-4})
    said = pretraining_finding(
        a_pretraining(
            start=StartingWeights(source="/weights/trunk.pt", digest="abc"),
            target=target,
            phases=[LABELS.model_copy(update={"hyperparameters": held})],
        )
    )
    assert "It began with the weights /weights/trunk.pt (digest abc)." in said
    assert "together with 70 training images of s3://bucket/own, 20.0% of every batch" in said
    assert "their loss by 0.5 beside the source's by 1. Shared classes: dog; 2 classes" in said and "cat" in said
    assert "L2-SP toward what it began with added, over the backbone, by 0.0001." in said
    plain = pretraining_finding(a_pretraining())
    assert "began" not in plain and "together" not in plain and "added" not in plain


def test_each_phase_has_a_row() -> None:
    images, labels = phase_rows(a_pretraining(), {})
    assert (images.length, images.num_images, labels.length) == ("2 epochs", 900, "4 epochs")
    assert "-0.61" in images.ended and "0.91" in images.ended
    assert "62.0% of validation images right in epoch 3" in labels.ended


def test_what_workers_held_is_known_to_later_runs_in_gpu_hours_and_money() -> None:
    held = LABELS.model_copy(update={"worker_resources": {"CPU": 4.0, "GPU": 0.5}, "seconds": 1800.0})
    pretraining = Pretraining.model_validate_json(a_pretraining(phases=[IMAGES, held]).model_dump_json())
    early, late = phase_rows(pretraining, {"CPU": 0.1, "GPU": 3.0})
    assert (early.gpu_hours, early.money) == (None, None), "nobody kept what its workers held"
    # Two workers of half an hour are an hour.
    assert late.gpu_hours == pytest.approx(0.5) and late.money == pytest.approx(0.4 + 1.5)
    assert phase_rows(pretraining, {})[1].money is None


def a_start(*, accuracies: tuple[float | None, float | None]) -> ReptilePhase:
    before, after = accuracies
    error = None if after is None else 0.012
    return ReptilePhase(
        num_images=600,
        num_subsets=18,
        settings=ReptileConfig(steps=200, tasks_per_step=3, inner_steps=8),
        history=[
            ReptilePoint(step=0, accuracy=before, standard_error=error),
            ReptilePoint(step=100, first_loss=1.9, last_loss=1.1),
            ReptilePoint(step=200, first_loss=1.84, last_loss=0.62, accuracy=after, standard_error=error),
        ],
        seconds=40.0,
        num_workers=1,
    )


def test_a_start_learnt_by_reptile_has_how_far_a_few_steps_go_before_and_after() -> None:
    pretraining = a_pretraining(
        phases=[a_start(accuracies=(0.41, 0.633))], start=StartingWeights(source="weights/imagenet.pt", digest="5f3a")
    )
    (row,) = phase_rows(pretraining, {})
    assert row.length == "200 steps of 3 tasks of 18 subsets"
    assert "41.0% before and 63.3% after (standard error 1.2%)" in row.ended and "8 inner steps" in row.ended
    assert "from 1.84 to 0.62" in row.ended
    said = pretraining_finding(pretraining)
    assert (
        "(Reptile, a start for each subset)" in said
        and "It began with the weights weights/imagenet.pt (digest 5f3a)." in said
    )


def test_without_held_out_tasks_the_last_losses_stand_alone() -> None:
    (row,) = phase_rows(a_pretraining(phases=[a_start(accuracies=(None, None))]), {})
    assert row.ended.startswith("losses of the last tasks from 1.84 to 0.62") and "%" not in row.ended


def test_the_report_has_the_section_where_the_source_is_known(report: Report) -> None:
    spec = BackboneSpec(name="resnet18", image_size=64, resize="crop", mean=(0.5,) * 3, std=(0.5,) * 3)
    backbone = PretrainedBackbone(
        spec=spec,
        source="pretrain",
        weights="backbone/x.safetensors",
        digest="abc",
        num_stages=5,
        feature_dim=512,
        pretraining=a_pretraining(),
    )
    page = render_html(report.model_copy(update={"backbone": backbone}))
    assert "Where the weights come from" in page
    assert "s3://bucket/&lt;source&gt;" in page
    assert "s3://bucket/<source>" not in page


def test_of_a_source_that_is_not_all_cached_it_is_said_who_streams_it() -> None:
    source = a_report().catalogue
    assert cache_finding(source.model_copy(update={"num_cached": source.num_images})) is None
    said = cache_finding(source.model_copy(update={"num_cached": 300}))
    assert said is not None and said.startswith(f"300 of {source.num_images:,} images of the source are cached")
    assert "supervised pretraining and SimSiam stream all, Reptile draws from the cached ones" in said
