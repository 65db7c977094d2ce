"""Where each strategy is the right one: a task that is made for it, on the mean over three seeds."""

from __future__ import annotations

import numpy as np
from effect_examples import (
    HEAD_ONLY,
    LABELS,
    SEEDS,
    accuracy,
    held_out,
    in_turn,
    loss,
    losses_after_a_shift,
    mean_over_seeds,
    pictures,
    source_model,
    tuned,
    tuned_on_a_shift,
)
from finetune_examples import ArraySamples

from orchestrator.finetune.classifier import Classifier, new_classifier

OTHER_WAVES = ("noise", "blob", "ring", "bar")


def new_task(seed: int) -> Classifier:
    """Put a new head on what has learnt the source."""
    return new_classifier(source_model(seed).backbone, len(LABELS), seed=seed + 50)


def renamed(samples: ArraySamples) -> ArraySamples:
    return ArraySamples(samples.pixels, np.array([2, 0, 3, 1])[samples.labels])


def errors_under_other_names(seed: int, freeze_depth: int) -> float:
    """Give the error rate on the source's pictures under other names, learnt from one noisy picture of each."""
    train, validation = (
        renamed(found) for found in (pictures(in_turn(4), seed=seed, noise=150.0), held_out(seed, noise=150.0))
    )
    how = {"freeze_depth": freeze_depth, "batch_norm": "frozen"}
    return 1 - accuracy(tuned(new_task(seed), train, validation, seed=seed, **how)[0], validation)


def test_where_the_features_know_the_classes_the_head_alone_errs_least() -> None:
    head, whole = (mean_over_seeds(errors_under_other_names, depth) for depth in (HEAD_ONLY, 0))
    assert head < 0.05
    assert head < 0.5 * whole


def loss_on_other_waves(seed: int, freeze_depth: int) -> float:
    """Give the loss on classes that the source did not have, learnt from few noisy pictures."""
    train = pictures(in_turn(24), seed=seed, noise=180.0, labels=OTHER_WAVES)
    validation = held_out(seed, noise=180.0, labels=OTHER_WAVES)
    how = {"freeze_depth": freeze_depth, "learning_rate": 2e-2, "batch_norm": "frozen"}
    return loss(tuned(new_task(seed), train, validation, seed=seed, **how)[0], validation)


def test_where_early_features_serve_new_classes_freezing_to_a_depth_beats_head_only_and_full() -> None:
    # Yosinski et al., 2014: early features are general, late ones specific.
    late, head, whole = (mean_over_seeds(loss_on_other_waves, depth) for depth in (2, HEAD_ONLY, 0))
    assert late < 0.85 * whole
    assert late < 0.85 * head


def loss_under_another_tint(seed: int, **changes: object) -> float:
    return losses_after_a_shift(seed, **changes)[1]


def loss_frozen_to(seed: int, freeze_depth: int) -> float:
    return loss_under_another_tint(seed, freeze_depth=freeze_depth)


def test_where_the_pixels_have_changed_early_stages_must_be_trained_too() -> None:
    # Lee et al., 2023: what has changed at the input is mended at the input.
    whole, late, head = (mean_over_seeds(loss_frozen_to, depth) for depth in (0, 2, HEAD_ONLY))
    assert whole < 0.5 * late < 0.5 * head
    assert whole < 0.2 * head


def test_stages_that_are_freed_one_after_the_other_learn_a_shifted_target_and_forget_less_of_the_source() -> None:
    # Howard and Ruder, 2018.
    before = np.mean([loss(source_model(seed), held_out(seed, tint=60.0)) for seed in SEEDS])
    at_once, in_order = (
        np.mean([losses_after_a_shift(seed, **how) for seed in SEEDS], axis=0)
        for how in ({}, {"strategy": "gradual", "unfreeze_every": 3})
    )
    assert in_order[0] < 0.6 * at_once[0]
    assert in_order[1] < 0.2 * before


def moved_early(seed: int, layer_decay: float) -> float:
    """Give how far tuning on a shift moves the first stage, in relation to how far it moves the last one."""
    start, classifier = source_model(seed), tuned_on_a_shift(seed, layer_decay=layer_decay)
    distances = [
        sum(float((one - other).square().sum()) for one, other in zip(*pair, strict=True)) ** 0.5
        for pair in (
            [[tensor.detach() for tensor in model.backbone.stages[stage].parameters()] for model in (start, classifier)]
            for stage in (0, -1)
        )
    ]
    return distances[0] / distances[1]


def test_rates_that_decay_towards_the_input_keep_early_stages_and_forget_less_of_the_source() -> None:
    # Howard and Ruder, 2018: discriminative fine-tuning.
    before = np.mean([loss(source_model(seed), held_out(seed, tint=60.0)) for seed in SEEDS])
    equal, decayed = (
        np.mean([losses_after_a_shift(seed, layer_decay=decay) for seed in SEEDS], axis=0) for decay in (1.0, 0.5)
    )
    assert decayed[0] < 0.7 * equal[0]
    assert decayed[1] < 0.2 * before
    assert mean_over_seeds(moved_early, 0.5) < 0.4 * mean_over_seeds(moved_early, 1.0)


def loss_by_strategy(seed: int, strategy: str) -> float:
    return loss_under_another_tint(seed, strategy=strategy)


def test_features_that_are_tuned_for_a_fitted_head_learn_what_the_head_cannot() -> None:
    tuned_features, head = mean_over_seeds(loss_by_strategy, "feature_only"), mean_over_seeds(loss_frozen_to, HEAD_ONLY)
    assert tuned_features < 0.2 * head


def loss_of_a_poor_head(seed: int, strategy: str) -> float:
    """Give the loss under other names where the head is fitted for an epoch, and features are bound to their start."""
    train, validation = (renamed(found) for found in (pictures(in_turn(48), seed=seed), held_out(seed)))
    bound = {"regularizer": "l2_sp", "regularizer_weight": 10.0, "regularizer_scope": "backbone"}
    how = {"epochs": 10, "head_share": 0.1, "batch_norm": "frozen", "strategy": strategy, **bound}
    return loss(tuned(new_task(seed), train, validation, seed=seed, **how)[0], validation)


def test_training_all_after_the_features_mends_a_head_that_features_could_not_serve() -> None:
    both = mean_over_seeds(loss_of_a_poor_head, "feature_then_network")
    assert both < 0.7 * mean_over_seeds(loss_of_a_poor_head, "feature_only")
