"""The exception tree: every error names the rule that was broken, the value that broke it and the remedy."""

from __future__ import annotations

from typing import Any


class OrchestratorError(Exception):
    """Report a broken rule.

    `rule` is a sentence without a full stop; `value` is what broke it, left out of the message when None;
    `remedy` says what to do. Instances survive pickling: Ray carries them between processes.
    """

    def __init__(self, rule: str, *, value: object = None, remedy: str = "") -> None:
        super().__init__(rule)
        self.rule = rule
        self.value = None if value is None else str(value)
        self.remedy = remedy

    def __str__(self) -> str:
        text = self.rule if self.value is None else f"{self.rule}, got {self.value}"
        return f"{text}. {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.rule, self.value, self.remedy)


def _rebuild(kind: type[OrchestratorError], rule: str, value: str | None, remedy: str) -> OrchestratorError:
    return kind(rule, value=value, remedy=remedy)


class ConfigError(OrchestratorError):
    """Report a mistake in the experiment file or in a `--set` override."""


class StorageError(OrchestratorError):
    """Report a path that cannot be read, written or understood."""


class UnavailableError(StorageError):
    """Report a store or machine that goes on failing: what was asked for may well be there."""


class DataError(OrchestratorError):
    """Report input data that cannot be used."""


class BadFractionError(DataError):
    """Report that more rows than `data.max_bad_fraction` allows had to be quarantined."""


class RecordError(OrchestratorError):
    """Report a record that is missing, damaged, or made from other inputs than the present ones."""


class RunLockedError(OrchestratorError):
    """Report that another live process owns the run directory."""


class BackboneError(OrchestratorError):
    """Report a backbone that is unknown or breaks the interface of stages."""


class WeightsError(OrchestratorError):
    """Report pretrained weights that cannot be loaded or do not fit the backbone."""


class TrainingError(OrchestratorError):
    """Report a training run that cannot go on."""


class DivergedError(TrainingError):
    """Report a loss that is no longer finite."""


class CollapsedError(TrainingError):
    """Report a network whose outputs have become the same for all images."""


class SearchError(OrchestratorError):
    """Report a search that cannot yield a recipe."""


class ResourceError(OrchestratorError):
    """Report a plan that does not fit the cluster."""


class WaitTimeoutError(OrchestratorError):
    """Report a wait on the cluster that saw no progress within its limit."""
