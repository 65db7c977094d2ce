from collections.abc import Callable, Iterator

import pytest
import torch
from finetune_examples import LABELS, a_spec

from orchestrator.finetune.classifier import Classifier, new_classifier
from orchestrator.finetune.weights import load_pretrained


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small are faster in one thread, and round alike on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny_classifier() -> Callable[..., Classifier]:
    """Make the same tiny classifier whenever it is called with the same arguments."""

    def make(*, seed: int = 0, **kwargs: int | float) -> Classifier:
        backbone, _ = load_pretrained("none", a_spec(**kwargs), seed=seed)
        return new_classifier(backbone, len(LABELS), seed=seed)

    return make
