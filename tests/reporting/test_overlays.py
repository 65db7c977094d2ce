import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from report_examples import some_explanations

from orchestrator.reporting.overlays import draw_pair, show_examples


def drawn(pixels: NDArray[np.uint8], heat_map: NDArray[np.float32]) -> NDArray[np.uint8]:
    content = draw_pair(pixels, heat_map)
    assert content.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(content)))


def a_photo(size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, size=(size, size, 3), dtype=np.uint8)


def test_the_left_half_is_the_image_itself() -> None:
    pixels = a_photo(24)
    pair = drawn(pixels, np.zeros((24, 24), dtype=np.float32))
    assert pair.shape == (24, 52, 3)
    np.testing.assert_array_equal(pair[:, :24], pixels)


def test_the_right_half_is_grey_where_nothing_was_found_and_coloured_where_much_was() -> None:
    heat = np.zeros((24, 24), dtype=np.float32)
    heat[:, 12:] = 1.0
    right = drawn(np.full((24, 24, 3), 90, dtype=np.uint8), heat)[:, 28:]
    assert (right[:, :12] == 90).all()
    assert (np.ptp(right[:, 12:].astype(int), axis=2) > 50).all()


def test_large_images_give_small_pictures() -> None:
    pair = drawn(a_photo(512), np.ones((512, 512), dtype=np.float32))
    assert pair.shape == (160, 324, 3)


def test_examples_stand_under_what_they_are_with_their_words() -> None:
    explanations = some_explanations("low")
    shown = show_examples(explanations, {"groups/low/explanations/x/1.png": b"png"})
    mistakes, answers = shown.values()
    assert [entry.caption for entry in mistakes] == [
        "horse taken for giraffe with probability 98.0%",
        "dog taken for horse with probability 91.0%",
    ]
    assert [entry.caption for entry in answers] == ["person recognised with probability 99.9%"]
    assert mistakes[0].picture is not None and mistakes[0].picture.source == "data:image/png;base64,cG5n"
    assert mistakes[1].picture is None and answers[0].picture is None
