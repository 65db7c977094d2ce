"""Every method of fine-tuning, through the loop: what it trains, what it holds, and that a resumed one is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import combinations, product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from finetune_examples import LABELS, a_spec, some_hyperparameters, some_samples, some_settings
from torch import Tensor, nn

from orchestrator.config.finetune import RegularizerName, StrategyName
from orchestrator.errors import TrainingError
from orchestrator.finetune.backbones import Backbone, create_backbone
from orchestrator.finetune.checkpoints import TrainingState, load_state, save_state
from orchestrator.finetune.classifier import Classifier, new_classifier
from orchestrator.finetune.freezing import freeze
from orchestrator.finetune.loop import FineTuneResult, fine_tune
from orchestrator.finetune.randomness import seeded
from orchestrator.finetune.regularization import penalty, start_of

Maker = Callable[..., Classifier]
FAMILIES = (
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
    "regnet_y_400mf",
    "vit_b_32",
    "swin_t",
)
LOSSES: dict[str, dict[str, object]] = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "self-smoothed": {"label_smoothing": 0.1, "smoothing_target": "model"},
    "weighted": {"class_weights": "balanced"},
    "focal": {"loss": "focal"},
}
CHANGES: list[dict[str, object]] = [
    {"ema_decay": 0.5, "schedule": "cosine", "warmup": 0.2},
    {"accumulate": 2, "clip_norm": 0.1, "optimizer": "sgd", "nesterov": True, "schedule": "one_cycle"},
    {"mixing": "mixup", "label_smoothing": 0.1},
    {"mixing": "cutmix", "adversarial": 0.02, "loss": "focal"},
    {"balanced": True, "layer_decay": 0.5, "regularizer": "l2_sp", "regularizer_scope": "both"},
]


def run(
    classifier: Classifier,
    *,
    resume: TrainingState | None = None,
    batch_norm: str = "frozen",
    metric: str = "val_accuracy",
    **changes: object,
) -> tuple[FineTuneResult, list[TrainingState]]:
    states: list[TrainingState] = []
    result = fine_tune(
        classifier,
        a_spec(),
        some_samples(21, noisy_labels=True),
        some_samples(12, seed=1),
        some_hyperparameters(**changes),
        some_settings(batch_norm=batch_norm, metric=metric),
        on_epoch=lambda end: states.append(end.state),
        resume=resume,
    )
    return result, states


def flat(parameters: Iterable[Tensor]) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def pairwise(*factors: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Give rows in which every pair of values of two factors occurs, each the one that adds most pairs."""
    missing = {
        (one, a, other, b)
        for one, other in combinations(range(len(factors)), 2)
        for a, b in product(factors[one], factors[other])
    }

    def pairs(row: tuple[str, ...]) -> set[tuple[int, str, int, str]]:
        return {(one, row[one], other, row[other]) for one, other in combinations(range(len(row)), 2)}

    rows = list(product(*factors))
    while missing:
        best = max(rows, key=lambda row: len(pairs(row) & missing))
        missing -= pairs(best)
        yield best


COVERING = list(pairwise(FAMILIES, get_args(StrategyName), get_args(RegularizerName), tuple(LOSSES)))


@lru_cache(maxsize=1)
def family(name: str) -> Backbone:
    with seeded(0):
        return create_backbone(name, {}, 32)


