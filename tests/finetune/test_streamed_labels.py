"""What a stream brings is learnt as samples that are held are, whatever kind of labels they have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from finetune_examples import (
    ArraySamples,
    ListStream,
    a_spec,
    label_sets,
    some_hyperparameters,
    some_samples,
    some_settings,
    subsets_of_a_group,
    two_tasks,
)
from numpy.testing import assert_array_equal

from orchestrator.errors import TrainingError
from orchestrator.finetune.batches import plan_batches
from orchestrator.finetune.classifier import Classifier, new_classifier
from orchestrator.finetune.label_counts import NO_LABEL, LabelCounts
from orchestrator.finetune.loop import fine_tune
from orchestrator.finetune.weights import load_pretrained

COUNT = 27
CASES = {
    "balanced weights": (some_samples(COUNT), 3, {"class_weights": "balanced"}),
    "two tasks": (two_tasks(COUNT, missing=9), (3, 2), {"task_weighting": "size", "class_weights": "balanced"}),
    "uncertain tasks": (two_tasks(COUNT, missing=9), (3, 2), {"task_weighting": "uncertainty"}),
    "heads of subsets": (subsets_of_a_group(COUNT), (3, 2), {}),
    "any number of labels": (label_sets(COUNT), 3, {"loss": "binary_cross_entropy"}),
}


def trained(
    samples: ArraySamples | ListStream, held: ArraySamples, heads: tuple[int, ...] | int, **changes: object
) -> tuple[Classifier, float]:
    backbone, _ = load_pretrained("none", a_spec(), seed=0)
    classifier = new_classifier(backbone, heads, seed=0)
    recipe = some_hyperparameters(epochs=1, **changes)
    result = fine_tune(classifier, a_spec(), samples, held, recipe, some_settings())
    return classifier, result.history[0].train_loss


@pytest.mark.parametrize("name", CASES)
def test_a_stream_trains_as_the_same_batches_of_held_samples_do(name: str) -> None:
    samples, heads, changes = CASES[name]
    batches = plan_batches(COUNT, 8, some_settings().order_seed, 1, 1)
    stream = ListStream(samples, [batch.tolist() for batch in batches], COUNT)
    (held, held_loss), (streamed, loss) = (trained(train, samples, heads, **changes) for train in (samples, stream))
    assert loss == pytest.approx(held_loss, rel=1e-5)
    for one, other in zip(held.state_dict().values(), streamed.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_stream_of_other_labels_than_the_loss_has_is_refused() -> None:
    sets = label_sets(4)
    with pytest.raises(TrainingError, match="must be the loss of samples with any number of labels"):
        trained(ListStream(sets, [[0, 1, 2, 3]], 4), sets, 3)


@pytest.mark.parametrize("name", CASES)
def test_labels_that_are_counted_in_parts_are_counted_once(name: str) -> None:
    labels = CASES[name][0].labels
    whole = LabelCounts.of(labels)
    parts = LabelCounts.added(LabelCounts.of(part) for part in (labels[:1], labels[1:1], labels[1:20], labels[20:]))
    assert parts.num_samples == whole.num_samples == COUNT
    for one, other in zip(parts.by_task, whole.by_task, strict=True):
        assert_array_equal(one, other)


def test_what_has_no_label_for_a_task_does_not_count() -> None:
    labels = np.array([[0, NO_LABEL], [2, NO_LABEL], [2, 1]])
    first, second = LabelCounts.of(labels).by_task
    assert (first.tolist(), second.tolist()) == ([1, 0, 2], [0, 1])
