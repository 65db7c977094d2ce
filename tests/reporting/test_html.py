import re
from html.parser import HTMLParser

import pytest
from report_examples import a_label_shift, a_report, some_explanations

from orchestrator.records import (
    Advice,
    ClassScores,
    Evaluation,
    Explanations,
    Gain,
    GroupInvestment,
    Investment,
    Report,
    Scores,
    Spending,
    SubsetInvestment,
    TaskClasses,
    TaskScores,
)
from orchestrator.reporting.html import render_html
from orchestrator.reporting.wording import ABSENT

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
    assert "Where the weights come from" not in text


def test_nothing_is_fetched_from_anywhere(document: str) -> None:
    for tag, attributes in Reader(document).elements:
        assert tag not in ("script", "link", "iframe", "object")
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in document and "@import" not in document


def test_every_image_has_words_that_stand_for_it(document: str) -> None:
    images = [attributes for tag, attributes in Reader(document).elements if tag == "img"]
    # Gains and diversity once; history, effects, learning curve, confusions and reliability for each of three groups.
    assert len(images) == 2 + 5 * 3
    assert all(len(image["alt"] or "") > 20 for image in images)


def test_the_same_report_gives_the_same_bytes(report: Report, document: str) -> None:
    assert render_html(report) == document


def test_numbers_of_the_results_table_are_those_of_the_records(report: Report, document: str) -> None:
    text = Reader(document).text
    for evaluation in report.evaluations:
        low, high = evaluation.accuracy_interval or (0, 0)
        assert f"{evaluation.accuracy:.1%} [{100 * low:.1f}, {100 * high:.1f}]" in text
    assert "+21.3 [+17.0, +25.6]" in text


def test_every_class_its_neighbour_and_the_calibration_are_shown(report: Report, document: str) -> None:
    text = Reader(document).text
    for evaluation in report.evaluations:
        for place, (label, scores) in enumerate(zip(evaluation.classes, evaluation.by_class, strict=True)):
            row = f"{label} {scores.num_images} 0.900 {scores.recall:.3f} 0.880 0.970 {evaluation.classes[place - 1]}, "
            assert row in text
        assert "6.2% [3.8, 8.7]" in text
        assert f"{evaluation.num_images} images in {evaluation.num_units} units" in text
    assert "AUC is from counts" not in text


def test_binned_auc_says_how_far_it_may_be_off(report: Report) -> None:
    evaluation = report.evaluations[0].model_copy(update={"macro_auc_error": 2.5e-4})
    text = Reader(render_html(report.model_copy(update={"evaluations": [evaluation]}))).text
    assert "off by at most 2.5e-04" in text


def test_estimated_frequencies_stand_beside_the_true_ones_and_scores_before_and_after(report: Report) -> None:
    shift = a_label_shift(["harbour"])
    evaluation = report.evaluations[0].model_copy(update={"label_shift": shift})
    text = Reader(render_html(report.model_copy(update={"evaluations": [evaluation]}))).text
    assert "Other class frequencies" in text
    assert "harbour 300 90 own 81.0% [78.0, 84.0] 81.5% [78.5, 84.5] 85.0% [82.0, 88.0] +4.0 [+1.0, +7.0]" in text
    assert "76.0% 80.0% 0.520 0.480 0.350" in text
    assert "whole group dog 30.0% 60.0% [52.0, 67.0] 62.0%" in text
    assert "did not converge" not in text
    assert "Other class frequencies" not in Reader(render_html(report)).text


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
    known = {"group", "classes", "predictions", "seconds"}
    empty = {"num_images": 0, "confusion_matrix": [], "subsets": [], "baselines": [], "num_units": 0}
    unknown = [ClassScores(num_images=0, precision=None, recall=None, f1=None, auc=None) for _ in range(7)]
    evaluation = Evaluation(
        **report.evaluations[0].model_dump(include=known), **empty, by_class=unknown, calibration=None, separation=None
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


def test_only_baselines_that_were_trained_have_columns(document: str) -> None:
    text = Reader(document).text
    assert "Gain over from scratch" in text and "target only" not in text


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
    assert "Distance to the source task of the weights" in text and "group high 0.310" in text
    without = report.model_copy(update={"distances": None, "group_distances": None})
    assert "Compared with" not in Reader(render_html(without)).text


def test_explained_images_stand_beside_their_heat_maps_with_words(report: Report, document: str) -> None:
    explained = report.model_copy(update={"explanations": [some_explanations("low")]})
    reader = Reader(render_html(explained, {"groups/low/explanations/x/1.png": b"picture"}))
    images = [attributes for tag, attributes in reader.elements if tag == "img"]
    assert [image for image in images if image["src"] == "data:image/png;base64,cGljdHVyZQ=="]
    assert all(len(image["alt"] or "") > 20 for image in images)
    for words in (
        "What the model looked at",
        "by Grad-CAM",
        "horse taken for giraffe with probability 98.0%",
        "horse/<7>.jpg, harbour",
        "person recognised",
        "No picture: the image is truncated",
        "No picture: its file is gone from the run directory",
    ):
        assert words in reader.text
    assert reader.text.count("What the model looked at") == 1
    assert "What the model looked at" not in Reader(document).text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"error": "BackboneError: <no map>", "method": None}, "Nothing could be explained: BackboneError: <no map>"),
        ({}, "There are no test images to explain."),
    ],
)
def test_a_group_without_explanations_says_why(report: Report, changes: dict[str, object], words: str) -> None:
    found = Explanations.model_validate({"group": "low", "method": "grad_cam", "examples": [], **changes})
    assert words in Reader(render_html(report.model_copy(update={"explanations": [found]}))).text


