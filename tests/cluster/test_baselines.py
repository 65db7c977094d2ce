"""The control arms of a winner say what each of its choices brought."""

from __future__ import annotations

from finetune_examples import some_hyperparameters

from orchestrator.cluster.baselines import control_arms


def test_a_source_brings_an_arm_that_is_the_winner_on_the_target_alone() -> None:
    winner, fixed = some_hyperparameters(ema_decay=0.5), some_hyperparameters(freeze_depth=3, epochs=50)
    alone = control_arms(winner, fixed, 3)
    assert set(alone) == {"fixed_rule", "head_only", "from_scratch"}
    assert control_arms(winner, fixed, 3, has_source=True) == {**alone, "target_only": winner}
