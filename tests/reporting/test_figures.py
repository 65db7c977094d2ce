import base64
import xml.etree.ElementTree as ElementTree

import matplotlib
from matplotlib.figure import Figure

from orchestrator.reporting.figures import draw_plot, label


def draw(figure: Figure, text: str = "plain") -> None:
    figure.subplots().set_title(text)


def test_a_plot_is_a_complete_svg_image() -> None:
    plot = draw_plot(draw, width=3, height=2, alt="a title")
    kind, content = plot.source.split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")


def test_the_same_drawing_gives_the_same_bytes() -> None:
    assert draw_plot(draw, width=3, height=2, alt="") == draw_plot(draw, width=3, height=2, alt="")


def test_the_settings_of_other_plots_are_left_alone() -> None:
    before = dict(matplotlib.rcParams)
    draw_plot(draw, width=3, height=2, alt="")
    assert dict(matplotlib.rcParams) == before


def test_names_in_any_script_are_drawn_as_they_are(recwarn) -> None:
    for name in ("$broken$math$", "<script>&", "港口", "a\x00b\ud800c"):
        plot = draw_plot(lambda figure, name=name: draw(figure, label(name)), width=3, height=2, alt="")
        texts = ElementTree.fromstring(base64.b64decode(plot.source.split(",", 1)[1])).itertext()
        assert label(name) in "".join(texts)
    assert not recwarn.list


def test_labels_are_short_and_printable() -> None:
    assert label("short") == "short"
    assert len(label("x" * 100)) == 26
    assert label("a\nb") == "a\ufffdb"
