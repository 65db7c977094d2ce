import pytest
from report_examples import a_report

from orchestrator.records import EpisodeScores, FewShot
from orchestrator.reporting.few_shot_findings import episodes_finding, few_shot_finding
from orchestrator.reporting.html import render_html

EPISODES = EpisodeScores(
    ways=5,
    shots=1,
    queries=15,
    count=600,
    num_classes=7,
    tuned=0.61,
    tuned_interval=(0.60, 0.62),
    pretrained=0.55,
    pretrained_interval=(0.54, 0.56),
    gain=0.06,
    gain_interval=(0.05, 0.07),
)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["folds", "head", "weight_decay"], "few-shot defaults for folds, the head and weight decay"),
        ([], "the experiment file names every key that would have another default"),
    ],
)
def test_the_reason_says_how_few_and_what_changed(changed: list[str], words: str) -> None:
    text = few_shot_finding(FewShot(images_per_class=4.5, threshold=6, changed=changed, folds=4))
    assert "4.5 training images in the median class, below search.few_shot_threshold = 6" in text and words in text


def test_episodes_compare_tuned_features_with_pretrained_ones() -> None:
    text = episodes_finding(EPISODES)
    assert "1 image of each of 5 classes" in text and "61.0%" in text and "+6.0 points [+5.0, +7.0]" in text


def test_too_few_images_for_episodes_are_said() -> None:
    text = episodes_finding(EpisodeScores(ways=5, shots=5, queries=15, count=600, num_classes=1))
    assert text == "Episodes of 5 classes could not be drawn: there is 1 class with 20 test images, which each takes."


def test_the_report_shows_episodes_where_there_are_some() -> None:
    report = a_report(subsets_per_group=2, num_trials=4)
    assert "1 shot" not in render_html(report)
    evaluations = [found.model_copy(update={"episodes": EPISODES}) for found in report.evaluations]
    html = render_html(report.model_copy(update={"evaluations": evaluations}))
    assert "5 ways, 1 shot" in html and "600 episodes drawn from the test images of 7 classes" in html
    none = EpisodeScores(ways=5, shots=5, queries=15, count=600, num_classes=1)
    evaluations = [found.model_copy(update={"episodes": none}) for found in report.evaluations]
    assert "could not be drawn" in render_html(report.model_copy(update={"evaluations": evaluations}))
