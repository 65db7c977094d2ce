"""A subset that its siblings mislead is found, and mended by falling back and by regrouping."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import class_image, encode_image

from orchestrator.config import ExperimentConfig
from orchestrator.errors import RecordError
from orchestrator.finetune.models import is_saved, load_card
from orchestrator.finetune.validation import load_thinned_validation
from orchestrator.pipeline import STAGES, Pipeline
from orchestrator.records import Report, SubsetInvestment, SubsetTransfer, Transfer

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

MakeExperiment = Callable[..., ExperimentConfig]
LABELS = ("circle", "stripe")
# Images of each label at each site, by split: training, validation, test.
SITES = {"north": (40, 24, 20), "south": (16, 12, 20), "lonely": (2, 0, 2)}


def write_images(
    folder: Path, sites: Mapping[str, Sequence[int]], *, contradicting: Collection[str], skewed: Collection[str] = ()
) -> Path:
    """Write images of two classes for each site and split; contradicting sites call each by the other's label.

    Of skewed sites every fourth image alone is of the second class.
    """
    rows = []
    for site, counts in sites.items():
        for split, count in zip(("train", "val", "test"), counts, strict=True):
            for number in range(2 * count):
                identity = f"{site}/{split}/{number}"
                shown = number % 2 if site not in skewed else int(number % 4 == 0)
                image = class_image(LABELS[shown], np.random.default_rng(zlib.crc32(identity.encode())), 32)
                label = LABELS[1 - shown if site in contradicting else shown]
                rows.append(
                    {"image": encode_image(image), "label": label, "subset": site, "id": identity, "split": split}
                )
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "images.parquet")
    return folder


@pytest.fixture(scope="module")
def contradiction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites whose labels contradict each other, image by image, and one of four training images."""
    return write_images(tmp_path_factory.mktemp("contradiction") / "data", SITES, contradicting=["south"])


def run(
    make: MakeExperiment,
    data: Path,
    mode: str | None,
    *,
    source: dict[str, object] | None = None,
    grouping: dict[str, object] | None = None,
    stages: Sequence[str] = STAGES,
    **search: object,
) -> tuple[Report, list[str]]:
    config = make(
        data={"uri": str(data), "split": {"column": "split"}},
        backbone={"name": "tests.stages.tiny_network:tiny_backbone", "kwargs": {}},
        grouping={"num_groups": 1} if grouping is None else grouping,
        finetune={"batch_size": 8},
        search={
            "num_samples": 1,
            "space": {"freeze_depth": [0], "learning_rate": [0.01], "epochs": [8]},
            **search,
        },
        evaluate={"on_negative_transfer": mode, "explanations": 0},
        **({} if source is None else {"source": source}),
    )
    lines: list[str] = []
    pipeline = Pipeline(config, say=lines.append)
    pipeline.run(stages)
    return pipeline.report(), lines


def site(transfer: Transfer | None, name: str) -> SubsetTransfer:
    assert transfer is not None
    return next(found for found in transfer.subsets if found.subset == name)