@pytest.mark.parametrize(("name", "strategy", "regularizer", "loss"), sorted(COVERING))
def test_every_pair_of_methods_trains_what_it_frees_and_nothing_else(
    name: str, strategy: str, regularizer: str, loss: str
) -> None:
    classifier = new_classifier(family(name), len(LABELS), seed=0)
    depth = classifier.backbone.num_stages - 1
    before = {key: tensor.clone() for key, tensor in classifier.state_dict().items()}
    states: list[TrainingState] = []
    result = fine_tune(
        classifier,
        a_spec(name, image_size=32),
        some_samples(4, image_size=32),
        some_samples(3, image_size=32, seed=1),
        some_hyperparameters(
            freeze_depth=depth,
            batch_size=4,
            epochs=3,
            strategy=strategy,
            regularizer=regularizer,
            regularizer_scope="both",
            **LOSSES[loss],
        ),
        some_settings(batch_norm="frozen", metric="val_loss"),
        on_epoch=lambda end: states.append(end.state),
        source=family(name),
    )
    assert len(result.history) == 3
    frozen = tuple(f"backbone.stages.{stage}." for stage in range(depth))
    for key, tensor in classifier.state_dict().items():
        is_statistic = "running_" in key or "num_batches" in key
        if key.startswith(frozen) or is_statistic:
            assert torch.equal(tensor, before[key])
    assert not torch.equal(classifier.head.weight, before["head.weight"])
    # The epoch that is kept may be one that trained the head alone.
    freed = {f"0.{key}": f"backbone.stages.{depth}.{key}" for key, _ in family(name).stages[depth].named_parameters()}
    start = {key: before[found] for key, found in {**freed, "1.weight": "head.weight", "1.bias": "head.bias"}.items()}
    last = {key: states[-1].suffix[key] for key in start}
    # Untrained, EfficientNet lets so little through that filters have no gradient to speak of.
    assert any(not torch.equal(last[key], start[key]) for key in freed)
    assert name == "efficientnet_b0" or not any(torch.equal(last[key], start[key]) for key in start)
    assert_slope_by_hand(regularizer, last, start)


def slope_by_hand(regularizer: str, weight: Tensor, start: Tensor, count: int) -> Tensor:
    """Give the gradient of a penalty over `count` layers for one of them, from the derivative of its formula."""
    theta, origin = (tensor.reshape(len(tensor), -1) for tensor in (weight, start))
    match regularizer:
        case "l2":
            slope = theta
        case "l1":
            slope = theta.sign()
        case "l2_sp":
            slope = theta - origin
        case "euclidean":
            length = (theta - origin).norm()
            slope = (theta - origin) / length / count if length > 0 else torch.zeros_like(theta)
        case "cosine":
            product, length = (theta * origin).sum(), theta.norm() * origin.norm()
            slope = (product * theta / theta.norm() ** 2 - origin) / length / count
        case "orthogonal":
            # In the order that takes the least time.
            slope = 2 * torch.linalg.multi_dot([origin, origin.T, theta]) / count
    return slope.reshape(weight.shape)


def layers_of(regularizer: str, weights: dict[str, Tensor]) -> list[str]:
    """Name the layers that a penalty is over."""
    return [key for key in weights if weights[key].dim() > 1 or regularizer not in ("cosine", "orthogonal")]


def assert_slope_by_hand(regularizer: str, weights: dict[str, Tensor], start: dict[str, Tensor]) -> None:
    """Hold the gradient of a penalty against the derivative of its formula."""
    names = layers_of(regularizer, weights) if regularizer != "none" else []
    # Near the start differences to it are small; products of matrices are none, and would take long in float64.
    dtype, rounding = (torch.float32, 1e-5) if regularizer == "orthogonal" else (torch.float64, 1e-7)
    theta, origin = ({key: found[key].to(dtype, copy=True) for key in names} for found in (weights, start))
    free = {key: tensor.requires_grad_() for key, tensor in theta.items()}
    found = torch.autograd.grad(penalty(regularizer, free, origin), list(free.values())) if names else ()
    for key, slope in zip(names, found, strict=True):
        expected = slope_by_hand(regularizer, theta[key].detach(), origin[key], len(names))
        assert (slope - expected).norm() <= rounding * expected.norm()


