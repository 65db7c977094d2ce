import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_examples import (
    LABELS,
    ListStream,
    a_spec,
    some_hyperparameters,
    some_samples,
    some_settings,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from orchestrator.errors import BackboneError, DivergedError, TrainingError
from orchestrator.finetune.checkpoints import TrainingState, load_state, save_state
from orchestrator.finetune.classifier import Classifier, predict_probabilities, preprocess
from orchestrator.finetune.loop import EpochEnd, FineTuneResult, fine_tune

SPEC = a_spec()
Maker = Callable[..., Classifier]


def run(
    classifier: Classifier, *, train: object = None, resume: TrainingState | None = None, **changes: object
) -> tuple[FineTuneResult, list[TrainingState]]:
    """Fine-tune on small samples; settings and hyperparameters are told apart by name."""
    settings = {key: changes.pop(key) for key in list(changes) if key in some_settings().__dict__}
    states: list[TrainingState] = []
    result = fine_tune(
        classifier,
        SPEC,
        train or some_samples(21),
        some_samples(12, seed=1),
        some_hyperparameters(**changes),
        some_settings(**settings),
        on_epoch=lambda end: states.append(end.state),
        resume=resume,
    )
    return result, states


def tensors_equal(one: Classifier, other: Classifier) -> bool:
    both = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in both)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_learns(tiny_classifier: Maker, optimizer: str) -> None:
    classifier = tiny_classifier()
    rate = 3e-2 if optimizer == "sgd" else 1e-2
    result, _ = run(
        classifier,
        train=some_samples(48),
        freeze_depth=0,
        epochs=8,
        optimizer=optimizer,
        learning_rate=rate,
        batch_norm="train",
    )
    assert result.history[-1].train_loss < result.history[0].train_loss / 2
    assert result.history[result.best_epoch - 1].val_accuracy > 0.85
    assert [metrics.epoch for metrics in result.history] == list(range(1, 9))
    assert result.seconds > 0


def test_metrics_are_those_of_the_returned_classifier(tiny_classifier: Maker) -> None:
    classifier, validation = tiny_classifier(), some_samples(12, seed=1)
    result, _ = run(classifier, epochs=3, metric="val_loss")
    best = result.history[result.best_epoch - 1]
    probabilities = predict_probabilities(classifier, SPEC, validation.pixels, device="cpu")
    assert best.val_accuracy == pytest.approx((probabilities.argmax(axis=1) == validation.labels).mean())
    chosen = probabilities[np.arange(12), validation.labels]
    assert best.val_loss == pytest.approx(-np.log(chosen).mean(), rel=1e-4)
    assert not classifier.training


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_the_best_epoch_is_kept_and_of_equal_accuracies_the_one_of_least_loss(
    tiny_classifier: Maker, metric: str
) -> None:
    classifier = tiny_classifier()
    # Labels without meaning: what is learned from them makes validation worse.
    train = some_samples(21, noisy_labels=True)
    result, states = run(classifier, train=train, epochs=6, learning_rate=0.05, metric=metric)
    accuracy_first = metric == "val_accuracy"
    values = [(m.val_accuracy if accuracy_first else 0.0, -m.val_loss) for m in result.history]
    assert result.best_epoch == 1 + values.index(max(values))
    assert result.best_epoch < 6
    kept = states[result.best_epoch - 1].suffix
    assert all(torch.equal(tensor, kept[name]) for name, tensor in classifier.suffix(1).state_dict().items())


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_remembered_prefix_outputs_change_nothing(tiny_classifier: Maker, depth: int) -> None:
    train = some_samples(21)
    one, _ = run(tiny_classifier(), train=train, freeze_depth=depth, epochs=3)
    assert len(train.taken) == 21
    other, _ = run(tiny_classifier(), train=train, freeze_depth=depth, epochs=3, activation_bytes=0)
    assert len(train.taken) == 21 + 3 * 21
    for a, b in zip(one.history, other.history, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-5)
        assert a.val_loss == pytest.approx(b.val_loss, rel=1e-5)


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_a_resumed_training_is_the_uninterrupted_one_to_the_bit(
    tiny_classifier: Maker, tmp_path: Path, depth: int, batch_norm: str
) -> None:
    def train(epochs: int, resume: TrainingState | None = None) -> tuple[Classifier, FineTuneResult, TrainingState]:
        classifier = tiny_classifier(dropout=0.3)
        result, states = run(
            classifier,
            train=some_samples(21, noisy_labels=True),
            freeze_depth=depth,
            batch_norm=batch_norm,
            epochs=epochs,
            resume=resume,
        )
        return classifier, result, states[-1]

    whole, whole_result, whole_state = train(5)
    _, _, half_state = train(2)
    save_state(half_state, tmp_path)
    torch.manual_seed(99)
    resumed, resumed_result, resumed_state = train(5, load_state(tmp_path))
    assert resumed_result.history == whole_result.history
    assert resumed_result.best_epoch == whole_result.best_epoch
    assert tensors_equal(resumed, whole)
    assert all(torch.equal(resumed_state.suffix[name], whole_state.suffix[name]) for name in whole_state.suffix)
    assert resumed_result.seconds >= half_state.seconds


