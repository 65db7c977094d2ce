"""The ledger of a run, made from records alone: no cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from tiny_experiments import experiment_dict

from orchestrator.config import ExperimentConfig
from orchestrator.evaluation.answered_images import AnsweredImages, add_up_by_subset
from orchestrator.evaluation.answers import pack
from orchestrator.evaluation.gains import answers_of_shipped
from orchestrator.evaluation.intervals import paired_gain
from orchestrator.experiment_file import validate_experiment
from orchestrator.records import (
    Arm,
    ArmName,
    BackboneSpec,
    Baseline,
    Catalogue,
    Evaluation,
    Group,
    GroupingRule,
    GroupInvestment,
    Groups,
    Hyperparameters,
    ModelCard,
    PretrainedBackbone,
    Pretraining,
    Profile,
    RaceRun,
    RegroupedModel,
    Regrouping,
    Report,
    SearchCosts,
    SearchResult,
    StageCost,
    SubsetCount,
    SubsetEvaluation,
    SubsetResult,
    SubsetTransfer,
    Transfer,
    Trial,
)
from orchestrator.search.prospects import chance_of_gain
from orchestrator.stages.investment import SubsetGains, account, find_prospect, gains_of_subsets
from orchestrator.stages.shipped import shipped_answers

RECIPE = Hyperparameters(freeze_depth=3, learning_rate=1e-3, epochs=2)
PRICES = {"cost_per_hour": {"CPU": 0.5, "GPU": 2.0}}
HALF_A_GPU = {"CPU": 1.0, "GPU": 0.5}
SUBSETS = {"low": ("plain", "even"), "high": ("rich",)}
IMAGES = {"plain": (30, 10, 20), "even": (90, 20, 30), "rich": (40, 20, 40)}


def a_config(**cluster: Any) -> ExperimentConfig:
    return validate_experiment(experiment_dict("/data", "/runs", cluster=cluster))


def a_trial(number: int, value: float | None, *, started: float = 0.0, seconds: float = 20.0) -> Trial:
    return Trial(
        trial_id=f"low-{number}",
        hyperparameters=RECIPE,
        status="failed" if value is None else "complete",
        value=value,
        history=[],
        seconds=seconds,
        started=started,
    )


def a_search(group: str, held: dict[str, float]) -> SearchResult:
    race = RaceRun(group=group, recipe="r", hyperparameters=RECIPE, resplit=0, value=0.8, seconds=36.0)
    trials = [a_trial(number, value) for number, value in enumerate((0.6, None, 0.7, 0.8, 0.75))]
    return SearchResult(
        group=group, metric="val_accuracy", mode="max", trials=trials, race=[race], trial_resources=held
    )


def a_model(group: str) -> ModelCard:
    spec = BackboneSpec(name="x", image_size=32, resize="crop", mean=(0, 0, 0), std=(1, 1, 1))
    return ModelCard(
        group=group,
        backbone=spec,
        classes=["a", "b"],
        hyperparameters=RECIPE,
        weights_digest="",
        pretrained_digest="",
        data_fingerprint="",
        subsets=list(SUBSETS[group]),
        best_epoch=1,
        history=[],
        seconds=90.0,
        num_workers=2,
        worker_resources={"CPU": 2.0, "GPU": 1.0},
    )


def an_evaluation(group: str, gain: tuple[float, float, float] = (0.1, 0.05, 0.15)) -> Evaluation:
    def arm(name: str, seconds: float) -> Baseline:
        return Baseline.model_validate(
            {
                "name": name,
                "hyperparameters": RECIPE,
                "accuracy": 0.7,
                "accuracy_interval": (0.6, 0.8),
                "seconds": seconds,
                "accuracy_gain": gain[0],
                "accuracy_gain_interval": gain[1:],
                "resources": HALF_A_GPU,
            }
        )

    return Evaluation(
        group=group,
        classes=["a", "b"],
        num_images=50,
        accuracy=0.8,
        confusion_matrix=[],
        subsets=[],
        baselines=[arm("fixed_rule", 72.0), arm("head_only", 18.0)],
        num_units=50,
        calibration=None,
        separation=None,
        predictions="",
        seconds=1.0,
    )


def a_report(*, held: dict[str, float] = HALF_A_GPU, gain: tuple[float, float, float] = (0.1, 0.05, 0.15)) -> Report:
    counts = [
        SubsetCount(subset=name, train=train, val=val, test=test, quarantined=0)
        for name, (train, val, test) in IMAGES.items()
    ]
    return Report(
        name="test",
        catalogue=Catalogue(
            table="",
            quarantine="",
            pixels=None,
            image_size=32,
            num_images=300,
            num_quarantined=0,
            num_cached=300,
            quarantine_reasons={},
            labels=["a", "b"],
            subsets=counts,
            data_fingerprint="",
            seconds=1.0,
        ),
        profile=Profile(subsets=[], split="train"),
        groups=Groups(
            groups=[
                Group(name=name, subsets=list(subsets), num_images=1, score_range=(0, 1))
                for name, subsets in SUBSETS.items()
            ],
            method="quantiles",
            measures=["label_entropy"],
            rule=GroupingRule(means=[0.0], deviations=[1.0]),
        ),
        searches=[a_search(group, held) for group in SUBSETS],
        recipes=[],
        models=[a_model(group) for group in SUBSETS],
        evaluations=[an_evaluation(group, gain) for group in SUBSETS],
        comparisons=[],
        costs=[
            StageCost(stage="catalogue", seconds=30.0, cpus=4, gpus=2),
            StageCost(stage="search", seconds=400.0, cpus=4, gpus=2),
        ],
        search_costs=SearchCosts(build_seconds=12.0, probe_seconds=6.0),
    )


def low(
    report: Report,
    gains: dict[str, SubsetGains] | None = None,
    shipped: dict[str, SubsetGains] | None = None,
    **cluster: Any,
) -> GroupInvestment:
    found = account(report, gains or {}, a_config(**cluster), shipped=shipped or {})
    assert [group.group for group in found.groups] == ["low", "high"]
    return found.groups[0]


def test_each_part_is_charged_with_what_it_held_for_as_long_as_it_ran() -> None:
    parts = low(a_report(), **PRICES).parts
    seconds = {part: spending.seconds for part, spending in parts.items()}
    # Failed trials cost as well; workers side by side add up; of 300 images the group has 200.
    shared_s = (30 + 12 + 6) * 200 / 300
    assert seconds == pytest.approx({"shared": shared_s, "search": 100, "race": 36, "training": 180, "baselines": 90})
    hours = {part: spending.gpu_hours for part, spending in parts.items()}
    # Networks run on both GPUs only while activations are kept, not while images are catalogued.
    shared_hours = 18 * 2 / 3600 * 200 / 300
    expected = {
        "shared": shared_hours,
        "search": 50 / 3600,
        "race": 18 / 3600,
        "training": 0.05,
        "baselines": 45 / 3600,
    }
    assert hours == pytest.approx(expected)
    assert parts["search"].money == pytest.approx((100 * 0.5 + 50 * 2) / 3600)
    assert parts["training"].money == pytest.approx((360 * 0.5 + 180 * 2) / 3600)
    assert parts["shared"].money == pytest.approx((48 * 4 * 0.5 + 18 * 2 * 2) / 3600 * 200 / 300)


def test_a_stage_whose_record_knows_of_more_seconds_than_its_sessions_is_charged_with_those() -> None:
    # A session that was killed outright has not told what it cost; the record of its training has gone on counting.
    pretraining = Pretraining(
        data_uri="/source",
        data_fingerprint="",
        num_images=10,
        classes=["a"],
        phases=[],
        features=None,
        trained_in="/runs",
        seconds=97.4,
    )
    backbone = PretrainedBackbone(
        spec=a_model("low").backbone,
        source="pretrain",
        weights="",
        digest="",
        num_stages=1,
        feature_dim=1,
        pretraining=pretraining,
    )
    report = a_report()
    costs = [StageCost(stage="pretrain", seconds=62.3, cpus=4, gpus=2), *report.costs]
    report = report.model_copy(update={"costs": costs, "backbone": backbone})
    sections = {"backbone": {"weights": "pretrain"}, "pretrain": {"data": {"uri": "/source"}}}
    config = validate_experiment(experiment_dict("/data", "/runs", cluster=PRICES, **sections))
    before, found = low(a_report(), **PRICES), account(report, {}, config, shipped={}).groups[0]
    charged = found.parts["shared"].seconds - before.parts["shared"].seconds
    assert charged == pytest.approx(97.4 * 200 / 300)
    # Weights from elsewhere were paid for there.
    elsewhere = account(report, {}, a_config(**PRICES), shipped={}).groups[0]
    assert elsewhere.parts["shared"].seconds - before.parts["shared"].seconds == pytest.approx(62.3 * 200 / 300)


def test_the_models_cost_is_all_but_the_baselines() -> None:
    found = low(a_report(), **PRICES)
    own = [spending for part, spending in found.parts.items() if part != "baselines"]
    assert found.spent.seconds == pytest.approx(sum(spending.seconds for spending in own))
    assert found.spent.money == pytest.approx(sum(spending.money or 0.0 for spending in own))


def test_a_point_gained_costs_what_was_spent_beyond_the_cheapest_baseline() -> None:
    found = low(a_report(), **PRICES)
    assert found.gain is not None and found.gain.baseline == "head_only"
    assert (found.gain.gain, found.gain.interval, found.gain.num_images) == (0.1, (0.05, 0.15), 50)
    assert found.gain.extra_seconds == pytest.approx(found.spent.seconds - 18)
    assert found.gain.seconds_per_point == pytest.approx((found.spent.seconds - 18) / 10)
    assert found.spent.money is not None
    assert found.gain.money_per_point == pytest.approx((found.spent.money - (18 * 0.5 + 9 * 2) / 3600) / 10)


def test_a_gain_whose_interval_holds_nothing_has_no_price() -> None:
    gain = low(a_report(gain=(0.02, -0.01, 0.05)), **PRICES).gain
    assert gain is not None and gain.seconds_per_point is None and gain.money_per_point is None


def test_money_is_left_out_without_prices_and_hours_where_nobody_kept_what_was_held() -> None:
    assert low(a_report()).spent.money is None
    unknown = low(a_report(held={}), **PRICES)
    assert unknown.parts["search"].gpu_hours is None and unknown.parts["search"].money is None
    assert unknown.spent.gpu_hours is None and unknown.spent.money is None
    assert unknown.spent.seconds == low(a_report()).spent.seconds


ROWS = {"plain": slice(0, 20), "even": slice(20, 50)}


def answered() -> AnsweredImages:
    """Give what a group's first model and its cheapest baseline get right of 50 test images."""
    rng = np.random.default_rng(0)
    right, baseline = rng.random(50) < 0.9, rng.random(50) < 0.5
    columns = [[str(number) for number in range(50)], ["plain"] * 20 + ["even"] * 30, [""] * 50]
    ids, subsets, together = (pa.chunked_array([column]) for column in columns)
    return AnsweredImages(ids=ids, subsets=subsets, together=together, correct=right, baselines={"head_only": baseline})


