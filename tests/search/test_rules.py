import pytest

from orchestrator.search.rules import fixed_rule


@pytest.mark.parametrize(
    ("label_entropy", "learning_rate", "epochs"), [(0.0, 1e-5, 50), (4.0, 1e-5, 50), (4.0001, 1e-4, 20)]
)
def test_rate_and_epochs_turn_above_four_nats(label_entropy: float, learning_rate: float, epochs: int) -> None:
    rule = fixed_rule(label_entropy, num_stages=6, batch_size=32)
    assert (rule.learning_rate, rule.epochs) == (learning_rate, epochs)


def test_only_the_head_is_trained_with_adam_and_the_batch_size_that_is_asked_for() -> None:
    rule = fixed_rule(1.0, num_stages=6, batch_size=48)
    assert (rule.freeze_depth, rule.optimizer, rule.weight_decay, rule.batch_size) == (6, "adam", 0.0, 48)