def test_investment_and_advice_are_shown_where_there_are_any(report: Report, document: str) -> None:
    spent = Spending(seconds=140.0, gpu_hours=0.25, money=1.5)
    gain = Gain(baseline="head_only", num_images=90, gain=0.1, interval=(0.05, 0.15), extra_seconds=50.0)
    subset = SubsetInvestment(subset="low-harbour-00", share=0.5, spent=spent, gain=gain)
    found = GroupInvestment(group="low", parts={"search": spent}, spent=spent, gain=gain, subsets=[subset])
    advice = Advice(kind="more_epochs", group="low", sentence="More <epochs> may pay.")
    ledger = Investment(groups=[found], cost_per_hour={"CPU": 0.04, "GPU": 2.5})
    text = Reader(render_html(report.model_copy(update={"investment": ledger, "advice": [advice]}))).text
    for words in (
        "More <epochs> may pay.",
        "GPU-hours Money Cheapest baseline Gain over it (points) For each point Chance of more",
        "low search 2 min 20 s 2 min 20 s 0.250 1.50 head only +10.0 [+5.0, +15.0]",
        "low-harbour-00 50.0% 2 min 20 s 0.250 1.50 +10.0 [+5.0, +15.0]",
        "0.04 for a CPU-hour and 2.5 for a GPU-hour",
    ):
        assert words in text
    assert "Of its group's first model" not in text
    first = gain.model_copy(update={"gain": -0.13, "interval": (-0.25, -0.01)})
    served = found.model_copy(update={"subsets": [subset.model_copy(update={"first_gain": first}), subset]})
    shipped = ledger.model_copy(update={"groups": [served]})
    text = Reader(render_html(report.model_copy(update={"investment": shipped}))).text
    for words in (
        "Of its group's first model",
        f"+10.0 [+5.0, +15.0] {ABSENT} -13.0 [-25.0, -1.0]",
        "1 subset is served by another model",
    ):
        assert words in text
    plain = ledger.model_copy(update={"groups": [found.model_copy(update={"spent": Spending(seconds=140.0)})]})
    bare = Reader(render_html(report.model_copy(update={"investment": plain}))).text
    assert "GPU-hours" not in bare and "CPU-hour" not in bare
    assert "Investment" not in Reader(document).text and "Advice" not in Reader(document).text


def test_a_cross_validated_trial_shows_its_standard_error(report: Report) -> None:
    first = report.searches[0]
    trials = [trial.model_copy(update={"value": 0.812, "standard_error": 0.013}) for trial in first.trials[:1]]
    search = first.model_copy(update={"trials": [*trials, *first.trials[1:]]})
    text = Reader(render_html(report.model_copy(update={"searches": [search, *report.searches[1:]]}))).text
    assert "81.2% ± 1.3%" in text and text.count("±") == Reader(render_html(report)).text.count("±") + 1


def test_the_sparsity_that_an_l1_penalty_left_is_stated_where_there_was_one(report: Report, document: str) -> None:
    sentence = "of the weights under it at 0.001 or less"
    assert sentence not in document
    first, second, *others = report.models
    models = [first.model_copy(update={"sparsity": 0.375}), second.model_copy(update={"sparsity": 0.0}), *others]
    text = Reader(render_html(report.model_copy(update={"models": models}))).text
    for share in ("37.5%", "0.0%"):
        assert text.count(f"The L1 penalty left {share} {sentence}.") == 1


def test_several_tasks_stand_in_a_table_of_their_own() -> None:
    report = a_report()
    first = report.evaluations[0]
    shared = {name: getattr(first, name) for name in Scores.model_fields}
    weather = TaskScores(task="<weather>", classes=["sun", "rain"], predictions="x", **shared)
    tasks = [TaskClasses(task="animal", classes=first.classes), TaskClasses(task="<weather>", classes=["sun", "rain"])]
    page = render_html(
        report.model_copy(
            update={
                "evaluations": [first.model_copy(update={"tasks": [weather]}), *report.evaluations[1:]],
                "models": [report.models[0].model_copy(update={"tasks": tasks}), *report.models[1:]],
            }
        )
    )
    text = Reader(page).text
    assert text.count("Tasks") == 1 and "<weather>" in text
    assert "Everything else about this group is of animal, the first of them" in text