def gaining(report: Report) -> GroupInvestment:
    """Account for the group `low` with what its subsets gain on those images."""
    images, evaluate = answered(), a_config().evaluate
    evaluation = next(found for found in report.evaluations if found.group == "low")
    gains = gains_of_subsets(evaluation, add_up_by_subset([images]), evaluate, 0)
    of_shipped = answers_of_shipped([images], "head_only", shipped_answers(report))
    return low(report, {"low": gains}, {"low": gains_of_subsets(evaluation, of_shipped, evaluate, 0)}, **PRICES)


def test_subsets_share_the_groups_cost_by_their_training_images_and_have_gains_of_their_own() -> None:
    images, found, evaluate = answered(), gaining(a_report()), a_config().evaluate
    right, baseline = images.correct, images.baselines["head_only"]
    plain, even = found.subsets
    assert (plain.share, even.share) == (0.25, 0.75)
    assert plain.spent.seconds + even.spent.seconds == pytest.approx(found.spent.seconds)
    samples = evaluate.bootstrap_samples
    for subset in (plain, even):
        own = ROWS[subset.subset]
        assert subset.gain is not None and subset.gain.num_images == own.stop - own.start
        assert (subset.gain.gain, subset.gain.interval) == paired_gain(right[own], baseline[own], samples, 0)
        assert subset.gain.extra_seconds == pytest.approx(subset.share * (found.spent.seconds - 18))
        assert subset.first_gain is None


