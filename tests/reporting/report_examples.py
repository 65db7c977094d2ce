import math
import random
from collections.abc import Sequence
from typing import Any

from orchestrator.records import (
    BackboneRanking,
    BackboneSpec,
    Baseline,
    Calibration,
    Catalogue,
    ClassFrequency,
    ClassNeighbour,
    ClassPair,
    ClassScores,
    ConfidenceBin,
    Distances,
    EpochMetrics,
    Evaluation,
    Explanation,
    Explanations,
    FeatureSeparation,
    Group,
    GroupDistance,
    GroupDistances,
    GroupingRule,
    Groups,
    Hyperparameters,
    LabelShift,
    ModelCard,
    PooledComparison,
    Profile,
    RankedCandidate,
    Recipe,
    Report,
    SearchResult,
    ShiftScores,
    SourceDistance,
    SourceDistances,
    SourceKind,
    StageCost,
    SubsetCount,
    SubsetProfile,
    SubsetRank,
    SubsetScores,
    SubsetShift,
    Trial,
)

SITES = ("harbour", "quarry", "orchard", "mill", "station", "market", "workshop", "greenhouse")


def a_configuration(**changes: object) -> Hyperparameters:
    fields = {
        "freeze_depth": 4,
        "learning_rate": 1e-3,
        "epochs": 12,
        "batch_size": 32,
        "optimizer": "adam",
        "weight_decay": 0.0,
    }
    return Hyperparameters.model_validate({**fields, **changes})


def a_history(epochs: int, top: float) -> list[EpochMetrics]:
    return [
        EpochMetrics(
            epoch=epoch,
            train_loss=2.0 * math.exp(-0.35 * epoch),
            val_loss=0.4 + 1.5 * math.exp(-0.3 * epoch) + 0.004 * epoch,
            val_accuracy=top * (1 - math.exp(-0.4 * epoch)),
        )
        for epoch in range(1, epochs + 1)
    ]


def a_search(
    group: str, *, num_trials: int = 12, failed: Sequence[int] = (5,), metric: str = "val_accuracy"
) -> SearchResult:
    draw = random.Random(group)
    trials = []
    for number in range(num_trials):
        chosen = a_configuration(
            freeze_depth=6 if number == 0 else draw.randint(0, 6),
            learning_rate=1e-4 if number == 0 else 10 ** draw.uniform(-4, -1.5),
            epochs=draw.choice([4, 8, 12]),
        )
        value = 0.9 - 0.03 * abs(chosen.freeze_depth - 3) - 0.08 * abs(math.log10(chosen.learning_rate) + 2.7)
        is_failed = number in failed
        trials.append(
            Trial(
                trial_id=f"{group}-{number}",
                hyperparameters=chosen,
                status="failed" if is_failed else "complete",
                value=None if is_failed else value,
                history=a_history(chosen.epochs, value),
                seconds=draw.uniform(2, 15),
                error="DivergedError: the loss must be finite, got nan" if is_failed else None,
                origin="fixed_rule" if number == 0 else "sampler",
            )
        )
    return SearchResult(group=group, metric=metric, mode="max", trials=trials)


