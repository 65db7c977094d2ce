"""Says what a balanced training repeats."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.finetune.batches import count_draws, plan_balanced_batches
from orchestrator.finetune.contracts import Labels
from orchestrator.finetune.tasks import first_task
from orchestrator.records import Balance, Hyperparameters


def balance_of(
    labels: Labels, classes: Sequence[str], hyperparameters: Hyperparameters, *, seed: int, num_stages: int
) -> Balance | None:
    """Say what an epoch of equally frequent classes repeats, and what it leaves out; None where none is balanced.

    `labels` [n] are indices into `classes`, or [n, T] of several tasks, of which the first is balanced; `seed` is that
    of the order. Prototypes that are found in one pass see every sample once. Raises TrainingError without samples.
    """
    if not hyperparameters.balanced or hyperparameters.has_one_pass(num_stages):
        return None
    indices = first_task(labels)
    draws = count_draws(plan_balanced_batches(indices, hyperparameters.batch_size, seed, 1), indices)
    most = max(draws, key=lambda found: found.draws / found.samples)
    return Balance(
        num_classes=len(draws),
        num_repeated=sum(found.repeats > 0 for found in draws),
        most_repeated=classes[most.label],
        most_repeated_images=most.samples,
        times_shown=most.draws / most.samples,
        num_images=len(indices),
        num_left_out=sum(found.samples - found.shown for found in draws),
    )