def test_a_subset_gains_what_the_model_gains_that_serves_it_in_the_end_at_all_that_it_cost() -> None:
    images = answered()
    right, baseline = images.correct, images.baselines["head_only"]
    better = np.ones(30, dtype=bool)
    kept = a_verdict("plain", "low")
    fallen = a_verdict("even", "low", "subset_only").model_copy(update={"test_answers": pack(better)})
    arms = [an_arm("subset_only", "low", "even", 6.0, again=4.0), an_arm("from_scratch", "low", None, 40.0)]
    transfer = Transfer(mode="fallback", arms=arms, subsets=[kept, fallen])
    before = gaining(a_report())
    found = gaining(a_report().model_copy(update={"transfer": transfer}))
    plain, even = found.subsets
    assert (plain.gain, plain.first_gain) == (before.subsets[0].gain, None)
    samples = a_config().evaluate.bootstrap_samples
    assert even.gain is not None and even.gain.num_images == 30
    assert (even.gain.gain, even.gain.interval) == paired_gain(better, baseline[20:], samples, 0)
    assert even.first_gain == before.subsets[1].gain and even.first_gain is not None
    assert even.first_gain.gain == pytest.approx(right[20:].mean() - baseline[20:].mean())
    # Its share of the group's cost beyond the baseline's, its share of the arms, and the training again.
    assert even.gain.extra_seconds == pytest.approx(0.75 * (found.spent.seconds - 18) + 6 + 4 + 0.75 * 40)
    assert even.gain.extra_money is not None and even.first_gain.extra_money is not None
    assert even.gain.extra_money > even.first_gain.extra_money
    # The group's account is that of its first model.
    assert (found.spent, found.gain) == (before.spent, before.gain)


