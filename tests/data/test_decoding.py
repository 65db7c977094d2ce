from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from builders import encode_image
from numpy.typing import NDArray
from PIL import Image

from orchestrator.data import decoding
from orchestrator.data.decoding import decode_image, luminance_histogram, resize_image
from orchestrator.errors import DataError

HEIGHT, WIDTH = 24, 40


def photograph(mode: str = "RGB", height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def as_pillow(content: bytes, mode: str) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(content)).convert(mode))


EIGHT_BIT = [
    ("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"),
    ("L", "JPEG"), ("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGB", "WEBP"), ("RGBA", "WEBP"), ("RGB", "BMP"),
    ("L", "BMP"), ("P", "GIF"), ("RGB", "TIFF"), ("CMYK", "TIFF"), ("1", "TIFF"), ("RGB", "PPM"),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "format"), EIGHT_BIT)
def test_every_mode_and_format_becomes_the_rgb_that_pillow_sees(mode: str, format: str) -> None:
    content = encoded(photograph(mode), format)
    pixels = decode_image(content)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    # JPEG may be read by another build of the same library, whose arithmetic may differ in the last bit.
    assert np.abs(pixels.astype(int) - as_pillow(content, "RGB")).max() <= (1 if format == "JPEG" else 0)


@pytest.mark.parametrize(("mode", "format"), EIGHT_BIT)
def test_the_histogram_counts_pillows_luminance_exactly(mode: str, format: str) -> None:
    content = encoded(photograph(mode), format)
    expected, _ = np.histogram(as_pillow(content, "L"), bins=256, range=(0, 256))
    histogram = luminance_histogram(content)
    assert histogram.dtype == np.int64
    np.testing.assert_array_equal(histogram, expected)
    assert histogram.sum() == HEIGHT * WIDTH


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_brightness_is_scaled_not_clipped(format: str) -> None:
    brightness = np.array([[0, 128, 257, 32768, 65406, 65535]], dtype=np.uint16)
    content = encoded(Image.fromarray(brightness), format)
    expected = np.array([0, 0, 1, 128, 254, 255], dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(content), np.repeat(expected[None, :, None], 3, axis=2))
    np.testing.assert_array_equal(np.flatnonzero(luminance_histogram(content)), np.unique(expected))


def test_brightness_of_no_defined_range_is_refused() -> None:
    content = encoded(Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)), "TIFF")
    with pytest.raises(DataError, match="no defined range"):
        decode_image(content)


def test_an_orientation_in_exif_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(photograph(), "JPEG", exif=exif)
    assert decode_image(content).shape == (HEIGHT, WIDTH, 3)


def test_pixels_can_be_written_to() -> None:
    decode_image(encoded(photograph(), "PNG"))[0, 0] = 0
    decode_image(encoded(photograph(), "JPEG"))[0, 0] = 0


@pytest.mark.parametrize("decode", [decode_image, luminance_histogram])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no known format"),
        (b"this is not an image", "no known format"),
        (encoded(photograph(), "JPEG")[:-200], "truncated"),
        (encoded(photograph(), "JPEG")[:60], "the image"),
        (encoded(photograph(), "PNG")[:-40], "the image"),
        (encoded(photograph(), "WEBP")[:-40], "the image"),
        (encoded(photograph(), "PNG").replace(b"IDAT", b"IDAX"), "the image"),
    ],
    ids=["empty", "text", "cut jpeg", "jpeg header", "cut png", "cut webp", "damaged png"],
)
def test_damaged_bytes_are_refused_with_one_line_of_reason(
    decode: Callable[[bytes], object], content: bytes, reason: str
) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        decode(content)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value), "an address would make every reason different"


@pytest.mark.parametrize(("width", "height"), [(10_000, 9_000), (40_000, 40_000)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked(width: int, height: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with warnings.catch_warnings(), pytest.raises(DataError, match=f"more than {decoding.MAX_PIXELS} pixels"):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        decode_image(bomb)


@pytest.mark.parametrize("resize", ["crop", "squash"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 16), (16, 64), (64, 16), (37, 51), (1, 3000)])
def test_any_size_becomes_the_working_size(resize: Literal["crop", "squash"], height: int, width: int) -> None:
    pixels = resize_image(np.array(photograph(height=height, width=width)), 16, resize)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_crop_keeps_the_centre_and_squash_the_borders() -> None:
    strip = np.zeros((16, 48, 3), dtype=np.uint8)
    strip[:, :16], strip[:, 16:32], strip[:, 32:] = 50, 100, 200
    assert (resize_image(strip, 16, "crop") == 100).all()
    squashed = resize_image(strip, 12, "squash")
    assert (squashed[:, 0] == 50).all()
    assert (squashed[:, -1] == 200).all()


def test_crop_keeps_the_centre_of_a_tall_image_too() -> None:
    strip = np.zeros((48, 16, 3), dtype=np.uint8)
    strip[16:32] = 100
    assert (resize_image(strip, 16, "crop") == 100).all()


@pytest.mark.parametrize("size", [16, 96])
def test_resizing_agrees_with_pillows_antialiased_bilinear_filter(size: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(61, 83, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize_image(noise, size, "squash") - expected).max() <= 1


def test_an_image_of_the_working_size_is_left_as_it_is() -> None:
    pixels = decode_image(encode_image(np.array(photograph(height=16, width=16))))
    np.testing.assert_array_equal(resize_image(pixels, 16, "crop"), pixels)
