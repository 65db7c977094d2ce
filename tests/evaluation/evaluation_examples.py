import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.evaluation.paired_answers import PairedAnswers
from orchestrator.evaluation.predictions import Predictions
from orchestrator.records import Hyperparameters

RECIPE = Hyperparameters(freeze_depth=2, learning_rate=1e-3, epochs=10, batch_size=32, optimizer="adam", weight_decay=0)


def random_probabilities(
    rng: np.random.Generator, num_images: int, num_classes: int, decimals: int | None = None
) -> NDArray[np.float64]:
    """Draw rows that sum to one; rounding to few `decimals` makes ties."""
    probabilities = rng.dirichlet(np.ones(num_classes), size=num_images)
    if decimals is not None:
        probabilities = probabilities.round(decimals) + 10.0**-decimals
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


@st.composite
def scored_images(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw probabilities [n, K] and truth [n] of which some classes may be missing."""
    num_classes = draw(st.integers(1, 6))
    num_images = draw(st.integers(1, 40))
    occurring = draw(st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=num_classes, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    probabilities = random_probabilities(rng, num_images, num_classes, draw(st.sampled_from([None, 1])))
    return probabilities, rng.choice(np.array(occurring), size=num_images)


def a_prediction_table(
    num_images: int = 30,
    num_classes: int = 3,
    seed: int = 0,
    subsets: tuple[str, ...] = ("north", "south"),
    images_of_one_kin: int = 0,
    group: str = "low",
) -> Predictions:
    """Make predictions that are right on about two images of three; consecutive ones are kin where that is asked."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(num_classes, size=num_images)
    probabilities = random_probabilities(rng, num_images, num_classes)
    probabilities[np.arange(num_images), truth] += rng.uniform(0, 1, size=num_images)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return Predictions(
        ids=[f"{group}/{index}" for index in range(num_images)],
        subsets=[subsets[index % len(subsets)] for index in range(num_images)],
        together=[f"kin{index // images_of_one_kin}" if images_of_one_kin else "" for index in range(num_images)],
        truth=truth,
        probabilities=probabilities.astype(np.float32),
    )


def paired(predictions: Predictions) -> PairedAnswers:
    """Add up what the model and its baselines got right."""
    return PairedAnswers.of(predictions.correct, predictions.baselines, predictions.together)
