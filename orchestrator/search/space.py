"""The space of configurations that a search draws from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from orchestrator.config import AUGMENTATIONS, PLAIN_REGULARIZERS, AugmentConfig, FineTuneConfig, Range, SpaceConfig
from orchestrator.errors import SearchError
from orchestrator.records import Hyperparameters

ParameterValue = bool | int | float | str | tuple[float, ...] | tuple[tuple[str, float], ...] | None
DEFAULT_FINE_TUNING = FineTuneConfig()
DEFAULT_AUGMENTATION = AugmentConfig()
# What counts where a head is found in one pass: it is found on the samples of an epoch.
_OF_ONE_PASS = frozenset({"head", "freeze_depth", *AUGMENTATIONS})


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Hold a distribution for every searched hyperparameter and a value for every other one.

    `num_stages` are those of the backbone; None where they are not known. `augment` says how samples are varied where
    that is not searched: configurations leave it to the section.
    """

    distributions: Mapping[str, BaseDistribution]
    constants: Mapping[str, ParameterValue]
    num_stages: int | None = None
    augment: AugmentConfig = DEFAULT_AUGMENTATION

    @classmethod
    def from_config(
        cls,
        space: SpaceConfig,
        num_stages: int,
        fixed: FineTuneConfig = DEFAULT_FINE_TUNING,
        augment: AugmentConfig = DEFAULT_AUGMENTATION,
    ) -> SearchSpace:
        """Build the space for a backbone of `num_stages` stages.

        Without a dimension of its own, freeze depth spans 0 to `num_stages`, and everything else has its `fixed`
        value. Raises SearchError when a freeze depth exceeds `num_stages`.
        """
        freeze_depth = _distribution(space.freeze_depth or Range(low=0, high=num_stages))
        deepest = _highest(freeze_depth)
        if deepest > num_stages:
            raise SearchError(
                f"search.space.freeze_depth must be at most {num_stages}, the stages of the backbone",
                value=deepest,
                remedy="Lower it, or leave it out to search every depth.",
            )
        always = {
            "freeze_depth": freeze_depth,
            "learning_rate": _distribution(space.learning_rate),
            "epochs": _distribution(space.epochs),
        }
        dimensions = {name: getattr(space, name) for name in FineTuneConfig.model_fields}
        return cls(
            distributions={
                **always,
                **{name: _distribution(found) for name, found in dimensions.items() if found is not None},
                **{name: _distribution(getattr(space, name)) for name in space.augmentations},
            },
            constants={name: getattr(fixed, name) for name, found in dimensions.items() if found is None},
            num_stages=num_stages,
            augment=augment,
        )

    @property
    def changes_images(self) -> bool:
        """Tell whether images are changed batch by batch whatever is drawn."""
        return self.constants.get("mixing", "none") != "none" or self.constants.get("adversarial", 0.0) != 0.0

    @property
    def has_adversaries(self) -> bool:
        """Tell whether some configuration trains on adversarial images beside the others."""
        return self._may("adversarial", lambda value: value != 0.0)

    @property
    def copies_of_weights(self) -> int:
        """Count the copies of the weights that a training keeps at most, beside those that it trains.

        Those of the best epoch, the running mean, and those that a regulariser pulls to.
        """
        averages = self._may("ema_decay", lambda value: value is not None)
        pulls = self._may("regularizer", lambda value: value not in PLAIN_REGULARIZERS)
        return 1 + averages + pulls

    def _may(self, name: str, is_so: Callable[[object], bool]) -> bool:
        """Tell whether a hyperparameter may take a value of a kind; of a range some value always is."""
        distribution = self.distributions.get(name)
        if distribution is None:
            return is_so(self.constants.get(name, getattr(DEFAULT_FINE_TUNING, name)))
        return any(map(is_so, distribution.choices)) if isinstance(distribution, CategoricalDistribution) else True

    def suggest(self, trial: optuna.Trial) -> Hyperparameters:
        """Draw one configuration through an Optuna trial."""
        drawn = {name: _suggest(trial, name, dimension) for name, dimension in self.distributions.items()}
        return self.complete(drawn)

    def complete(self, parameters: Mapping[str, object]) -> Hyperparameters:
        """Add the values that are not searched to the searched ones.

        Where nothing is trained step by step, of all other searched values the lowest, or the first choice, stands for
        all: configurations that are the same training are one.
        """
        found = Hyperparameters.model_validate({**self.constants, **parameters})
        if self.num_stages is None or not found.has_one_pass(self.num_stages):
            return found
        idle = {name: _first(dimension) for name, dimension in self.distributions.items() if name not in _OF_ONE_PASS}
        return Hyperparameters.model_validate({**self.constants, **parameters, **idle})

    def parameters(self, hyperparameters: Hyperparameters) -> dict[str, ParameterValue]:
        """Give the searched values of a configuration, by name."""
        return {name: getattr(hyperparameters, name) for name in self.distributions}

    def clip(self, hyperparameters: Hyperparameters) -> Hyperparameters:
        """Move a configuration to the nearest one inside the space.

        The nearest of several learning rates is nearest in ratio, of other numbers in difference; what is no choice
        becomes the first one, and what is None the lowest of a range; where it stands for what `augment` says, the
        nearest to that. A value that is not searched becomes the space's.
        """
        nearest = {
            name: _nearest(self._meant(hyperparameters, name), dimension, _scale(name))
            for name, dimension in self.distributions.items()
        }
        return self.complete(nearest)

    def _meant(self, hyperparameters: Hyperparameters, name: str) -> ParameterValue:
        value: ParameterValue = getattr(hyperparameters, name)
        if value is None and name in AUGMENTATIONS:
            value = getattr(self.augment, name)
        return value

    def holds(self, name: str, value: ParameterValue) -> bool:
        """Tell whether a searched hyperparameter of that name may take the value."""
        distribution = self.distributions.get(name)
        if isinstance(distribution, CategoricalDistribution):
            return value in distribution.choices
        if isinstance(distribution, (IntDistribution, FloatDistribution)) and isinstance(value, int | float):
            return distribution.low <= value <= distribution.high and value == _typed(value, distribution)
        return False

    def configurations(self, fixed: Mapping[str, ParameterValue], *, most: int) -> list[Hyperparameters] | None:
        """List every configuration with some values fixed; None when there are more than `most`."""
        listed: list[Sequence[ParameterValue]] = []
        for name, distribution in self.distributions.items():
            values = [fixed[name]] if name in fixed else _values(distribution)
            if values is None:
                return None
            listed.append(values)
        if math.prod(map(len, listed)) > most:
            return None
        found = [
            self.complete(dict(zip(self.distributions, chosen, strict=True))) for chosen in itertools.product(*listed)
        ]
        return list(dict.fromkeys(found))