def an_evaluation(
    group: str, subsets: Sequence[str], classes: Sequence[str], *, gains: Sequence[tuple[float, float, float]]
) -> Evaluation:
    draw = random.Random(group)
    matrix = [
        [
            draw.randint(20, 40) if row == column else int(draw.random() < 2 / len(classes)) * draw.randint(1, 4)
            for column in range(len(classes))
        ]
        for row in range(len(classes))
    ]
    total = sum(map(sum, matrix))
    accuracy = sum(matrix[i][i] for i in range(len(classes))) / total
    interval = (accuracy - 0.03, accuracy + 0.028)
    scores = [
        SubsetScores(
            subset=subset,
            num_images=total // len(subsets),
            accuracy=min(1.0, accuracy + shift),
            accuracy_interval=(max(0.0, accuracy + shift - 0.08), min(1.0, accuracy + shift + 0.07)),
            balanced_accuracy=accuracy + shift - 0.01,
            macro_f1=accuracy + shift - 0.02,
            macro_auc=0.97,
            expected_calibration_error=0.08,
            expected_calibration_error_interval=(0.03, 0.11),
            cross_entropy=0.41,
            confusion_matrix=matrix,
        )
        for subset, shift in zip(subsets, [draw.uniform(-0.1, 0.06) for _ in subsets], strict=True)
    ]
    if len(scores) > 1:
        scores[-1] = SubsetScores(subset=scores[-1].subset, num_images=0, confusion_matrix=matrix)
    baselines = [
        Baseline(
            name=name,
            hyperparameters=configuration,
            accuracy=accuracy - gain,
            accuracy_interval=(accuracy - gain - 0.04, accuracy - gain + 0.04),
            seconds=30.0,
            accuracy_gain=gain,
            accuracy_gain_interval=(low, high),
        )
        for (name, configuration), (gain, low, high) in zip(
            {
                "fixed_rule": a_configuration(freeze_depth=6, learning_rate=1e-5, epochs=50),
                "head_only": a_configuration(freeze_depth=6),
                "from_scratch": a_configuration(freeze_depth=0),
            }.items(),
            gains,
            strict=False,
        )
    ]
    return Evaluation(
        group=group,
        num_images=total,
        classes=list(classes),
        accuracy=accuracy,
        accuracy_interval=interval,
        balanced_accuracy=accuracy - 0.006,
        balanced_accuracy_interval=(accuracy - 0.037, accuracy + 0.023),
        macro_precision=accuracy + 0.003,
        macro_f1=accuracy - 0.015,
        macro_f1_interval=(accuracy - 0.044, accuracy + 0.017),
        macro_auc=0.981,
        macro_auc_error=0.0,
        cross_entropy=0.37,
        expected_calibration_error=0.062,
        expected_calibration_error_interval=(0.038, 0.087),
        confusion_matrix=matrix,
        by_class=[
            ClassScores(num_images=sum(row), precision=0.9, recall=row[place] / sum(row), f1=0.88, auc=0.97)
            for place, row in enumerate(matrix)
        ],
        reliability=_bins(total, overconfidence=0.08),
        num_units=total // 4,
        calibration=Calibration(
            temperature=1.63,
            num_images=212,
            cross_entropy=0.31,
            expected_calibration_error=0.021,
            reliability=_bins(total, overconfidence=0.01),
        ),
        separation=FeatureSeparation(
            variance_within=0.213,
            variance_between=0.351,
            mean_distance=0.84,
            neighbours=[
                ClassNeighbour(label=label, nearest=classes[place - 1], distance=0.5 + 0.01 * place)
                for place, label in enumerate(classes)
            ],
        ),
        subsets=scores,
        baselines=baselines,
        predictions=f"groups/{group}/predictions.parquet",
        seconds=4.0,
    )


def a_label_shift(subsets: Sequence[str]) -> LabelShift:
    """A correction that helps, of three classes."""

    def scores(accuracy: float, loss: float) -> ShiftScores:
        return ShiftScores(
            accuracy=accuracy,
            accuracy_interval=(accuracy - 0.03, accuracy + 0.03),
            balanced_accuracy=accuracy - 0.05,
            cross_entropy=loss,
        )

    def found(subset: str | None) -> SubsetShift:
        return SubsetShift(
            subset=subset,
            num_images=300,
            num_validation=212 if subset is None else 90,
            frequencies=[
                ClassFrequency(label=label, source=source, estimated=estimated, interval=interval, true=true)
                for label, source, estimated, interval, true in (
                    ("dog", 0.3, 0.6, (0.52, 0.67), 0.62),
                    ("horse", 0.4, 0.25, (0.18, 0.33), 0.24),
                    ("fox", 0.3, 0.15, (0.1, 0.21), 0.14),
                )
            ],
            is_converged=True,
            before=scores(0.81, 0.52),
            calibrated=scores(0.815, 0.48),
            corrected=scores(0.85, 0.35),
            accuracy_gain=0.04,
            accuracy_gain_interval=(0.01, 0.07),
        )

    return LabelShift(method="em", num_validation=212, whole=found(None), subsets=[found(subset) for subset in subsets])


