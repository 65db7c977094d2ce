from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from finetune_examples import ArraySamples, a_spec, label_sets, some_hyperparameters, some_samples, some_settings
from numpy.typing import NDArray

from orchestrator.config import AugmentConfig
from orchestrator.errors import DataError
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.contracts import Activations, StoredType
from orchestrator.finetune.freezing import freeze
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.prefix import (
    Prefix,
    SuffixSources,
    from_stored,
    layouts,
    prefix_rows,
    round_trip_error,
    suffix_inputs,
    to_stored,
)


def a_prefix(classifier: Classifier, depth: int, **settings: object) -> Prefix:
    return Prefix(stages=freeze(classifier, depth)[0], spec=a_spec(), settings=some_settings(**settings))


def sources_of(prefix: Prefix, train: ArraySamples, validation: ArraySamples | None = None) -> SuffixSources:
    return suffix_inputs(prefix, train, validation or some_samples(6, seed=1), None)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_remembered_outputs_are_the_computed_ones(
    tiny_classifier: Callable[..., Classifier], depth: int, precision: str
) -> None:
    samples = some_samples(70)
    classifier = tiny_classifier()
    remembered = sources_of(a_prefix(classifier, depth, precision=precision), samples)
    computed = sources_of(a_prefix(classifier, depth, precision=precision, activation_bytes=0), samples)
    assert (remembered.name, computed.name) == ("memory", "pixels")
    assert remembered.train is not None and computed.train is not None
    positions = np.array([69, 3, 64, 3])
    one, other = remembered.train.take(positions, 0), computed.train.take(positions, 0)
    assert one.dtype == other.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    assert one.shape == other.shape
    assert one.is_contiguous(memory_format=torch.contiguous_format) == other.is_contiguous()
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-2 if precision == "bf16" else 1e-5)
    assert not one.requires_grad


def test_outputs_are_computed_once_when_they_fit(tiny_classifier: Callable[..., Classifier]) -> None:
    train, validation = some_samples(10), some_samples(6)
    sources = sources_of(a_prefix(tiny_classifier(), 3), train, validation)
    assert sources.train is not None
    for _ in range(3):
        sources.train.take(np.arange(10), 0)
    assert sorted(train.taken) == list(range(10))
    assert sorted(validation.taken) == list(range(6))


def test_the_bound_is_on_all_samples_in_all_views_together(tiny_classifier: Callable[..., Classifier]) -> None:
    flipped = AugmentConfig(views=2, flip=True)
    for augment, rows in ((AugmentConfig(), 10 + 6), (flipped, 2 * 10 + 6)):
        needed = rows * 16 * 4  # features of 16 float32
        for allowed, name in ((needed, "memory"), (needed - 1, "pixels")):
            prefix = a_prefix(tiny_classifier(), 3, activation_bytes=allowed, augment=augment)
            assert sources_of(prefix, some_samples(10)).name == name


def test_images_themselves_are_not_remembered(tiny_classifier: Callable[..., Classifier]) -> None:
    sources = sources_of(a_prefix(tiny_classifier(), 0), some_samples(4))
    assert sources.name == "pixels" and sources.train is not None
    assert sources.train.take(np.array([0, 2]), 0).shape == (2, 3, 16, 16)


def test_views_take_turns_and_validation_is_never_varied(tiny_classifier: Callable[..., Classifier]) -> None:
    augment = AugmentConfig(views=3, crop=0.2)
    sources = sources_of(a_prefix(tiny_classifier(), 2, augment=augment), some_samples(8))
    plain = sources_of(a_prefix(tiny_classifier(), 2), some_samples(8))
    assert sources.train is not None and plain.train is not None
    everyone = np.arange(6)
    views = [sources.train.take(everyone, draw) for draw in range(4)]
    assert torch.equal(views[0], views[3]) and torch.equal(views[0], plain.train.take(everyone, 0))
    assert not torch.equal(views[0], views[1]) and not torch.equal(views[1], views[2])
    assert torch.equal(sources.validation.take(everyone, 2), plain.validation.take(everyone, 0))


def test_images_drawn_afresh_are_not_remembered_but_validation_is(tiny_classifier: Callable[..., Classifier]) -> None:
    train, validation = some_samples(8), some_samples(6)
    prefix = a_prefix(tiny_classifier(), 3, augment=AugmentConfig(views=0, flip=True))
    sources = sources_of(prefix, train, validation)
    assert sources.name == "pixels" and train.taken == [] and len(validation.taken) == 6


@dataclass
class ArrayRows:
    """Stored rows in memory, which no pixels stand behind."""

    rows: NDArray[Any]

    def take(self, positions: NDArray[np.int64], draw: int) -> NDArray[Any]:
        return self.rows[positions]

    def check(self) -> None:
        pass


def stored(classifier: Classifier, depth: int, *samples: ArraySamples, dtype: StoredType = "fp32") -> Activations:
    prefix = a_prefix(classifier, depth)
    rows = [
        prefix_rows(prefix.stages, part.pixels, [depth], prefix.spec, prefix.settings, {depth: dtype})[depth]
        for part in samples
    ]
    layout = layouts(prefix.stages, prefix.spec, prefix.settings, [depth])[depth]
    train, validation = map(ArrayRows, rows)
    return Activations(depth=depth, layout=layout, dtype=dtype, train=train, validation=validation)


