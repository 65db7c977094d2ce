from orchestrator.cluster.baselines import control_arms
from orchestrator.records import Hyperparameters

NUM_STAGES = 6
FIXED = Hyperparameters(freeze_depth=NUM_STAGES, learning_rate=1e-5, epochs=50)


def test_control_arms_have_linear_heads_whatever_the_winner_has() -> None:
    winner = Hyperparameters(freeze_depth=NUM_STAGES, learning_rate=1e-4, epochs=10, head="prototype")
    arms = control_arms(winner, FIXED, NUM_STAGES)
    assert {arm.head for arm in arms.values()} == {"linear"}
    # Prototypes again would be the winner itself.
    assert arms["head_only"].epochs == 10 and not arms["head_only"].has_one_pass(NUM_STAGES)