def _bins(num_images: int, *, overconfidence: float) -> list[ConfidenceBin]:
    places = [(place + 0.5) / 15 for place in range(5, 15)]
    return [
        ConfidenceBin(num_images=num_images // 10, confidence=place, accuracy=place - overconfidence)
        for place in places
    ]


GAINS = (
    ((0.213, 0.17, 0.256), (0.082, 0.041, 0.12), (0.121, 0.07, 0.166)),
    ((0.134, 0.09, 0.178), (0.02, -0.014, 0.052), (0.301, 0.26, 0.35)),
    ((0.004, -0.03, 0.04), (-0.061, -0.1, -0.02), (0.18, 0.12, 0.24)),
)


def a_report(*, subsets_per_group: int = 8, num_classes: int = 7, num_trials: int = 12) -> Report:
    draw = random.Random(0)
    classes = [f"class {i:03d}" if num_classes > 10 else name for i, name in enumerate(_names(num_classes))]
    groups, profiles, searches, recipes, models, evaluations = [], [], [], [], [], []
    for position, name in enumerate(("low", "medium", "high")):
        subsets = [f"{name}-{SITES[i % len(SITES)]}-{i:02d}" for i in range(subsets_per_group)]
        group_profiles = [_profile(subset, position, i / subsets_per_group, draw) for i, subset in enumerate(subsets)]
        profiles += group_profiles
        entropies = [profile.label_entropy for profile in group_profiles]
        groups.append(
            Group(
                name=name,
                subsets=subsets,
                num_images=sum(profile.num_images for profile in group_profiles),
                score_range=(min(entropies), max(entropies)),
                small_subsets=subsets[-1:] if position == 1 else [],
                stability={name: 0.72 if position == 1 and name == subsets[-1] else 0.99 for name in subsets},
            )
        )
        search = a_search(name, num_trials=num_trials, failed=(5, 7) if position == 2 else ())
        searches.append(search)
        best = max((trial for trial in search.trials if trial.value is not None), key=lambda t: t.value or 0)
        recipes.append(
            Recipe(
                group=name,
                trial_id=best.trial_id,
                metric=search.metric,
                value=best.value or 0,
                hyperparameters=best.hyperparameters,
            )
        )
        models.append(_model(name, subsets, classes, best.hyperparameters))
        evaluations.append(an_evaluation(name, subsets, classes, gains=GAINS[position]))
    names = [profile.subset for profile in profiles]
    return Report(
        fingerprint="0123456789abcdef",
        name="pacs-sites",
        catalogue=_catalogue(names, classes),
        profile=Profile(subsets=profiles, split="train", rarefied_to=60, seconds=3.0),
        groups=Groups(
            groups=groups,
            method="quantiles",
            measures=["label_entropy"],
            difference_p_value=1e-9,
            rule=GroupingRule(means=[1.0], deviations=[0.5], borders=[0.8, 1.4]),
        ),
        searches=searches,
        recipes=recipes,
        models=models,
        evaluations=evaluations,
        comparisons=[
            _comparison("fixed_rule", 0.127, (0.1, 0.151)),
            _comparison("head_only", 0.012, (-0.008, 0.031)),
            _comparison("from_scratch", 0.205, (0.18, 0.231)),
        ],
        costs=[
            StageCost(stage="catalogue", seconds=21.4, images=48_000, cpus=16, gpus=2, driver_bytes=700 * 2**20),
            StageCost(stage="profile", seconds=9.1),
            StageCost(stage="group", seconds=0.02),
            StageCost(stage="search", seconds=248.0, trials=3 * num_trials),
            StageCost(stage="train", seconds=71.0),
            StageCost(stage="evaluate", seconds=96.5),
        ],
        rankings=[a_ranking()],
        distances=Distances(num_images=60, subsets=[], between=[], sources=[a_source("pretraining")]),
        group_distances=GroupDistances(sources=[[GroupDistance(group="high", **ANOTHER)]]),
    )


ANOTHER: dict[str, Any] = {
    "distance": 0.31,
    "num_classes": 3,
    "shared_classes": 1,
    "relation": "another domain, another task",
}


def a_source(kind: SourceKind) -> SourceDistances:
    """Two subsets of another domain and task than a source of one of their classes."""
    return SourceDistances(
        kind=kind,
        uri="s3://bucket/source",
        classes=["dog"],
        features="features.safetensors",
        num_images=60,
        own_range=0.12,
        subsets=[SourceDistance(subset=subset, **ANOTHER) for subset in ("harbour", "quarry")],
    )


def some_explanations(group: str) -> Explanations:
    """Two mistakes, of which one image is gone, and a right answer."""

    def example(label: str, predicted: str, probability: float, picture: str | None) -> Explanation:
        return Explanation(
            id=f"{label}/<7>.jpg",
            subset="harbour",
            label=label,
            predicted=predicted,
            probability=probability,
            picture=picture,
            error=None if picture else "the image is truncated",
        )

    folder = f"groups/{group}/explanations/x"
    return Explanations(
        group=group,
        method="grad_cam",
        examples=[
            example("horse", "giraffe", 0.98, f"{folder}/1.png"),
            example("dog", "horse", 0.91, None),
            example("person", "person", 0.999, f"{folder}/3.png"),
        ],
    )


def a_ranking(subsets: Sequence[str] = ("harbour", "quarry")) -> BackboneRanking:
    """Two candidates: the first is as good as the second, and dearer."""
    titles = ("resnet18", "mobilenet_v2 width_mult=0.35")
    return BackboneRanking(
        chosen=titles[1],
        reason=f"{titles[0]} ranks first by LogME, and {titles[1]} takes 96% fewer FLOPs",
        num_halves=50,
        candidates=[
            RankedCandidate(
                title=title,
                parameters=11_176_512 // (1 + 27 * place),
                forward_flops=3_627_122_688 // (1 + 27 * place),
                images_per_second=31.5 * (1 + 7 * place),
                feature_dim=512,
                mean_rank=1.0 + place,
                win_share=0.75 - 0.5 * place,
                gap_interval=(-0.2, 1.0) if place else None,
                is_equal_to_first=True,
                subsets=[
                    SubsetRank(
                        subset=subset,
                        num_sampled=120,
                        rank=1.0 + place,
                        win_share=0.75 - 0.5 * place,
                        log_evidence=0.31 - 0.02 * place,
                        h_score=3.2,
                        fisher_ratio=None if place else 1.4,
                    )
                    for subset in subsets
                ],
            )
            for place, title in enumerate(titles)
        ],
    )


def _names(number: int) -> list[str]:
    pacs = ["dog", "elephant", "giraffe", "guitar", "horse", "house", "person"]
    return [pacs[i] if i < len(pacs) else f"class {i:03d}" for i in range(number)]


def _profile(subset: str, position: int, share: float, draw: random.Random) -> SubsetProfile:
    entropy = 0.5 * (position + share) + 0.1
    return SubsetProfile(
        subset=subset,
        num_images=draw.randint(60, 400),
        num_classes=2 + 2 * position,
        label_counts={"dog": 30, "horse": 30},
        label_entropy=entropy,
        normalized_label_entropy=entropy / 1.95,
        effective_classes=math.exp(entropy),
        label_entropy_interval=(entropy - 0.08, entropy + 0.09),
        imbalance_ratio=1.0 + share,
        pixel_entropy=4.2 + draw.random(),
        feature_diversity=3 + 9 * share + 4 * position,
        feature_diversity_interval=(2.5 + 8 * share + 4 * position, 3.6 + 10 * share + 4 * position),
        feature_diversity_by_order={"2": 2.4 + 7 * share, "inf": 1.6 + 2 * share},
        raw_feature_diversity=5 + 12 * share,
        h_score=0.8 + position,
        log_evidence=0.21 + 0.1 * share,
        fisher_ratio=0.4 + share,
        mean_class_distance=0.5,
        closest_classes=ClassPair(one="dog", other="horse", distance=0.21),
    )


def _model(group: str, subsets: list[str], classes: list[str], chosen: Hyperparameters) -> ModelCard:
    spec = BackboneSpec(
        name="mobilenet_v2",
        kwargs={"width_mult": 0.35},
        image_size=96,
        resize="crop",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    return ModelCard(
        group=group,
        backbone=spec,
        classes=classes,
        hyperparameters=chosen,
        weights_digest="aa" * 8,
        pretrained_digest="bb" * 8,
        data_fingerprint="cc" * 8,
        subsets=subsets,
        best_epoch=max(1, chosen.epochs - 2),
        history=a_history(chosen.epochs, 0.88),
        seconds=23.4,
        num_workers=2,
    )


def _catalogue(subsets: list[str], classes: list[str]) -> Catalogue:
    counts = [
        SubsetCount(subset=name, train=180 + i, val=40, test=41, quarantined=i % 3) for i, name in enumerate(subsets)
    ]
    quarantined = sum(found.quarantined for found in counts)
    return Catalogue(
        table="catalogue.parquet",
        quarantine="quarantine.parquet",
        pixels="pixels",
        image_size=96,
        num_images=sum(found.train + found.val + found.test for found in counts),
        num_quarantined=quarantined,
        num_cached=0,
        quarantine_reasons={"the image cannot be decoded": quarantined - 2, "the label is missing": 2},
        labels=classes,
        subsets=counts,
        data_fingerprint="cc" * 8,
        seconds=21.4,
    )


def _comparison(baseline: str, gain: float, interval: tuple[float, float]) -> PooledComparison:
    return PooledComparison(
        baseline=baseline,
        num_images=1284,
        accuracy=0.83,
        baseline_accuracy=0.83 - gain,
        accuracy_gain=gain,
        accuracy_gain_interval=interval,
    )
