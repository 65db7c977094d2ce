"""The fixed rule that every search must beat."""

from __future__ import annotations

from orchestrator.records import Hyperparameters

HIGH_LABEL_ENTROPY = 4.0


def fixed_rule(label_entropy: float, *, num_stages: int, batch_size: int) -> Hyperparameters:
    """Give the configuration that common practice picks from the label entropy alone, in nats.

    Above 4.0 nats: learning rate 1e-4 for 20 epochs; else 1e-5 for 50. Only the head is trained, with Adam
    and no weight decay.
    """
    is_high = label_entropy > HIGH_LABEL_ENTROPY
    return Hyperparameters(
        freeze_depth=num_stages,
        learning_rate=1e-4 if is_high else 1e-5,
        epochs=20 if is_high else 50,
        batch_size=batch_size,
    )