def test_a_subset_with_a_model_of_its_own_gains_what_that_does() -> None:
    baseline = answered().baselines["head_only"]
    report = with_models_of_subsets(a_report(), plain=np.ones(20, dtype=bool))
    plain, even = gaining(report).subsets
    assert plain.gain is not None and plain.first_gain is not None
    assert plain.gain.gain == pytest.approx(1 - baseline[:20].mean())
    assert plain.gain.extra_seconds == pytest.approx(plain.first_gain.extra_seconds + 80)
    assert even.first_gain is None


def test_verdicts_that_are_but_reported_do_not_make_a_model_of_a_subset_dearer() -> None:
    report = with_models_of_subsets(a_report(), plain=np.ones(20, dtype=bool))
    arms = [an_arm("from_scratch", "low", None, 400.0)]
    verdicts = [a_verdict(name, "low") for name in ("plain", "even")]
    reported = report.model_copy(update={"transfer": Transfer(mode="report", arms=arms, subsets=verdicts)})
    alone, beside = (gaining(found).subsets[0] for found in (report, reported))
    assert beside.beside["arms"].seconds > 0
    assert alone.gain is not None and beside.gain is not None
    assert beside.gain.extra_seconds == alone.gain.extra_seconds


def test_without_a_baseline_nothing_is_gained_by_another_model_either() -> None:
    report = with_models_of_subsets(a_report(), plain=np.ones(20, dtype=bool))
    bare = [found.model_copy(update={"baselines": []}) for found in report.evaluations]
    plain, _ = gaining(report.model_copy(update={"evaluations": bare})).subsets
    assert (plain.gain, plain.first_gain) == (None, None)


