"""What becomes of a job: heat maps of the images that can be read, and words about those that cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from builders import write_image_folder
from finetune_examples import a_spec

from orchestrator.cluster.explaining import ExplainedImage, ExplainedImages, ExplanationJob, explain_images
from orchestrator.config import DataConfig
from orchestrator.data.catalogue import assemble, examine
from orchestrator.data.reader import PixelReader, write_fragments
from orchestrator.data.sources import list_fragments, read_fragment
from orchestrator.errors import StorageError
from orchestrator.finetune.backbones import create_backbone
from orchestrator.finetune.classifier import new_classifier
from orchestrator.finetune.explanations import heat_maps
from orchestrator.finetune.models import load_model, save_model
from orchestrator.records import Hyperparameters, ModelCard

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(200)]

SPEC = a_spec("mobilenet_v2", image_size=32, width_mult=0.25)


def a_saved_model(uri: Path) -> str:
    classifier = new_classifier(create_backbone(SPEC.name, SPEC.kwargs, SPEC.image_size), 2, seed=0)
    recipe = Hyperparameters(
        freeze_depth=0, learning_rate=1e-3, epochs=1, batch_size=8, optimizer="adam", weight_decay=0
    )
    card = ModelCard(
        group="low",
        backbone=SPEC,
        classes=["circle", "stripe"],
        hyperparameters=recipe,
        weights_digest="",
        pretrained_digest="none",
        data_fingerprint="abc",
        subsets=["north"],
        best_epoch=1,
        history=[],
        seconds=1.0,
        num_workers=1,
    )
    save_model(str(uri), classifier, card)
    return str(uri)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "data", subsets={"north": {"circle": 2, "stripe": 2}})


@pytest.fixture
def catalogue(folder: Path, tmp_path: Path) -> tuple[pa.Table, PixelReader]:
    data = DataConfig(uri=str(folder))
    fragments = list_fragments(data)
    write_fragments(str(tmp_path / "fragments.json"), fragments)
    parts = [
        examine(read_fragment(fragment, data, with_image=True), data, fragment.key, 32, "crop", 0, 0.0)[0]
        for fragment in fragments
    ]
    reader = PixelReader(
        data=data, image_size=32, resize="crop", pixels_uri=None, fragments_uri=str(tmp_path / "fragments.json")
    )
    return assemble(parts), reader


def test_images_that_are_gone_are_words_and_the_others_are_explained(
    catalogue: tuple[pa.Table, PixelReader], folder: Path, tmp_path: Path
) -> None:
    rows, reader = catalogue
    pixels = np.concatenate([reader.read(rows.slice(row, 1)) for row in range(4)])
    gone = next(folder.rglob("north/circle/*"))
    lost = rows.column("file").to_pylist().index(str(gone.relative_to(folder)))
    gone.unlink()
    model_uri = a_saved_model(tmp_path / "model")
    job = ExplanationJob(model_uri=model_uri, rows=rows, classes=[0, 1, 1, 0])
    ((index, found),) = explain_images([job], reader, stall_timeout_s=100)
    assert index == 0 and isinstance(found, ExplainedImages) and found.method == "grad_cam"
    expected = heat_maps(load_model(model_uri)[0], SPEC, pixels, np.array([0, 1, 1, 0]))
    for row, image in enumerate(found.images):
        if row == lost:
            assert isinstance(image, str) and gone.name in image
        else:
            assert isinstance(image, ExplainedImage)
            np.testing.assert_array_equal(image.pixels, pixels[row])
            np.testing.assert_allclose(image.heat_map, expected[row], atol=1e-3)


def test_a_model_that_is_gone_does_not_keep_others_from_being_explained(
    catalogue: tuple[pa.Table, PixelReader], tmp_path: Path
) -> None:
    rows, reader = catalogue
    uris = [str(tmp_path / "gone"), a_saved_model(tmp_path / "model")]
    jobs = [ExplanationJob(model_uri=uri, rows=rows.slice(0, 1), classes=[0]) for uri in uris]
    found = dict(explain_images(jobs, reader, stall_timeout_s=100))
    assert isinstance(found[0], StorageError) and "gone" in str(found[0])
    assert isinstance(found[1], ExplainedImages)


def test_no_images_need_no_explanation(catalogue: tuple[pa.Table, PixelReader], tmp_path: Path) -> None:
    rows, reader = catalogue
    job = ExplanationJob(model_uri=a_saved_model(tmp_path / "model"), rows=rows.slice(0, 0), classes=[])
    ((_, found),) = explain_images([job], reader, stall_timeout_s=100)
    assert found == ExplainedImages(method="grad_cam", images=[])
