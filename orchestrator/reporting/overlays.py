"""Draws images beside what a model looked at in them, and gathers those that the report shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchestrator.records import Explanation, Explanations
from orchestrator.reporting.figures import Plot
from orchestrator.reporting.wording import percent

# Larger pictures would show no more of a coarse map, and make the report of many groups too large to send.
_MOST_PIXELS = 160
_GAP = 4
_STRENGTH = 0.75


@dataclass(frozen=True, kw_only=True)
class ShownExample:
    """Hold an explained image with its picture, None where that is missing, and a caption."""

    example: Explanation
    picture: Plot | None
    caption: str


def show_examples(explanations: Explanations, pictures: Mapping[str, bytes]) -> dict[str, list[ShownExample]]:
    """Gather the mistakes and the right answers under their titles; `pictures` are PNG by name."""
    shown = [_show(example, pictures.get(example.picture or "")) for example in explanations.examples]
    return {
        "The most confident mistakes": [entry for entry in shown if entry.example.is_mistake],
        "The most confident right answers, one of a class": [entry for entry in shown if not entry.example.is_mistake],
    }


def _show(example: Explanation, content: bytes | None) -> ShownExample:
    answer = f"taken for {example.predicted}" if example.is_mistake else "recognised"
    caption = f"{example.label} {answer} with probability {percent(example.probability)}"
    picture = None
    if content is not None:
        encoded = base64.b64encode(content).decode("ascii")
        picture = Plot(source=f"data:image/png;base64,{encoded}", alt=f"{caption}: the image and its heat map")
    return ShownExample(example=example, picture=picture, caption=caption)


def draw_pair(pixels: NDArray[np.uint8], heat_map: NDArray[np.float32]) -> bytes:
    """Draw pixels [S, S, 3] beside the same in grey under their heat map [S, S] in [0, 1], and give both as one PNG.

    Each is at most 160 pixels wide.
    """
    heat = heat_map[..., None]
    grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float32)[..., None]
    colors = 255 * matplotlib.colormaps["inferno"](heat_map)[..., :3]
    # The image stays visible where little was found, and shines through where much was.
    overlay = grey + _STRENGTH * heat * (colors - grey)
    size = min(len(pixels), _MOST_PIXELS)
    pair = Image.new("RGB", (2 * size + _GAP, size), "white")
    pair.paste(_resized(pixels, size), (0, 0))
    pair.paste(_resized(overlay.round().astype(np.uint8), size), (size + _GAP, 0))
    stream = io.BytesIO()
    pair.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _resized(pixels: NDArray[np.uint8], size: int) -> Image.Image:
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)
