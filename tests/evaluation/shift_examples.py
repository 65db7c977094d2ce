"""Gaussian classes, small classifiers trained on the spot, and images drawn with any class frequencies."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from orchestrator.evaluation.predictions import Predictions

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Classifier:
    """Hold a trained classifier of Gaussian classes around `means` [K, d], made `sharpness` times too sure."""

    means: Values
    model: LogisticRegression
    sharpness: float

    @property
    def num_classes(self) -> int:
        return len(self.means)

    def images(
        self, num_images: int, frequencies: Values | None, seed: int, *, images_of_one_kin: int = 1
    ) -> Predictions:
        """Predict images drawn with class frequencies, even ones by default; kin are of one class and nearly alike."""
        rng = np.random.default_rng(seed)
        num_units = num_images // images_of_one_kin
        truth = np.repeat(rng.choice(self.num_classes, size=num_units, p=frequencies), images_of_one_kin)
        apart = np.repeat(rng.normal(size=(num_units, self.means.shape[1])), images_of_one_kin, axis=0)
        units = np.repeat(np.arange(num_units), images_of_one_kin)
        return Predictions(
            ids=[str(index) for index in range(len(truth))],
            subsets=["all"] * len(truth),
            together=[f"kin{unit}" if images_of_one_kin > 1 else "" for unit in units.tolist()],
            truth=truth,
            probabilities=self.probabilities(self.means[truth] + apart),
        )

    def probabilities(self, features: Values) -> NDArray[np.float32]:
        return softmax(self.sharpness * self.model.predict_log_proba(features), axis=1).astype(np.float32)


def a_classifier(
    num_classes: int = 3,
    *,
    apart: float = 1.5,
    sharpness: float = 2.0,
    frequencies: Values | None = None,
    class_weight: str | None = None,
    seed: int = 0,
) -> Classifier:
    """Train logistic regression on 400 images of Gaussian classes."""
    rng = np.random.default_rng(seed)
    means = apart * np.eye(num_classes)
    truth = rng.choice(num_classes, size=400, p=frequencies)
    features = means[truth] + rng.normal(size=(400, num_classes))
    model = LogisticRegression(C=10.0, class_weight=class_weight).fit(features, truth)
    return Classifier(means, model, sharpness)
