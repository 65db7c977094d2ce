from report_examples import a_report

from orchestrator.records import Baseline, Evaluation, HeadScores
from orchestrator.reporting.head_findings import heads_finding
from orchestrator.reporting.html import render_html


def an_evaluation(*, gain: float | None = 0.021) -> Evaluation:
    evaluation = a_report(subsets_per_group=3).evaluations[0]
    names = [found.subset for found in evaluation.subsets]
    intervals = [(0.05, 0.15), (-0.06, 0.01), (-0.2, 0.1)]
    heads = [
        HeadScores(
            subset=name,
            classes=None if number == 2 else ["cat", "owl"],
            num_images=40,
            accuracy_gain=0.04,
            accuracy_gain_interval=interval,
        )
        for number, (name, interval) in enumerate(zip(names, intervals, strict=True))
    ]
    first = evaluation.baselines[0]
    one = Baseline.model_validate(
        {
            **first.model_dump(),
            "name": "one_head",
            "accuracy_gain": gain,
            "accuracy_gain_interval": None if gain is None else (0.01, 0.04),
        }
    )
    return evaluation.model_copy(update={"heads": heads, "baselines": [*evaluation.baselines, one]})


def test_the_finding_names_what_has_no_head_and_counts_verdicts() -> None:
    evaluation = an_evaluation()
    assert heads_finding(evaluation) == (
        "One network with a head for each subset: 2 heads tested. Without a head, having no training images: "
        f"{evaluation.heads[2].subset}. Beside one head for all on the same data, in 1 it is better and in 1 it shows "
        "no clear difference; over all test images the gain is +2.1 points [+1.0, +4.0]."
    )


def test_what_cannot_be_compared_is_said() -> None:
    assert heads_finding(an_evaluation(gain=None)).endswith("One head for all could not be compared with them.")
    assert heads_finding(a_report().evaluations[0]) == ""


def test_the_report_shows_every_head_with_its_classes() -> None:
    report = a_report(subsets_per_group=3)
    evaluation = an_evaluation()
    page = render_html(report.model_copy(update={"evaluations": [evaluation, *report.evaluations[1:]]}))
    assert page.count("<h4>Heads of subsets</h4>") == 1
    assert "no head" in page and "one head" in page
    assert "Heads of subsets" not in render_html(report)
