"""torch.compile makes a training faster or slower, never another one; where it cannot compile, nothing breaks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from finetune_examples import a_spec, some_hyperparameters, some_samples, some_settings

from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.compilation import measure_compiled
from orchestrator.finetune.loop import fine_tune

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs")


@pytest.mark.slow
@needs_compiler
def test_a_compiled_suffix_trains_as_the_plain_one(tiny_classifier: Callable[..., Classifier]) -> None:
    train, validation, recipe = (
        some_samples(40),
        some_samples(20, seed=1),
        some_hyperparameters(freeze_depth=1, epochs=2),
    )
    plain, fast = tiny_classifier(), tiny_classifier()
    expected = fine_tune(plain, a_spec(), train, validation, recipe, some_settings())
    settings = replace(some_settings(), compiled_depths=frozenset({1}))
    found = fine_tune(fast, a_spec(), train, validation, recipe, settings)
    assert [epoch.train_loss for epoch in found.history] == pytest.approx(
        [epoch.train_loss for epoch in expected.history], rel=1e-4
    )
    assert fast.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(
    ("changes", "is_compiled"),
    [
        ({"freeze_depth": 1}, True),
        ({"freeze_depth": 2}, False),
        # Every phase would compile anew.
        ({"freeze_depth": 1, "strategy": "gradual"}, False),
    ],
)
def test_the_suffixes_of_the_named_depths_go_through_the_compiler(
    tiny_classifier: Callable[..., Classifier],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    is_compiled: bool,
) -> None:
    graphs: list[torch.nn.Module] = []

    def kept(module: torch.nn.Module, inputs: list[torch.Tensor]) -> Callable[..., object]:
        graphs.append(module)
        return module.forward

    # What is compiled to does not matter here, and needs no compiler of C++.
    monkeypatch.setattr("orchestrator.finetune.stepping.compiled", lambda suffix: torch.compile(suffix, backend=kept))
    recipe, settings = some_hyperparameters(**changes), some_settings(compiled_depths=frozenset({1}))
    fine_tune(tiny_classifier(), a_spec(), some_samples(16), some_samples(6, seed=1), recipe, settings)
    assert bool(graphs) is is_compiled


@pytest.mark.slow
@needs_compiler
def test_compiling_is_measured_at_each_wanted_depth(tiny_classifier: Callable[..., Classifier]) -> None:
    found = measure_compiled(
        tiny_classifier(), a_spec(), some_settings(), some_samples(20), depths=[1, 2], batch_size=16
    )
    assert sorted(found) == [1, 2]
    assert all(cost.compile_s > cost.train_s > 0 for cost in found.values())


def test_a_depth_that_cannot_be_compiled_is_left_out(
    tiny_classifier: Callable[..., Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(module: torch.nn.Module, inputs: list[torch.Tensor]) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(
        "orchestrator.finetune.compilation.compiled", lambda suffix: torch.compile(suffix, backend=no_compiler)
    )
    found = measure_compiled(tiny_classifier(), a_spec(), some_settings(), some_samples(20), depths=[1], batch_size=16)
    assert found == {}
