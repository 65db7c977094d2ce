"""The outer step is the paper's, and does what the paper says on its own example, sine waves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orchestrator.finetune.reptile import Weights, outer_rate, take_outer_step

INNER_STEPS = 8
OUTER_STEPS = 250
RATE = 0.05


def test_the_outer_step_goes_a_share_of_the_mean_way_to_where_tasks_end() -> None:
    layer = nn.Linear(2, 1)
    weights = Weights(layer)
    weights.write(torch.tensor([1.0, 2.0, 3.0]))
    starts = []

    def adapt(*target: float) -> None:
        starts.append(weights.read().tolist())
        weights.write(torch.tensor(target))

    ends = [lambda: adapt(3.0, 2.0, -1.0), lambda: adapt(2.0, 6.0, 3.0)]
    take_outer_step(weights, ends, rate=0.5, num_tasks=2)
    assert starts == [[1.0, 2.0, 3.0]] * 2, "every task begins with the same weights"
    # By hand: the mean of the ends is (2.5, 4, 1); half of the way there.
    assert weights.read().tolist() == [1.75, 3.0, 2.0]


def test_a_rate_of_one_with_one_task_takes_the_weights_that_it_ends_with() -> None:
    weights = Weights(nn.Linear(2, 1))
    take_outer_step(weights, [lambda: weights.write(torch.full((3,), 7.0))], rate=1.0, num_tasks=1)
    assert weights.read().tolist() == [7.0, 7.0, 7.0]


def test_running_statistics_move_as_weights_do_and_whole_numbers_stay() -> None:
    layer = nn.BatchNorm1d(1)

    def adapt() -> None:
        layer.train()(torch.tensor([[10.0], [30.0]]))

    take_outer_step(Weights(layer), [adapt], rate=0.5, num_tasks=1)
    # By hand: the momentum is 0.1 and the mean 20, so that the task ends with 2, the step half way there.
    assert layer.running_mean is not None and layer.running_mean.item() == pytest.approx(1.0)
    assert layer.num_batches_tracked is not None and layer.num_batches_tracked.item() == 0


def test_the_rate_falls_linearly_to_nothing() -> None:
    assert [outer_rate(0.8, step, 4) for step in range(1, 6)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])


class Wave:
    """A sine of drawn amplitude and phase, of which a learner sees ten points, as in the paper's section 4.1."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._amplitude, self._phase = rng.uniform(0.1, 5.0), rng.uniform(0, 2 * np.pi)
        self.seen = torch.tensor(rng.uniform(-5, 5, (10, 1)), dtype=torch.float32)

    def at(self, points: Tensor) -> Tensor:
        return self._amplitude * torch.sin(points + self._phase)

    def learn(self, network: nn.Module, steps: int) -> None:
        parameters, target = list(network.parameters()), self.at(self.seen)
        for _ in range(steps):
            gradients = torch.autograd.grad(nn.functional.mse_loss(network(self.seen), target), parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter -= RATE * gradient


def a_network() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))


def meta_train(network: nn.Module, seed: int, *, inner_steps: int, outer_steps: int, first: float) -> nn.Module:
    weights, rng = Weights(network), np.random.default_rng(seed)
    for step in range(1, outer_steps + 1):
        wave = Wave(rng)
        rate = outer_rate(first, step, outer_steps)
        take_outer_step(weights, [lambda wave=wave: wave.learn(network, inner_steps)], rate=rate, num_tasks=1)
    return network


def error_after_few_steps(network: nn.Module) -> float:
    """The mean over 20 new waves of the squared error everywhere, after the inner steps on ten points."""
    weights, rng, everywhere = Weights(network), np.random.default_rng(99), torch.linspace(-5, 5, 50)[:, None]
    start, errors = weights.read(), []
    for _ in range(20):
        wave = Wave(rng)
        wave.learn(network, INNER_STEPS)
        with torch.no_grad():
            errors.append(float(nn.functional.mse_loss(network(everywhere), wave.at(everywhere))))
        weights.write(start)
    return float(np.mean(errors))


def test_one_inner_step_is_joint_training() -> None:
    """Section 5: with k = 1 the outer step is one of SGD on the mean loss of the tasks."""
    torch.manual_seed(0)
    network = a_network()
    waves = [Wave(np.random.default_rng(number)) for number in range(5)]
    weights = Weights(network)
    before = weights.read()
    network.zero_grad()
    joint = torch.stack([nn.functional.mse_loss(network(wave.seen), wave.at(wave.seen)) for wave in waves]).mean()
    joint.backward()
    gradient = torch.cat([found.grad.reshape(-1) for found in network.parameters() if found.grad is not None])
    adaptations = [lambda wave=wave: wave.learn(network, 1) for wave in waves]
    take_outer_step(weights, adaptations, rate=0.3, num_tasks=5)
    torch.testing.assert_close(weights.read() - before, -0.3 * RATE * gradient, atol=1e-6, rtol=1e-4)


def test_a_start_learnt_by_reptile_adapts_in_few_steps_where_joint_training_and_chance_do_not() -> None:
    errors: dict[str, list[float]] = {"random": [], "joint": [], "reptile": []}
    for seed in range(2):
        torch.manual_seed(seed)
        start = a_network().state_dict()

        def network(start: dict[str, Tensor] = start) -> nn.Module:
            made = a_network()
            made.load_state_dict(start)
            return made

        errors["random"].append(error_after_few_steps(network()))
        # As many gradients as Reptile takes, each of another task.
        joint = meta_train(network(), seed, inner_steps=1, outer_steps=OUTER_STEPS * INNER_STEPS, first=1.0)
        errors["joint"].append(error_after_few_steps(joint))
        reptile = meta_train(network(), seed, inner_steps=INNER_STEPS, outer_steps=OUTER_STEPS, first=1.0)
        errors["reptile"].append(error_after_few_steps(reptile))
    means = {name: float(np.mean(found)) for name, found in errors.items()}
    assert means["reptile"] < 0.6 * min(means["random"], means["joint"]), means