def with_models_of_subsets(report: Report, plain: NDArray[np.bool_] | None = None) -> Report:
    results = [
        SubsetResult(
            subset="plain",
            model="m",
            seconds=40.0,
            num_workers=2,
            worker_resources={"CPU": 1.0, "GPU": 0.5},
            test_answers=None if plain is None else pack(plain),
        ),
        SubsetResult(subset="even", model=None, reason="it has few images"),
    ]
    return report.model_copy(update={"subset_evaluations": [SubsetEvaluation(group="low", subsets=results)]})


def an_arm(name: ArmName, group: str | None, subset: str | None, seconds: float, again: float = 0.0) -> Arm:
    return Arm(
        group=group,
        subset=subset,
        name=name,
        hyperparameters=RECIPE,
        seconds=seconds,
        seconds_again=again,
        resources=HALF_A_GPU,
    )


def a_verdict(subset: str, group: str, taken: ArmName | None = None) -> SubsetTransfer:
    return SubsetTransfer(
        subset=subset,
        group=group,
        verdict=None,
        test=None,
        validation=None,
        action="kept" if taken is None else "fallback",
        taken=taken,
        reason="",
        model="",
    )


def test_models_of_single_subsets_are_charged_to_them_and_to_their_group() -> None:
    before, found = low(a_report(), **PRICES), low(with_models_of_subsets(a_report()), **PRICES)
    plain, even = found.subsets
    assert plain.beside["subset_models"].seconds == 80
    assert plain.beside["subset_models"].gpu_hours == pytest.approx(40 / 3600)
    assert plain.beside["subset_models"].money == pytest.approx((80 * 0.5 + 40 * 2) / 3600)
    assert even.beside == {} and found.beside == plain.beside
    # What the group's first model cost and gained is the group's account.
    assert (found.spent, found.gain, found.parts) == (before.spent, before.gain, before.parts)


def test_arms_are_charged_to_the_subsets_that_they_are_for_and_fallbacks_to_those_that_took_them() -> None:
    transfer = Transfer(
        mode="fallback",
        arms=[
            an_arm("from_scratch", "low", None, 40.0, again=10.0),
            an_arm("subset_only", "low", "even", 6.0),
            an_arm("pooled", None, None, 160.0),
            an_arm("head_only", "high", None, 0.0),
        ],
        subsets=[a_verdict("plain", "low"), a_verdict("even", "low", "from_scratch"), a_verdict("rich", "high")],
    )
    found = account(a_report().model_copy(update={"transfer": transfer}), {}, a_config(**PRICES), shipped={})
    spent = {
        subset.subset: {part: spending.seconds for part, spending in subset.beside.items()}
        for group in found.groups
        for subset in group.subsets
    }
    # Of 160 training images plain has 30, even 90 and rich 40.
    assert spent == {
        "plain": {"arms": pytest.approx(40 / 4 + 30)},
        "even": {"arms": pytest.approx(40 * 3 / 4 + 6 + 90), "retraining": pytest.approx(10)},
        "rich": {"arms": pytest.approx(40)},
    }
    assert found.groups[0].beside["arms"].gpu_hours == pytest.approx((40 + 6 + 120) / 2 / 3600)