def test_resuming_leaves_the_given_state_as_it_was(tiny_classifier: Maker) -> None:
    _, [state] = run(tiny_classifier(), epochs=1)
    moment = state.steps["optimizer"]["state"][0]["exp_avg"].clone()
    weight = state.suffix["0.0.weight"].clone()
    run(tiny_classifier(), epochs=3, resume=state)
    assert torch.equal(state.steps["optimizer"]["state"][0]["exp_avg"], moment)
    assert torch.equal(state.suffix["0.0.weight"], weight)


def test_resuming_a_finished_training_gives_its_best_weights(tiny_classifier: Maker) -> None:
    classifier, again = tiny_classifier(), tiny_classifier()
    result, states = run(classifier, epochs=3)
    repeated, none = run(again, epochs=3, resume=states[-1])
    assert none == []
    assert (repeated.history, repeated.best_epoch) == (result.history, result.best_epoch)
    assert tensors_equal(again, classifier)


def test_a_checkpoint_of_another_training_is_refused(tiny_classifier: Maker) -> None:
    _, [state] = run(tiny_classifier(), epochs=1)
    with pytest.raises(TrainingError, match="same hyperparameters"):
        run(tiny_classifier(), epochs=3, freeze_depth=2, resume=state)
    with pytest.raises(TrainingError, match="same backbone and classes"):
        run(tiny_classifier(width=4), epochs=3, resume=state)


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(tiny_classifier: Maker) -> None:
    one, same, other = (tiny_classifier(dropout=0.3) for _ in range(3))
    run(one, seed=5)
    torch.manual_seed(1)
    run(same, seed=5)
    run(other, seed=6)
    assert tensors_equal(one, same)
    assert not tensors_equal(one, other)


def test_training_leaves_torchs_generator_alone(tiny_classifier: Maker) -> None:
    before = torch.get_rng_state()
    run(tiny_classifier(dropout=0.3))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_first_epoch_loss_is_the_mean_over_all_samples(tiny_classifier: Maker) -> None:
    classifier, train = tiny_classifier(), some_samples(21)
    logits = classifier.eval()(preprocess(train.pixels, SPEC, "cpu"))
    expected = cross_entropy(logits, torch.from_numpy(train.labels)).item()
    result, _ = run(classifier, train=train, learning_rate=1e-12, epochs=1)
    assert result.history[0].train_loss == pytest.approx(expected, rel=1e-5)


