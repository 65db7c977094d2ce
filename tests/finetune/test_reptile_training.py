"""A backbone is trained by Reptile over subsets: by the formula, with a gain on held-out tasks, and over a kill."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_examples import ArraySamples, a_spec, some_settings
from reptile_examples import QUICK, a_backbone, subset_samples, train, vector
from torch import nn

from orchestrator.errors import DivergedError, TrainingError
from orchestrator.finetune.classifier import preprocess
from orchestrator.finetune.randomness import seeded
from orchestrator.finetune.reptile_checkpoints import load_reptile, save_reptile
from orchestrator.finetune.reptile_tasks import TaskPool, draw_batches
from orchestrator.finetune.reptile_training import SubsetSamples, train_reptile

pytestmark = pytest.mark.usefixtures("one_thread")


def test_an_outer_step_is_the_formula_by_hand() -> None:
    settings = some_settings()
    config = QUICK.model_copy(update={"steps": 1, "inner_optimizer": "sgd", "outer_learning_rate": 0.5})
    data, start = subset_samples(12, seed=1), a_backbone()
    ends = []
    for number in range(config.tasks_per_step):
        network = copy.deepcopy(start).train()
        rng = np.random.default_rng([settings.seed, 1, number])
        task = TaskPool.of(data.subsets, data.samples.labels, least=1).draw_task(None, None, rng)
        with seeded(settings.seed, 1, number):
            head = nn.Linear(network.feature_dim, task.num_classes)
        weights = [*network.parameters(), *head.parameters()]
        for batch in draw_batches(len(task.positions), config.batch_size, config.inner_steps, rng):
            images = preprocess(data.samples.take(task.positions[batch]), a_spec(), "cpu")
            loss = nn.functional.cross_entropy(head(network(images)), torch.from_numpy(task.targets[batch]))
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight -= config.inner_learning_rate * gradient
        ends.append(network)
    _, found, _ = train(copy.deepcopy(start), config)
    by_hand = [dict(end.named_parameters()) | dict(end.named_buffers()) for end in ends]
    for name, tensor in found.state_dict().items():
        before = start.state_dict()[name]
        mean = torch.stack([end[name].detach().double() for end in by_hand]).mean(dim=0)
        expected = before + 0.5 * (mean - before) if tensor.is_floating_point() else before
        torch.testing.assert_close(tensor.double(), expected.double(), atol=1e-6, rtol=1e-5)


def test_a_learnt_start_goes_further_on_held_out_images() -> None:
    config = QUICK.model_copy(
        update={"steps": 40, "inner_steps": 6, "inner_learning_rate": 3e-3, "episodes": 24, "checkpoint_every": 20}
    )
    found, _, _ = train(config=config)
    before, between, after = found.history
    assert [point.step for point in found.history] == [0, 20, 40]
    assert before.accuracy is not None and after.accuracy is not None and after.standard_error is not None
    assert after.accuracy > before.accuracy + 0.08, "the same tasks, the same heads and the same steps"
    assert between.accuracy is None and between.first_loss is not None
    assert between.last_loss is not None and after.last_loss is not None
    assert after.last_loss < 0.8 * between.last_loss < between.first_loss, "as many steps go further than before"


def test_a_killed_training_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole, backbone, states = train()
    assert [state.step for state in states] == [0, 2, 4, 5]
    for state in states[:-1]:
        save_reptile(state, tmp_path)
        resumed, other, _ = train(a_backbone(seed=9), resume=load_reptile(tmp_path))
        assert torch.equal(vector(backbone), vector(other))
        assert resumed.history == whole.history
    assert resumed.seconds > 0


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_statistics_of_batch_norm_are_kept_or_learnt(batch_norm: str) -> None:
    _, found, _ = train(batch_norm=batch_norm)
    before, after = a_backbone().state_dict(), found.state_dict()
    statistics = [name for name in before if "running" in name]
    weights = [name for name in before if name.endswith("weight")]
    assert all(torch.equal(before[name], after[name]) for name in statistics) is (batch_norm == "frozen")
    assert statistics and not any(torch.equal(before[name], after[name]) for name in weights)


def test_how_often_a_checkpoint_is_kept_changes_no_weight() -> None:
    _, one, _ = train()
    _, other, _ = train(config=QUICK.model_copy(update={"checkpoint_every": 100, "episodes": 0}))
    assert torch.equal(vector(one), vector(other))


def test_seeds_change_what_is_drawn() -> None:
    _, one, _ = train()
    for changes in ({"seed": 4, "loader_seed": 3}, {"loader_seed": 4}):
        _, other, _ = train(**changes)
        assert not torch.equal(vector(one), vector(other))


def test_validation_images_are_not_learnt_from() -> None:
    train_data, held_out = subset_samples(12, seed=1), subset_samples(6, seed=2)
    samples = held_out.samples
    assert isinstance(samples, ArraySamples)
    other = replace(held_out, samples=ArraySamples(255 - samples.pixels, samples.labels))
    found = []
    for judges in (held_out, other):
        backbone = a_backbone()
        train_reptile(backbone, a_spec(), train_data, judges, QUICK, some_settings())
        found.append(vector(backbone))
    assert torch.equal(*found)


def test_without_validation_images_nothing_is_tested() -> None:
    none = SubsetSamples(
        samples=ArraySamples(np.zeros((0, 16, 16, 3), np.uint8), np.zeros(0, np.int64)), subsets=np.zeros(0, np.int64)
    )
    found = train_reptile(a_backbone(), a_spec(), subset_samples(12, seed=1), none, QUICK, some_settings())
    assert all(point.accuracy is None and point.standard_error is None for point in found.history)


def test_the_checkpoint_of_another_training_is_refused() -> None:
    _, _, states = train()
    with pytest.raises(TrainingError, match=r"the same pretrain\.reptile"):
        train(config=QUICK.model_copy(update={"steps": 6}), resume=states[1])


def test_a_single_subset_must_be_cut_into_tasks() -> None:
    data = subset_samples(12, seed=1)
    alone = replace(data, subsets=np.zeros_like(data.subsets))
    with pytest.raises(TrainingError, match=r"ways must be less than the classes.*got no ways.*2 classes"):
        train_reptile(a_backbone(), a_spec(), alone, alone, QUICK, some_settings())


def test_subsets_of_one_class_are_no_tasks() -> None:
    data = subset_samples(12, seed=1)
    alike = SubsetSamples(
        samples=ArraySamples(data.samples.take(np.arange(20)), np.zeros(20, np.int64)), subsets=np.arange(20) % 2
    )
    with pytest.raises(TrainingError, match="a subset with training images of two classes"):
        train_reptile(a_backbone(), a_spec(), alike, alike, QUICK, some_settings())


def test_a_diverged_training_says_so() -> None:
    config = QUICK.model_copy(update={"inner_learning_rate": 1e30, "inner_optimizer": "sgd", "episodes": 0})
    with pytest.raises(DivergedError, match=r"must stay finite.*inner_learning_rate"):
        train(config=config)