def test_groups_that_were_trained_again_are_charged_even_if_that_was_undone() -> None:
    model = RegroupedModel(
        group="high",
        subsets=["plain", "rich"],
        recipe_of="high",
        predicted_s=1.0,
        seconds=35.0,
        num_workers=2,
        worker_resources={"CPU": 1.0},
        model="regrouped/high/model",
    )
    regrouping = Regrouping(
        moves=[], left_out=[], models=[model], budget_left_s=None, gains=[], is_kept=False, reason="undone"
    )
    report = a_report().model_copy(
        update={"transfer": Transfer(mode="regroup", arms=[], subsets=[], regrouping=regrouping)}
    )
    found = account(report, {}, a_config(**PRICES), shipped={})
    assert found.groups[0].beside["retraining"].seconds == pytest.approx(70 * 30 / 70)
    assert found.groups[1].subsets[0].beside["retraining"].money == pytest.approx(40 * 0.5 / 3600)


def test_what_nobody_kept_of_an_older_arm_is_not_known() -> None:
    arm = an_arm("head_only", "low", None, 20.0).model_copy(update={"resources": {}})
    report = a_report().model_copy(update={"transfer": Transfer(mode="report", arms=[arm], subsets=[])})
    spent = low(report, **PRICES).beside["arms"]
    assert (spent.seconds, spent.gpu_hours, spent.money) == (20.0, None, None)


def test_a_subset_without_test_images_has_costs_and_no_gain() -> None:
    assert all(subset.gain is None and subset.spent.seconds > 0 for subset in low(a_report()).subsets)


def test_the_prospect_goes_by_the_order_in_which_trials_ended() -> None:
    values = [0.5, 0.55, 0.6, 0.62, 0.7, 0.72]
    # The numbers of the trials run against their ends; one failed.
    trials = [a_trial(9 - place, value, started=100.0 * place) for place, value in enumerate(values)]
    search = SearchResult(
        group="low", metric="val_accuracy", mode="max", trials=[*trials[::-1], a_trial(0, None, started=50.0)]
    )
    found = find_prospect(search, num_judged=200, folds=1)
    assert found is not None and found.num_trials == 6 and found.seconds == 140
    assert found.chance == chance_of_gain(values, further=6, least_gain=found.least_gain)
    assert found.chance_of_next == chance_of_gain(values, further=1, least_gain=found.least_gain)
    assert found.chance_of_next < found.chance


def test_losses_that_fall_promise_what_accuracies_that_rise_do() -> None:
    losses = [0.9, 0.8, 0.75, 0.6, 0.55]
    trials = [a_trial(place, value, started=100.0 * place) for place, value in enumerate(losses)]
    search = SearchResult(group="low", metric="val_loss", mode="min", trials=trials)
    found = find_prospect(search, num_judged=200, folds=1)
    assert found is not None and 0 < found.least_gain < 0.1
    assert found.chance == chance_of_gain([-loss for loss in losses], further=5, least_gain=found.least_gain)


def test_more_images_to_judge_by_make_smaller_gains_count() -> None:
    search = a_search("low", {})
    few, many = (find_prospect(search, num_judged=number, folds=1) for number in (50, 5000))
    assert few is not None and many is not None
    assert many.least_gain < few.least_gain and many.chance > few.chance


def test_too_few_trials_have_no_prospect() -> None:
    short = a_search("low", {}).model_copy(update={"trials": [a_trial(0, 0.7), a_trial(1, None)]})
    assert find_prospect(short, num_judged=100, folds=1) is None
    failed = short.model_copy(update={"trials": [a_trial(0, None)]})
    assert find_prospect(failed, num_judged=100, folds=1) is None


def test_the_ledger_survives_writing() -> None:
    found = account(a_report(), {}, a_config(**PRICES), shipped={})
    assert type(found).from_json(found.to_json(), source="test") == found
    assert found.cost_per_hour == {"CPU": 0.5, "GPU": 2.0}