def test_one_pass_gives_every_depth(tiny_classifier: Callable[..., Classifier]) -> None:
    classifier, samples = tiny_classifier(), some_samples(70)
    deepest = a_prefix(classifier, 3)
    together = prefix_rows(
        deepest.stages, samples.pixels, [1, 2, 3], deepest.spec, deepest.settings, dict.fromkeys((1, 2, 3), "fp32")
    )
    for depth in (1, 2, 3):
        prefix = a_prefix(classifier, depth)
        alone = prefix_rows(prefix.stages, samples.pixels, [depth], prefix.spec, prefix.settings, {depth: "fp32"})
        np.testing.assert_array_equal(together[depth], alone[depth])


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_stored_types_come_back_as_they_were(dtype: StoredType) -> None:
    rows = torch.randn(5, 7)
    restored = from_stored(to_stored(rows, dtype), dtype)
    expected = rows.to({"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype])
    assert torch.equal(restored, expected)
    assert to_stored(rows, dtype).itemsize == (4 if dtype == "fp32" else 2)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_training_on_stored_activations_is_the_same_training_and_touches_no_pixel(
    tiny_classifier: Callable[..., Classifier], depth: int
) -> None:
    run = some_hyperparameters(freeze_depth=depth, epochs=4)
    plain = fine_tune(tiny_classifier(), a_spec(), some_samples(45), some_samples(20, seed=1), run, some_settings())
    train, validation = some_samples(45), some_samples(20, seed=1)
    kept = stored(tiny_classifier(), depth, train, validation)
    found = fine_tune(tiny_classifier(), a_spec(), train, validation, run, some_settings(), activations=kept)
    assert (plain.inputs, found.inputs, found.note) == ("memory", "activations", None)
    assert train.taken == validation.taken == []
    for one, other in zip(plain.history, found.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-5)
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-5)


def test_training_on_stored_activations_is_the_same_for_any_number_of_labels(
    tiny_classifier: Callable[..., Classifier],
) -> None:
    run = some_hyperparameters(freeze_depth=2, epochs=3, loss="binary_cross_entropy")
    train, validation = label_sets(30), label_sets(20, seed=1)
    kept = stored(tiny_classifier(), 2, train, validation)
    plain = fine_tune(tiny_classifier(), a_spec(), train, validation, run, some_settings())
    found = fine_tune(tiny_classifier(), a_spec(), train, validation, run, some_settings(), activations=kept)
    assert (plain.inputs, found.inputs) == ("memory", "activations")
    for one, other in zip(plain.history, found.history, strict=True):
        assert one.model_dump() == pytest.approx(other.model_dump(), abs=1e-5)


def test_activations_of_another_depth_are_left_alone(tiny_classifier: Callable[..., Classifier]) -> None:
    train, validation = some_samples(12), some_samples(6, seed=1)
    kept = stored(tiny_classifier(), 2, train, validation)
    run = some_hyperparameters(freeze_depth=1)
    found = fine_tune(tiny_classifier(), a_spec(), train, validation, run, some_settings(), activations=kept)
    assert found.inputs == "memory"


@pytest.mark.parametrize(("flip", "inputs"), [(True, "pixels"), (False, "activations")])
def test_what_a_recipe_varies_anew_takes_no_stored_activations(
    tiny_classifier: Callable[..., Classifier], flip: bool, inputs: str
) -> None:
    train, validation = some_samples(12), some_samples(6, seed=1)
    kept = stored(tiny_classifier(), 2, train, validation)
    run = some_hyperparameters(freeze_depth=2, flip=flip)
    settings = some_settings(augment=AugmentConfig(views=0))
    found = fine_tune(tiny_classifier(), a_spec(), train, validation, run, settings, activations=kept)
    assert (found.inputs, found.note) == (inputs, None)


class DamagedRows:
    """A store whose entry cannot be read."""

    def take(self, positions: NDArray[np.int64], draw: int) -> NDArray[Any]:
        raise DataError("an entry must be whole", value="damaged")

    def check(self) -> None:
        self.take(np.zeros(1, dtype=np.int64), 0)


def test_activations_that_cannot_be_read_are_computed_instead_and_the_result_says_so(
    tiny_classifier: Callable[..., Classifier],
) -> None:
    train, validation = some_samples(12), some_samples(6, seed=1)
    kept = replace(stored(tiny_classifier(), 2, train, validation), validation=DamagedRows())
    run = some_hyperparameters(freeze_depth=2)
    found = fine_tune(tiny_classifier(), a_spec(), train, validation, run, some_settings(), activations=kept)
    assert found.inputs == "memory" and found.note is not None and "an entry must be whole" in found.note


def test_a_lesser_type_changes_the_outputs_little_and_how_much_is_measured(
    tiny_classifier: Callable[..., Classifier],
) -> None:
    classifier, pixels = tiny_classifier(), some_samples(32).pixels
    settings = some_settings()
    prefix, suffix = freeze(classifier, 1)
    errors = {
        dtype: round_trip_error(prefix, suffix, pixels, a_spec(), settings, dtype) for dtype in ("fp32", "fp16", "bf16")
    }
    assert errors["fp32"] == 0 < errors["fp16"] < errors["bf16"] < 0.1
