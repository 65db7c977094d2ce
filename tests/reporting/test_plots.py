import base64
import xml.etree.ElementTree as ElementTree

from report_examples import a_report

from orchestrator.records import Report
from orchestrator.reporting.figures import Plot, group_color
from orchestrator.reporting.plots import MOST_NAMED_SUBSETS, diversity_plot, gains_plot


def text_of(plot: Plot | None) -> str:
    assert plot is not None
    return "\n".join(ElementTree.fromstring(base64.b64decode(plot.source.split(",", 1)[1])).itertext())


def svg_of(plot: Plot | None) -> str:
    assert plot is not None
    return base64.b64decode(plot.source.split(",", 1)[1]).decode()


def test_every_subset_is_labelled_and_every_group_coloured(report: Report) -> None:
    plot = diversity_plot(report.profile, report.groups)
    assert all(profile.subset in text_of(plot) for profile in report.profile.subsets)
    assert all(group_color(position).lower() in svg_of(plot) for position in range(3))


def test_every_interval_is_a_line_of_its_own(report: Report) -> None:
    bare = [found.model_copy(update={"label_entropy_interval": None}) for found in report.profile.subsets]
    without = svg_of(diversity_plot(report.profile.model_copy(update={"subsets": bare}), report.groups))
    drawn = svg_of(diversity_plot(report.profile, report.groups))
    assert drawn.count('id="line2d_') - without.count('id="line2d_') == len(bare)


def test_measures_that_were_not_taken_get_no_panel(report: Report) -> None:
    bare = [
        found.model_copy(update={"pixel_entropy": None, "feature_diversity": None}) for found in report.profile.subsets
    ]
    text = text_of(diversity_plot(report.profile.model_copy(update={"subsets": bare}), report.groups))
    assert "Label entropy" in text
    assert "Pixel entropy" not in text and "Feature diversity" not in text


def test_a_subset_without_a_measure_is_left_out_of_its_panel_alone(report: Report) -> None:
    first, *others = report.profile.subsets
    changed = [first.model_copy(update={"pixel_entropy": None}), *others]
    text = text_of(diversity_plot(report.profile.model_copy(update={"subsets": changed}), report.groups))
    assert first.subset in text and "Pixel entropy" in text


def test_very_many_subsets_are_drawn_without_names() -> None:
    report = a_report(subsets_per_group=MOST_NAMED_SUBSETS // 3 + 1)
    text = text_of(diversity_plot(report.profile, report.groups))
    assert report.profile.subsets[0].subset not in text


def test_gains_say_their_numbers_in_words_too(report: Report) -> None:
    plot = gains_plot(report.groups, report.evaluations, report.comparisons)
    assert plot is not None
    assert "low over fixed rule +21.3 points, interval +17.0 to +25.6" in plot.alt
    assert "all groups over head only +1.2 points, interval -0.8 to +3.1" in plot.alt


def test_without_a_comparison_there_is_no_plot_of_gains(report: Report) -> None:
    assert gains_plot(report.groups, [], []) is None