def test_a_stream_trains_as_samples_in_the_same_batches_do(tiny_classifier: Maker) -> None:
    samples = some_samples(10)
    streamed, manual = tiny_classifier(), tiny_classifier()
    stream = ListStream(samples, [[0, 1, 2, 3], [], [4, 5, 6], [7, 8, 9]], 10)
    result, _ = run(streamed, train=stream, epochs=1, optimizer="sgd", batch_norm="train")
    suffix = manual.suffix(1)
    manual.eval()
    suffix.train()
    optimizer = torch.optim.SGD(suffix.parameters(), lr=some_hyperparameters().learning_rate, momentum=0.9)
    losses = []
    for batch in ([0, 1, 2, 3], [4, 5, 6], [7, 8, 9]):
        inputs = manual.prefix(1)(preprocess(samples.pixels[batch], SPEC, "cpu")).detach()
        loss = cross_entropy(suffix(inputs), torch.from_numpy(samples.labels[batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses += [loss.item()] * len(batch)
    assert result.history[0].train_loss == pytest.approx(np.mean(losses), rel=1e-5)
    for one, other in zip(streamed.state_dict().values(), manual.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_stream_that_loses_samples_is_an_error(tiny_classifier: Maker) -> None:
    with pytest.raises(TrainingError, match="each of 10 samples once, got 8"):
        run(tiny_classifier(), train=ListStream(some_samples(10), [[0, 1, 2, 3], [4, 5, 6, 7]], 10))


def test_one_sample_alone_trains_on_the_statistics_that_are_there(tiny_classifier: Maker) -> None:
    classifier = tiny_classifier()
    before = [buffer.clone() for buffer in classifier.buffers()]
    result, _ = run(classifier, train=some_samples(1), batch_norm="train")
    assert math.isfinite(result.history[-1].train_loss)
    assert all(torch.equal(one, other) for one, other in zip(classifier.buffers(), before, strict=True))


def test_images_and_weights_lie_channels_last_while_they_are_trained(tiny_classifier: Maker) -> None:
    seen: list[bool] = []

    class Watched(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            is_last = inputs.is_contiguous(memory_format=torch.channels_last)
            seen.append(is_last and not inputs.is_contiguous())
            return inputs

    classifier = tiny_classifier()
    for stage in classifier.backbone.stages[1:]:
        stage.insert(1, Watched())
    run(classifier, freeze_depth=1)
    assert seen and all(seen)
    filters = [parameter for parameter in classifier.parameters() if parameter.dim() == 4]
    assert all(weights.is_contiguous(memory_format=torch.channels_last) for weights in filters)
    assert not any(weights.is_contiguous() for weights in filters)


def test_bf16_keeps_the_weights_in_fp32(tiny_classifier: Maker) -> None:
    classifier = tiny_classifier()
    result, _ = run(classifier, precision="bf16", freeze_depth=1)
    exact, _ = run(tiny_classifier(), precision="fp32", freeze_depth=1)
    assert {parameter.dtype for parameter in classifier.parameters()} == {torch.float32}
    assert result.history[-1].train_loss == pytest.approx(exact.history[-1].train_loss, rel=0.05)
    assert result.history != exact.history


def test_weight_decay_and_optimizer_make_a_difference(tiny_classifier: Maker) -> None:
    losses = {
        (optimizer, decay): run(tiny_classifier(), optimizer=optimizer, weight_decay=decay)[0].history[-1].val_loss
        for optimizer in ("sgd", "adam", "adamw")
        for decay in (0.0, 0.5)
    }
    # Without decay, AdamW is Adam.
    assert losses.pop(("adamw", 0.0)) == losses[("adam", 0.0)]
    assert len(set(losses.values())) == 5


def test_a_loss_that_is_not_finite_ends_the_training(tiny_classifier: Maker) -> None:
    with pytest.raises(DivergedError, match=r"stay finite, got .* at epoch \d+\. Lower the learning rate") as caught:
        run(tiny_classifier(), optimizer="sgd", learning_rate=1e30, freeze_depth=0, epochs=3)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_freeze_depth_beyond_the_backbone_is_refused(tiny_classifier: Maker) -> None:
    with pytest.raises(BackboneError, match="freeze_depth must be at most 3 for tiny, got 4"):
        run(tiny_classifier(), freeze_depth=4)


def test_no_samples_to_train_on_or_to_validate_with_are_errors(tiny_classifier: Maker) -> None:
    none = some_samples(1)
    none.pixels, none.labels = none.pixels[:0], none.labels[:0]
    for train, validation in ((none, some_samples(3)), (some_samples(3), none)):
        with pytest.raises(TrainingError, match=r"there must be (training|validation) samples, got 0"):
            fine_tune(tiny_classifier(), SPEC, train, validation, some_hyperparameters(), some_settings())


def test_the_callback_may_leave_the_state_alone(tiny_classifier: Maker) -> None:
    ends: list[EpochEnd] = []
    fine_tune(
        tiny_classifier(),
        SPEC,
        some_samples(9),
        some_samples(len(LABELS)),
        some_hyperparameters(epochs=3),
        some_settings(),
        on_epoch=ends.append,
    )
    assert [end.metrics.epoch for end in ends] == [1, 2, 3]


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_who_looks_at_the_network_between_epochs_changes_nothing(
    tiny_classifier: Maker, ema_decay: float | None
) -> None:
    def evaluate(classifier: Classifier) -> None:
        classifier.eval()

    def histories(looks: bool) -> list[object]:
        classifier = tiny_classifier()
        found = fine_tune(
            classifier,
            SPEC,
            some_samples(21),
            some_samples(12, seed=1),
            some_hyperparameters(epochs=3, dropout=0.5, ema_decay=ema_decay),
            some_settings(batch_norm="train"),
            on_epoch=lambda end: evaluate(classifier) if looks else None,
        )
        return list(found.history)

    assert histories(looks=True) == histories(looks=False)
