"""The control arms of a winner say what each of its choices brought."""

from __future__ import annotations

from finetune_examples import some_hyperparameters

from orchestrator.cluster.baselines import control_arms
from orchestrator.records import Hyperparameters

NUM_STAGES = 6
FIXED = Hyperparameters(freeze_depth=NUM_STAGES, learning_rate=1e-5, epochs=50)


def test_a_source_brings_an_arm_that_is_the_winner_on_the_target_alone() -> None:
    winner = some_hyperparameters(ema_decay=0.5)
    alone = control_arms(winner, FIXED, NUM_STAGES)
    assert set(alone) == {"fixed_rule", "head_only", "from_scratch"}
    assert control_arms(winner, FIXED, NUM_STAGES, has_source=True) == {**alone, "target_only": winner}


def test_control_arms_have_linear_heads_whatever_the_winner_has() -> None:
    winner = Hyperparameters(freeze_depth=NUM_STAGES, learning_rate=1e-4, epochs=10, head="prototype")
    arms = control_arms(winner, FIXED, NUM_STAGES)
    assert {arm.head for arm in arms.values()} == {"linear"}
    # Prototypes again would be the winner itself.
    assert arms["head_only"].epochs == 10 and not arms["head_only"].has_one_pass(NUM_STAGES)
