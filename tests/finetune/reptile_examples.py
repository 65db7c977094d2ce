from typing import Any

import numpy as np
import torch
from finetune_examples import ArraySamples, a_spec, some_settings
from numpy.typing import NDArray

from orchestrator.config import ReptileConfig
from orchestrator.finetune.backbones import Backbone
from orchestrator.finetune.reptile_checkpoints import ReptileState
from orchestrator.finetune.reptile_training import ReptileResult, SubsetSamples, train_reptile
from orchestrator.finetune.weights import load_pretrained

NUM_SUBSETS = 6
QUICK = ReptileConfig(
    steps=5,
    outer_learning_rate=1.0,
    tasks_per_step=2,
    inner_steps=3,
    inner_learning_rate=1e-3,
    batch_size=6,
    episodes=4,
    checkpoint_every=2,
)


def striped(label: int, contrast: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """An image [16, 16, 3] of which the direction of the stripes says the class, and contrast and colour nothing."""
    line = 90 * contrast * np.sign(np.sin(np.arange(16) * np.pi / 2 + rng.uniform(0, np.pi)))
    stripes = np.broadcast_to(line[:, None] if label == 0 else line, (16, 16))
    noisy = rng.uniform(90, 160, 3) + stripes[..., None] + rng.normal(0, 15, (16, 16, 3))
    pixels: NDArray[np.uint8] = noisy.clip(0, 255).astype(np.uint8)
    return pixels


def subset_samples(per_class: int, *, seed: int) -> SubsetSamples:
    """Subsets of the same two classes, each of a contrast of its own."""
    rng = np.random.default_rng(seed)
    pixels, labels, subsets = [], [], []
    for subset in range(NUM_SUBSETS):
        for label in (0, 1):
            pixels += [striped(label, 0.5 + 0.1 * subset, rng) for _ in range(per_class)]
            labels += [label] * per_class
            subsets += [subset] * per_class
    samples = ArraySamples(np.stack(pixels), np.array(labels, dtype=np.int64))
    return SubsetSamples(samples=samples, subsets=np.array(subsets, dtype=np.int64))


def a_backbone(*, seed: int = 0) -> Backbone:
    return load_pretrained("none", a_spec(), seed=seed)[0]


def train(
    backbone: Backbone | None = None,
    config: ReptileConfig = QUICK,
    *,
    resume: ReptileState | None = None,
    **changes: Any,
) -> tuple[ReptileResult, Backbone, list[ReptileState]]:
    """Train on subsets; give the result, the backbone and the state at each point."""
    trained = backbone or a_backbone()
    states: list[ReptileState] = []
    found = train_reptile(
        trained,
        a_spec(),
        subset_samples(12, seed=1),
        subset_samples(6, seed=2),
        config,
        some_settings(**{"batch_norm": "train", **changes}),
        on_point=lambda end: states.append(end.take_state()),
        resume=resume,
    )
    return found, trained, states


def vector(backbone: Backbone) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1).float() for tensor in backbone.state_dict().values()])
