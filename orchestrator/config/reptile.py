"""How an initialisation is learnt over many subsets by Reptile."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.base import PositiveFloat, PositiveInt
from orchestrator.config.data import Section


class ReptileConfig(Section):
    """Say how an initialisation is learnt over many subsets, from which a few steps go far on each.

    Nichol, Achiam and Schulman, "On First-Order Meta-Learning Algorithms", 2018. In each of `steps` outer steps
    `tasks_per_step` tasks are drawn, each is trained on for `inner_steps` steps, and the weights go the share
    `outer_learning_rate`, which falls linearly to 0, of the mean way to where these trainings end.

    A task is a subset, drawn uniformly, with at most `ways` of its classes and at most `shots` images of each; without
    them it has all. It is trained on in batches of at least `batch_size` different images where it has as many, by
    `adam` without momentum (beta1 = 0, as in the paper) or plain `sgd`, at `inner_learning_rate`. The rates are below
    the paper's, 1e-3 and 1 for the inner and the outer one, which begin with nothing and spoil weights that are there.
    Statistics of BatchNorm are kept or learnt as `train.batch_norm` says, and learnt from nothing. Its head is a new
    one, drawn as fine-tuning draws it: what is kept is the backbone, and classes of subsets may differ. Images are not
    varied.

    Before the first and after the last step `episodes` tasks of validation images, at most half of a class's, are
    trained on alike, and what they give on other validation images is kept in the history. After every
    `checkpoint_every` steps the losses are, and a checkpoint.
    """

    steps: PositiveInt = 1000
    outer_learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    tasks_per_step: PositiveInt = 5
    ways: Annotated[int, Field(ge=2)] | None = None
    shots: PositiveInt | None = None
    inner_steps: PositiveInt = 8
    inner_learning_rate: PositiveFloat = 3e-4
    inner_optimizer: Literal["adam", "sgd"] = "adam"
    batch_size: Annotated[int, Field(ge=2)] = 10
    episodes: Annotated[int, Field(ge=0)] = 50
    checkpoint_every: PositiveInt = 100