@pytest.mark.slow
def test_a_source_that_misleads_is_found_and_mended_by_fallback_and_by_regrouping_without_it(
    tiny_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    data = write_images(tmp_path / "misleading" / "target", {"site": (24, 24, 30)}, contradicting=[])
    # Five times as many images, all of the wrong label.
    wrong = write_images(tmp_path / "misleading" / "source", {"site": (120, 0, 0)}, contradicting=["site"])
    source = {"uri": str(wrong), "batch_share": 0.5, "weight": 5.0}
    directory = tmp_path / "runs" / "tiny"

    report, _ = run(tiny_experiment, data, "fallback", source=source)
    found = site(report.transfer, "site")
    assert found.verdict == "hurts" and found.action == "fallback" and found.test is not None
    arms = {arm.name: arm for arm in report.transfer.arms} if report.transfer else {}
    assert set(arms) == {"from_scratch", "head_only", "target_only"}
    assert arms["target_only"].hyperparameters == report.models[0].hyperparameters
    alone = next(other for other in found.test.others if other.name == "target_only")
    assert alone.gain_interval[1] < -0.5
    assert found.gain is not None and found.gain.test_interval is not None and found.gain.test_interval[0] > 0.5
    assert load_card(str(directory / found.model)).source is None and report.models[0].source is not None
    assert "Gain over target only" in (directory / "report.html").read_text()

    regrouped, lines = run(tiny_experiment, data, "regroup", source=source)
    assert not any("arm " in line for line in lines)
    moved, regrouping = site(regrouped.transfer, "site"), regrouped.transfer and regrouped.transfer.regrouping
    assert (moved.action, moved.taken) == ("moved", f"{moved.group}-without-source")
    assert (
        regrouping is not None and regrouping.is_kept and [move.without_source for move in regrouping.moves] == [True]
    )
    assert [model.without_source for model in regrouping.models] == [True]
    assert moved.gain is not None and moved.gain.test_interval is not None and moved.gain.test_interval[0] > 0.5
    card = load_card(str(directory / moved.model))
    assert card.source is None and card.hyperparameters == report.models[0].hyperparameters
    _, lines = run(tiny_experiment, data, "regroup", source=source)
    assert "evaluate: up to date, skipped" in lines


@pytest.mark.slow
@pytest.mark.long
def test_a_subset_that_another_group_serves_better_moves_there_and_both_groups_are_trained_again(
    tiny_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    sites = {"north": (40, 24, 20), "misfit": (6, 16, 20), "west": (40, 24, 20)}
    data = write_images(tmp_path / "data", sites, contradicting=["misfit", "west"], skewed=["west"])
    grouping = {"method": "thresholds", "measures": ["label_entropy"], "thresholds": [0.65]}

    report, _ = run(tiny_experiment, data, "regroup", grouping=grouping)
    low, high = report.groups.groups
    assert (low.subsets, high.subsets) == (["west"], ["misfit", "north"])
    assert report.transfer is not None and report.transfer.regrouping is not None
    assert [arm.name for arm in report.transfer.arms if arm.group is None] == ["pooled"]
    assert all(
        "pooled" in {other.name for other in found.test.others} for found in report.transfer.subsets if found.test
    )
    assert [(move.subset, move.destination) for move in report.transfer.regrouping.moves] == [("misfit", low.name)]
    assert report.transfer.regrouping.is_kept
    found = {name: site(report.transfer, name) for name in sites}
    assert {name: (subset.action, subset.taken) for name, subset in found.items()} == {
        "misfit": ("moved", low.name),
        "north": ("retrained", high.name),
        "west": ("retrained", low.name),
    }
    misfit = found["misfit"].gain
    assert misfit is not None and misfit.test_interval is not None and misfit.test_interval[0] > 0.2
    card = load_card(str(tmp_path / "runs" / "tiny" / found["misfit"].model))
    assert card.subsets == ["misfit", "west"] and found["misfit"].model == found["west"].model


def invested(report: Report, subset: str) -> SubsetInvestment:
    assert report.investment is not None
    subsets = [found for group in report.investment.groups for found in group.subsets]
    return next(found for found in subsets if found.subset == subset)


def spent_beside(report: Report, subset: str) -> set[str]:
    beside = invested(report, subset).beside
    assert all(spent.seconds > 0 and spent.gpu_hours is not None for spent in beside.values())
    return set(beside)


@pytest.mark.slow
def test_a_misled_subset_is_found_and_mended_by_fallback_and_by_regrouping(
    tiny_experiment: MakeExperiment, contradiction: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    directory = tmp_path / "runs" / "tiny"

    before, _ = run(tiny_experiment, contradiction, None)
    assert before.transfer is None and not (directory / "transfer.json").exists()

    reported, lines = run(tiny_experiment, contradiction, "report")
    south = site(reported.transfer, "south")
    assert south.verdict == "hurts" and south.action == "kept"
    assert site(reported.transfer, "north").verdict != "hurts"
    assert "evaluate: up to date, skipped" not in lines
    assert reported.evaluations == before.evaluations
    arms = {(arm.name, arm.subset): arm for arm in reported.transfer.arms} if reported.transfer else {}
    assert set(arms) == {
        ("from_scratch", None),
        ("head_only", None),
        ("subset_only", "north"),
        ("subset_only", "south"),
        ("subset_only", "lonely"),
    }
    scratch = arms["from_scratch", None]
    # Both train every stage on the same images.
    assert (scratch.epoch_cost, scratch.hyperparameters.epochs) == (1.0, 8)
    assert "validation images" in str(arms["subset_only", "lonely"].error)
    assert [name for name, arm in arms.items() if arm.error] == [("subset_only", "lonely")]
    lonely = site(reported.transfer, "lonely")
    assert lonely.test is not None and "subset_only" not in {other.name for other in lonely.test.others}

    fallen, lines = run(tiny_experiment, contradiction, "fallback")
    # Only what is shipped is trained again, and it answers as it did when it was chosen.
    assert len([line for line in lines if "arm " in line]) == 1
    south = site(fallen.transfer, "south")
    assert (south.action, south.taken) == ("fallback", "subset_only")
    assert south.gain is not None and south.gain.test_interval is not None and south.gain.test_interval[0] > 0.2
    assert south.validation is not None
    alone = next(other for other in south.validation.others if other.name == "subset_only")
    assert south.gain.validation_gain == pytest.approx(-alone.gain)
    card = load_card(str(directory / south.model))
    assert card.subsets == ["south"] and card.classes == list(LABELS)
    assert site(fallen.transfer, "north").model == site(fallen.transfer, "lonely").model
    assert len(list(directory.glob("groups/*/arms/**/*.safetensors"))) == 1
    page = (directory / "report.html").read_text()
    assert south.model in page and "Beside it" in page and "models that transfer is judged by" in page
    assert len(load_thinned_validation(str(directory / south.model), card)) == 2 * SITES["south"][1]
    assert spent_beside(fallen, "south") == {"arms", "retraining"} and spent_beside(fallen, "north") == {"arms"}
    # The ledger has the gain of what serves a subset in the end, as much above the first model's as that is better.
    account = invested(fallen, "south")
    assert account.gain is not None and account.first_gain is not None
    assert account.first_gain == invested(reported, "south").gain
    assert account.gain.gain - account.first_gain.gain == pytest.approx(south.gain.test_gain)
    assert invested(fallen, "north").first_gain is None

    # What transfer.json names is gone, and comes again as it was.
    (directory / south.model / "model.safetensors").unlink()
    with pytest.raises(RecordError, match=r"that transfer\.json names must be there.*orchestrator evaluate"):
        run(tiny_experiment, contradiction, "fallback", stages=["report"])
    again, lines = run(tiny_experiment, contradiction, "fallback")
    assert len([line for line in lines if "arm " in line]) == 1
    assert is_saved(str(directory / south.model), card.weights_digest)
    assert site(again.transfer, "south") == south

    moved, lines = run(tiny_experiment, contradiction, "regroup")
    assert not any("arm " in line for line in lines)
    south, north = site(moved.transfer, "south"), site(moved.transfer, "north")
    assert (south.action, south.taken, north.action) == ("moved", "only-south", "retrained")
    assert moved.transfer is not None and moved.transfer.regrouping is not None and moved.transfer.regrouping.is_kept
    assert [move.subset for move in moved.transfer.regrouping.moves] == ["south"]
    for found in (south, north):
        assert found.gain is not None and found.gain.test_interval is not None
        card = load_card(str(directory / found.model))
        assert found.subset in card.subsets
        assert (
            len(load_thinned_validation(str(directory / found.model), card, found.subset)) == 2 * SITES[found.subset][1]
        )
        assert spent_beside(moved, found.subset) == {"arms", "retraining"}
        account = invested(moved, found.subset)
        assert account.gain is not None and account.first_gain is not None
        assert account.gain.gain - account.first_gain.gain == pytest.approx(found.gain.test_gain)
    assert south.gain is not None and south.gain.test_interval is not None and south.gain.test_interval[0] > 0.2
    assert not list(directory.glob("groups/*/arms/**/*.safetensors"))

    _, lines = run(tiny_experiment, contradiction, "regroup")
    assert "evaluate: up to date, skipped" in lines
    (directory / south.model / "model.json").unlink()
    _, lines = run(tiny_experiment, contradiction, "regroup")
    assert len([line for line in lines if "trained again in" in line]) == 1
    assert is_saved(str(directory / south.model), south.weights_digest)

    # The search has spent what there was.
    kept, _ = run(tiny_experiment, contradiction, "regroup", budget={"time_budget_s": 0.001})
    assert kept.transfer is not None and kept.transfer.regrouping is not None
    assert kept.transfer.regrouping.budget_left_s == 0
    assert [move.subset for move in kept.transfer.regrouping.left_out] == ["south"]
    assert not kept.transfer.regrouping.models
    south = site(kept.transfer, "south")
    assert (south.action, south.model) == ("kept", f"groups/{south.group}/model")
    assert "did not fit" in south.reason and south.verdict == "hurts"
