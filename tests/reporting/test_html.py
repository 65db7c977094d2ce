import re
from html.parser import HTMLParser

import pytest
from report_examples import a_report

from orchestrator.records import Report
from orchestrator.reporting.html import render_html

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Read a document strictly: every element that opens closes, in order."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(document)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> while {self.open} are open"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def document(report: Report) -> str:
    return render_html(report)


def test_the_document_is_well_formed_and_complete(report: Report, document: str) -> None:
    text = Reader(document).text
    for title in ("Test results", "All groups pooled", "Groups and their diversity", "Data", "Cost", "Words"):
        assert title in text
    for group in report.groups.groups:
        assert f"Group {group.name}" in text
        assert all(subset in text for subset in group.subsets)


def test_nothing_is_fetched_from_anywhere(document: str) -> None:
    for tag, attributes in Reader(document).elements:
        assert tag not in ("script", "link", "iframe", "object")
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in document and "@import" not in document


def test_every_image_has_words_that_stand_for_it(document: str) -> None:
    images = [attributes for tag, attributes in Reader(document).elements if tag == "img"]
    # Gains and diversity once; history, effects, learning curve and confusion matrix for each of three groups.
    assert len(images) == 2 + 4 * 3
    assert all(len(image["alt"] or "") > 20 for image in images)


def test_the_same_report_gives_the_same_bytes(report: Report, document: str) -> None:
    assert render_html(report) == document


def test_numbers_of_the_results_table_are_those_of_the_records(report: Report, document: str) -> None:
    text = Reader(document).text
    for evaluation in report.evaluations:
        low, high = evaluation.accuracy_interval or (0, 0)
        assert f"{evaluation.accuracy:.1%} [{100 * low:.1f}, {100 * high:.1f}]" in text
    assert "+21.3 [+17.0, +25.6]" in text


def test_failed_trials_quarantined_rows_and_costs_are_shown(document: str) -> None:
    text = Reader(document).text
    assert "36 trials, 2 failed" in text
    assert "2 trials failed: high-5 (DivergedError: the loss must be finite, got nan)" in text
    assert "the image cannot be decoded" in text and "quarantine.parquet" in text
    assert "4 min 08 s" in text and "7 min 26 s in all" in text
    assert "2,243" in text and "700 MiB" in text


def test_names_from_the_data_are_never_markup() -> None:
    hostile = '<script>alert("x")</script>'
    text = a_report().to_json()
    for name in ("low-harbour-00", "giraffe", "the image cannot be decoded", "DivergedError", "pacs-sites"):
        text = text.replace(name, hostile.replace('"', '\\"'))
    document = render_html(Report.from_json(text, source="test"))
    assert "<script" not in document
    reader = Reader(document)
    assert all(tag != "script" for tag, _ in reader.elements)
    assert reader.text.count('<script>alert("x")</script>') > 5


def test_many_subsets_and_classes_stay_readable_and_small() -> None:
    document = render_html(a_report(subsets_per_group=40, num_classes=200, num_trials=60))
    assert Reader(document).elements
    assert len(document) < 4_000_000


def test_an_experiment_that_found_nothing_still_gives_a_report(report: Report) -> None:
    search = report.searches[0]
    failed = [trial.model_copy(update={"status": "failed", "value": None}) for trial in search.trials]
    empty = {"recipes": [], "models": [], "evaluations": [], "comparisons": [], "costs": []}
    searches = [search.model_copy(update={"trials": failed})]
    text = Reader(render_html(report.model_copy(update={**empty, "searches": searches}))).text
    assert "There is no test result yet" in text
    assert "none of 12 trials completed" in text
    assert "and 7 more, in the table below" in text


def test_measures_and_scores_that_are_absent_are_dashes(report: Report) -> None:
    scores = {"accuracy": None, "accuracy_interval": None, "macro_f1": None, "macro_auc": None, "cross_entropy": None}
    evaluation = report.evaluations[0].model_copy(
        update={**scores, "num_images": 0, "confusion_matrix": [], "subsets": [], "baselines": []}
    )
    profiles = [p.model_copy(update={"pixel_entropy": None, "feature_diversity": None}) for p in report.profile.subsets]
    profile = report.profile.model_copy(update={"subsets": profiles, "rarefied_to": None})
    changed = report.model_copy(update={"evaluations": [evaluation], "profile": profile, "comparisons": []})
    document = render_html(changed)
    assert "None" not in Reader(document).text
    assert not re.search(r"\bnan\b", Reader(document).text.replace("got nan", ""))


def test_entropies_of_attributes_have_columns(report: Report) -> None:
    measured = {"attribute_entropies": {"weather": 0.8125, "<camera>": 1.25}, "joint_attribute_entropy": 1.93}
    subsets = [found.model_copy(update=measured) for found in report.profile.subsets]
    changed = report.model_copy(update={"profile": report.profile.model_copy(update={"subsets": subsets})})
    text = Reader(render_html(changed)).text
    for word in ("Entropy of weather", "Entropy of <camera>", "Joint entropy", "0.81", "1.93"):
        assert word in text
    assert "Joint entropy" not in Reader(render_html(report)).text


def test_a_failed_baseline_shows_its_error(report: Report) -> None:
    unknown = {"accuracy": None, "accuracy_interval": None, "accuracy_gain": None, "accuracy_gain_interval": None}
    evaluation = report.evaluations[0]
    broken = evaluation.baselines[0].model_copy(update={**unknown, "error": "out of memory"})
    changed = evaluation.model_copy(update={"baselines": [broken, *evaluation.baselines[1:]]})
    text = Reader(render_html(report.model_copy(update={"evaluations": [changed, *report.evaluations[1:]]}))).text
    assert "failed out of memory" in text


def test_candidate_backbones_are_shown_where_there_are_any(report: Report, document: str) -> None:
    text = Reader(document).text
    assert "Candidate backbones" in text and "mobilenet_v2 width_mult=0.35 chosen" in text
    assert "11.2 M" in text and "3.63 G" in text and "resnet18 as good" in text
    assert "Candidate backbones" not in render_html(report.model_copy(update={"rankings": []}))


def test_separability_is_shown_where_features_were_measured(report: Report, document: str) -> None:
    text = Reader(document).text
    assert "Fisher ratio H-score LogME Closest classes" in text and "dog, horse (0.21; mean 0.50)" in text
    subsets = [found.model_copy(update={"feature_diversity": None}) for found in report.profile.subsets]
    profile = report.profile.model_copy(update={"subsets": subsets})
    bare = render_html(report.model_copy(update={"profile": profile, "rankings": []}))
    assert "Fisher" not in Reader(bare).text


def test_the_source_task_is_compared_with_where_there_is_one(report: Report, document: str) -> None:
    text = Reader(document).text
    assert "another domain, another task (2 subsets)" in text and "keep within 0.120" in text
    assert "1 of 3" in text
    assert report.distances is not None
    without = report.distances.model_copy(update={"source_range": None, "to_source": []})
    assert "source task:" not in Reader(render_html(report.model_copy(update={"distances": without}))).text


def test_a_cross_validated_trial_shows_its_standard_error(report: Report) -> None:
    first = report.searches[0]
    trials = [trial.model_copy(update={"value": 0.812, "standard_error": 0.013}) for trial in first.trials[:1]]
    search = first.model_copy(update={"trials": [*trials, *first.trials[1:]]})
    text = Reader(render_html(report.model_copy(update={"searches": [search, *report.searches[1:]]}))).text
    assert "81.2% ± 1.3%" in text and text.count("±") == Reader(render_html(report)).text.count("±") + 1