@pytest.mark.parametrize("regularizer", sorted(set(get_args(RegularizerName)) - {"none"}))
def test_a_penalty_adds_its_slope_to_the_gradient(tiny_classifier: Maker, regularizer: str) -> None:
    source, rate, weight = tiny_classifier(seed=5).backbone, 0.5, 2.0
    ends = []
    for factor in (0.0, weight):
        classifier = tiny_classifier()
        fine_tune(
            classifier,
            a_spec(),
            some_samples(21),
            some_samples(12, seed=1),
            some_hyperparameters(
                epochs=1,
                batch_size=42,
                optimizer="sgd",
                learning_rate=rate,
                regularizer=regularizer,
                regularizer_weight=factor,
                regularizer_scope="both",
            ),
            some_settings(),
            source=source,
        )
        ends.append(dict(freeze(classifier, 1)[1].named_parameters()))
    suffix = freeze(tiny_classifier(), 1)[1]
    before = {key: parameter.detach() for key, parameter in suffix.named_parameters()}
    start = start_of(suffix, source, "cpu")
    names = layers_of(regularizer, before)
    for key, tensor in before.items():
        added = (ends[0][key] - ends[1][key]).detach() / (rate * weight)
        by_hand = slope_by_hand(regularizer, tensor, start[key], len(names)) if key in names else 0 * tensor
        torch.testing.assert_close(added, by_hand, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("regularizer", get_args(RegularizerName))
def test_a_regulariser_without_weight_changes_nothing(tiny_classifier: Maker, regularizer: str) -> None:
    one, other = tiny_classifier(), tiny_classifier()
    run(one, freeze_depth=0, regularizer=regularizer, regularizer_weight=0.0, regularizer_scope="both")
    run(other, freeze_depth=0)
    assert same(one.state_dict(), other.state_dict())


def test_a_strong_pull_keeps_weights_near_the_source_and_the_head_out_of_it(tiny_classifier: Maker) -> None:
    source = tiny_classifier(seed=5).backbone
    distances = {}
    for weight in (0.0, 10.0):
        classifier = tiny_classifier()
        fine_tune(
            classifier,
            a_spec(),
            some_samples(21),
            some_samples(12, seed=1),
            some_hyperparameters(epochs=20, regularizer="l2_sp", regularizer_weight=weight),
            some_settings(),
            source=source,
        )
        pairs = zip(classifier.backbone.stages[1:].parameters(), source.stages[1:].parameters(), strict=True)
        distances[weight] = sum(float((one - other).norm()) for one, other in pairs)
    assert distances[10.0] < distances[0.0] / 2
    assert all(parameter.requires_grad for parameter in source.parameters())


def test_gradual_unfreezing_frees_one_stage_after_the_other(tiny_classifier: Maker) -> None:
    start = tiny_classifier().suffix(1).state_dict()
    _, states = run(tiny_classifier(), strategy="gradual", epochs=3)
    moved = [{name.split(".")[0] for name in start if not torch.equal(start[name], s.suffix[name])} for s in states]
    assert moved == [{"2"}, {"1", "2"}, {"0", "1", "2"}]
    assert [len(state.trainable) for state in states] == [2, 6, 10]


def test_a_fitted_head_is_held_while_the_features_are_tuned_and_trained_again_after(tiny_classifier: Maker) -> None:
    _, states = run(tiny_classifier(), strategy="feature_then_network", epochs=6, head_share=0.34, weight_decay=0.1)
    head = [state.suffix["2.weight"] for state in states]
    stage = [state.suffix["1.0.weight"] for state in states]
    assert torch.equal(stage[0], stage[1]) and not torch.equal(head[0], head[1])
    assert torch.equal(head[1], head[2]) and torch.equal(head[2], head[3])
    assert not torch.equal(stage[1], stage[2])
    assert not torch.equal(head[3], head[4])


def test_stages_that_wait_for_their_turn_keep_their_statistics(tiny_classifier: Maker) -> None:
    start = tiny_classifier().suffix(1).state_dict()
    _, states = run(tiny_classifier(), strategy="probe_then_finetune", epochs=4, head_share=0.5, batch_norm="train")
    statistics = [name for name in start if "running_" in name]
    assert all(torch.equal(start[name], states[1].suffix[name]) for name in statistics)
    assert not any(torch.equal(start[name], states[2].suffix[name]) for name in statistics)


@pytest.mark.parametrize("strategy", get_args(StrategyName))
@pytest.mark.parametrize("changes", CHANGES)
def test_killed_in_any_phase_and_resumed_is_uninterrupted_to_the_bit(
    tiny_classifier: Maker, tmp_path: Path, strategy: str, changes: dict[str, object]
) -> None:
    method = {"strategy": strategy, "epochs": 5, "batch_norm": "train", "dropout": 0.2, **changes}
    whole = tiny_classifier(dropout=0.3)
    result, states = run(whole, **method)
    for state in states[:-1]:
        save_state(state, tmp_path)
        resumed = tiny_classifier(dropout=0.3)
        again, later = run(resumed, resume=load_state(tmp_path), **method)
        assert again.history == result.history
        assert same(resumed.state_dict(), whole.state_dict())
        assert same(later[-1].suffix, states[-1].suffix)


def test_a_checkpoint_of_another_phase_is_refused(tiny_classifier: Maker) -> None:
    _, states = run(tiny_classifier(), strategy="gradual", epochs=3)
    wrong = states[0].__class__(**{**states[0].__dict__, "trainable": states[2].trainable})
    with pytest.raises(TrainingError, match="the same phase of the same strategy"):
        run(tiny_classifier(), strategy="gradual", epochs=3, resume=wrong)


def test_a_training_whose_phases_depend_on_its_length_cannot_be_made_longer(tiny_classifier: Maker) -> None:
    _, states = run(tiny_classifier(), schedule="cosine", epochs=2)
    with pytest.raises(TrainingError, match="the same hyperparameters"):
        run(tiny_classifier(), schedule="cosine", epochs=4, resume=states[-1])


def test_two_half_batches_make_the_step_of_a_whole_one(tiny_classifier: Maker) -> None:
    one, other = tiny_classifier(), tiny_classifier()
    whole, _ = run(one, batch_size=42, optimizer="sgd", epochs=3, learning_rate=0.1)
    halves, _ = run(other, batch_size=7, accumulate=3, optimizer="sgd", epochs=3, learning_rate=0.1)
    for a, b in zip(whole.history, halves.history, strict=True):
        assert a.val_loss == pytest.approx(b.val_loss, rel=1e-4)


def test_batches_that_go_together_are_not_held_together(tiny_classifier: Maker) -> None:
    samples = some_samples(42)
    seen: list[tuple[int, int]] = []

    class Watched(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                seen.append((len(inputs), len(samples.taken)))
            return inputs

    classifier = tiny_classifier()
    classifier.backbone.stages[2].append(Watched())
    fine_tune(
        classifier,
        a_spec(),
        samples,
        some_samples(11, seed=1),
        some_hyperparameters(freeze_depth=0, batch_size=7, accumulate=3, epochs=1),
        some_settings(),
    )
    assert seen == [(7, taken) for taken in (7, 14, 21, 28, 35, 42)]


def test_clipping_bounds_how_far_a_step_goes(tiny_classifier: Maker) -> None:
    start = flat(tiny_classifier().suffix(1).parameters())
    moved = tiny_classifier()
    run(moved, batch_size=42, optimizer="sgd", epochs=1, learning_rate=1.0, clip_norm=0.01)
    end = flat(moved.suffix(1).parameters())
    assert float((end - start).norm()) == pytest.approx(0.01, rel=1e-3)


def test_the_running_mean_is_what_is_validated_and_kept(tiny_classifier: Maker) -> None:
    classifier = tiny_classifier()
    _, states = run(classifier, ema_decay=0.9, batch_size=42, epochs=3, metric="val_loss", optimizer="sgd")
    start, raw = tiny_classifier().suffix(1).state_dict()["2.weight"], [state.suffix["2.weight"] for state in states]
    mean = start
    for weights, state in zip(raw, states, strict=True):
        mean = 0.9 * mean + 0.1 * weights
        assert state.averaged is not None
        torch.testing.assert_close(state.averaged["2.weight"], mean)
    best = states[-1].best_suffix["2.weight"]
    assert torch.equal(classifier.head.weight, best)
    assert any(state.averaged is not None and torch.equal(best, state.averaged["2.weight"]) for state in states)


def test_patience_ends_a_training_that_gets_no_better_and_the_best_epoch_is_kept(tiny_classifier: Maker) -> None:
    result, _ = run(tiny_classifier(), epochs=40, learning_rate=0.05, patience=3)
    assert len(result.history) == result.best_epoch + 3 < 40


def test_patience_waits_for_the_last_phase(tiny_classifier: Maker) -> None:
    method = {"strategy": "probe_then_finetune", "head_share": 0.5, "epochs": 30, "learning_rate": 0.05}
    result, states = run(tiny_classifier(), patience=2, **method)
    assert 17 <= len(result.history) < 30
    assert len(states[-1].trainable) > len(states[14].trainable)


def test_momentum_of_nesterov_is_none_without_momentum(tiny_classifier: Maker) -> None:
    one, other = tiny_classifier(), tiny_classifier()
    run(one, optimizer="sgd", momentum=0.0, nesterov=True)
    run(other, optimizer="sgd", momentum=0.0)
    assert same(one.state_dict(), other.state_dict())


def test_earlier_stages_move_less_by_the_layers_decay(tiny_classifier: Maker) -> None:
    def moved(decay: float) -> list[float]:
        classifier, start = tiny_classifier(), tiny_classifier()
        run(classifier, freeze_depth=0, epochs=1, batch_size=42, optimizer="sgd", layer_decay=decay)
        pairs = zip(classifier.backbone.stages, start.backbone.stages, strict=True)
        return [float((flat(one.parameters()) - flat(two.parameters())).norm()) for one, two in pairs]

    ratios = [slow / fast for slow, fast in zip(moved(0.1), moved(1.0), strict=True)]
    # Moves of a thousandth are near the rounding of float32.
    assert ratios == pytest.approx([1e-3, 1e-2, 1e-1], rel=0.1)


@pytest.mark.parametrize("changes", [{"mixing": "mixup"}, {"mixing": "cutmix"}, {"adversarial": 0.05}])
def test_changed_images_go_through_the_frozen_stages_afresh(tiny_classifier: Maker, changes: dict[str, object]) -> None:
    train = some_samples(21)
    result = fine_tune(
        tiny_classifier(),
        a_spec(),
        train,
        some_samples(12, seed=1),
        some_hyperparameters(freeze_depth=2, epochs=3, **changes),
        some_settings(),
    )
    assert result.inputs == "pixels" and len(train.taken) == 3 * 21


def test_balanced_epochs_show_rare_classes_as_often_as_common_ones(tiny_classifier: Maker) -> None:
    train = some_samples(21)
    train.labels[:] = np.where(np.arange(21) < 3, np.arange(21) % 3, 0)
    fine_tune(
        tiny_classifier(),
        a_spec(),
        train,
        some_samples(12, seed=1),
        some_hyperparameters(freeze_depth=0, epochs=1, balanced=True),
        some_settings(),
    )
    assert np.bincount(train.labels[train.taken]).tolist() == [7, 7, 7]


def test_the_order_of_samples_and_the_dropout_have_seeds_of_their_own(tiny_classifier: Maker) -> None:
    def history(**settings: int) -> list[float]:
        result = fine_tune(
            tiny_classifier(dropout=0.3),
            a_spec(),
            some_samples(21, noisy_labels=True),
            some_samples(12, seed=1),
            some_hyperparameters(),
            some_settings(**settings),
        )
        return [metrics.train_loss for metrics in result.history]

    same_twice = history(seed=3, loader_seed=4)
    assert same_twice == history(seed=3, loader_seed=4)
    assert history(seed=3) == history(seed=3, loader_seed=3)
    assert same_twice != history(seed=3, loader_seed=5)
    assert same_twice != history(seed=5, loader_seed=4)