def _distribution(dimension: Range | Sequence[int] | Sequence[float] | Sequence[str]) -> BaseDistribution:
    if not isinstance(dimension, Range):
        return CategoricalDistribution(list(dict.fromkeys(dimension)))
    if dimension.is_integer:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _first(dimension: BaseDistribution) -> ParameterValue:
    """Give the first choice or the lowest value."""
    if isinstance(dimension, CategoricalDistribution):
        return dimension.choices[0]
    if isinstance(dimension, (IntDistribution, FloatDistribution)):
        return dimension.low
    raise TypeError(f"no first value is known for {type(dimension).__name__}")


def _highest(dimension: BaseDistribution) -> float:
    if isinstance(dimension, CategoricalDistribution):
        return max(choice for choice in dimension.choices if isinstance(choice, (int, float)))
    if isinstance(dimension, (IntDistribution, FloatDistribution)):
        return dimension.high
    raise TypeError(f"no bounds are known for {type(dimension).__name__}")


def _typed(value: float, distribution: IntDistribution | FloatDistribution) -> float:
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def _values(distribution: BaseDistribution) -> Sequence[ParameterValue] | None:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1)
    if isinstance(distribution, FloatDistribution) and distribution.single():
        return [distribution.low]
    return None


def _suggest(trial: optuna.Trial, name: str, dimension: BaseDistribution) -> ParameterValue:
    if isinstance(dimension, IntDistribution):
        return trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, FloatDistribution):
        return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, CategoricalDistribution):
        return trial.suggest_categorical(name, dimension.choices)
    raise TypeError(f"no suggestion is known for {type(dimension).__name__}")


def _scale(name: str) -> Callable[[float], float]:
    return math.log if name == "learning_rate" else float


def _nearest(value: ParameterValue, dimension: BaseDistribution, scale: Callable[[float], float]) -> ParameterValue:
    if isinstance(dimension, CategoricalDistribution):
        return _nearest_choice(value, dimension.choices, scale)
    if isinstance(dimension, (IntDistribution, FloatDistribution)):
        # What is off is nearest to the least of it.
        number = min(max(dimension.low if value is None else _number(value), dimension.low), dimension.high)
        return round(number) if isinstance(dimension, IntDistribution) else float(number)
    raise TypeError(f"no bounds are known for {type(dimension).__name__}")


def _number(value: ParameterValue) -> float:
    if not isinstance(value, (bool, int, float)):
        raise TypeError(f"a number was expected, not {value!r}")
    return float(value)


def _nearest_choice(
    value: ParameterValue, choices: tuple[ParameterValue, ...], scale: Callable[[float], float]
) -> ParameterValue:
    if value in choices:
        return value
    numbers = [choice for choice in choices if isinstance(choice, (int, float))]
    if value is None or isinstance(value, (str, tuple)) or not numbers:
        return choices[0]
    here = scale(value)
    return min(numbers, key=lambda choice: abs(scale(choice) - here))
