import pytest
from report_examples import a_label_shift

from orchestrator.reporting.shift_findings import shift_finding


def test_a_correction_that_helps_is_told_with_its_gain_and_what_calibration_alone_does() -> None:
    text = shift_finding(a_label_shift(["harbour", "mill"]))
    assert text.startswith("Without their labels, by expectation maximisation over calibrated probabilities (Saerens")
    assert "212 validation images, the test images' class frequencies are estimated to differ" in text
    assert "from validation's by 30.0% of the images;" in text
    assert "the true frequencies lie in their intervals." in text
    assert "Correcting for them raises accuracy (+4.0 points [+1.0, +7.0])" in text
    assert "cross-entropy goes from 0.520 to 0.480 by calibration alone and to 0.350 with the correction." in text
    assert "Of 2 subsets it raises accuracy in 2 and lowers it in 0." in text
    assert "not to be trusted" not in text


@pytest.mark.parametrize(
    ("interval", "said"),
    [((-0.01, 0.02), "makes no clear difference to accuracy"), ((-0.05, -0.01), "lowers accuracy")],
)
def test_a_correction_that_does_not_help_is_told(interval: tuple[float, float], said: str) -> None:
    shift = a_label_shift([])
    whole = shift.whole.model_copy(update={"accuracy_gain_interval": interval})
    assert said in shift_finding(shift.model_copy(update={"whole": whole}))


def test_frequencies_outside_of_their_intervals_are_named() -> None:
    shift = a_label_shift(["harbour", "mill"])

    def missed(found: object) -> object:
        low = shift.whole.frequencies[0].model_copy(update={"interval": (0.0, 0.1)})
        return found.model_copy(update={"frequencies": [low, *shift.whole.frequencies[1:]]})

    whole, subsets = missed(shift.whole), [shift.subsets[0], missed(shift.subsets[1])]
    text = shift_finding(shift.model_copy(update={"whole": whole, "subsets": subsets}))
    assert "the true frequencies of dog lie outside of their intervals." in text
    assert "In mill true frequencies lie outside" in text and "harbour" not in text


def test_a_single_subset_is_not_told_twice() -> None:
    assert "subset" not in shift_finding(a_label_shift(["harbour"]))
