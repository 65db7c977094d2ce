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


def test_heads_of_subsets_bring_an_arm_with_one_head_by_the_winners_recipe() -> None:
    winner = some_hyperparameters(task_weighting="uncertainty")
    arms = control_arms(winner, FIXED, NUM_STAGES, has_heads=True)
    one = some_hyperparameters(task_weighting="equal")
    assert arms == {**control_arms(winner, FIXED, NUM_STAGES), "one_head": one}


def test_control_arms_have_linear_heads_whatever_the_winner_has() -> None:
    winner = Hyperparameters(freeze_depth=NUM_STAGES, learning_rate=1e-4, epochs=10, head="prototype")
    arms = control_arms(winner, FIXED, NUM_STAGES)
    assert {arm.head for arm in arms.values()} == {"linear"}
    # Prototypes again would be the winner itself.
    assert not arms["head_only"].has_one_pass(NUM_STAGES)


def test_control_arms_vary_samples_as_the_winner_does_and_the_fixed_rule_as_the_experiment_says() -> None:
    winner = some_hyperparameters(flip=True, crop=0.1)
    arms = control_arms(winner, FIXED, NUM_STAGES)
    for name in ("head_only", "from_scratch"):
        assert arms[name].own_augmentations == {"flip": True, "crop": 0.1}
    assert arms["fixed_rule"].own_augmentations == {}


def test_beside_one_pass_control_arms_have_a_rate_and_epochs_of_their_own() -> None:
    winner = Hyperparameters(freeze_depth=NUM_STAGES, learning_rate=1e-4, epochs=1, head="prototype")
    arms = control_arms(winner, FIXED, NUM_STAGES)
    for name in ("head_only", "from_scratch"):
        assert (arms[name].learning_rate, arms[name].epochs) == (1e-3, 30)
    trained = control_arms(winner.model_copy(update={"head": "linear", "epochs": 7}), FIXED, NUM_STAGES)
    assert trained["from_scratch"].epochs == 7 and trained["from_scratch"].learning_rate == 1e-4
