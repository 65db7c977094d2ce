"""Words a mistake in the experiment file: the field, the value and the remedy, in one line each."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.config import BY_NAME_TAG, CHOICES_TAG, NAME_TAG, NUMBERS_TAG, RANGE_TAG, ExperimentConfig

_WHOLE_NUMBER = "must be a whole number"
_NUMBER = "must be a number"
_LIST = "must be a list"
_MAPPING = "must be a mapping of keys"

_TAGS = (RANGE_TAG, CHOICES_TAG, NAME_TAG, NUMBERS_TAG, BY_NAME_TAG)

# What pydantic found, by its name of the mistake, as a rule that a reader of the file understands.
_RULES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": _MAPPING,
    "finite_number": "must be a finite number",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_parsing_size": _WHOLE_NUMBER,
    "int_type": _WHOLE_NUMBER,
    "invalid_key": "keys must be text",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": _LIST,
    "literal_error": "must be {expected}",
    "missing": "must hold more values",
    "model_type": _MAPPING,
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "too_long": "must hold at most {max_length} values",
    "too_short": "must hold at least {min_length} value",
    "tuple_type": _LIST,
}


def explain(error: ValidationError) -> str:
    """Word every mistake that pydantic found in the experiment file, a line each."""
    return "\n".join(dict.fromkeys(_explain(detail) for detail in error.errors()))


def _explain(detail: ErrorDetails) -> str:
    parts = [part for part in detail["loc"] if part not in _TAGS]
    # The place in a list is no key that --set could take: the field is the list.
    location = [str(part) for part in itertools.takewhile(lambda part: isinstance(part, str), parts)]
    field, kind, value = ".".join(location), detail["type"], detail["input"]
    if kind == "extra_forbidden":
        keys = [str(part) for part in parts if isinstance(part, str)]
        return f"{'.'.join(keys)} is not a key of the experiment file, got {_show(value)}. {_suggest(keys)}"
    if kind == "missing" and isinstance(parts[-1], str) and len(location) < len(parts):
        return f"{field} must have {parts[-1]} in every entry, got {_show(value)}. Add it to the experiment file."
    if kind == "missing" and len(location) == len(parts):
        return f"{field} must be given, got nothing. Add it to the experiment file or use --set {field}=VALUE."
    if kind == "value_error":
        return _quote_validator(field, detail["msg"].removeprefix("Value error, "))
    context = detail.get("ctx", {})
    rule = _RULES[kind].format(**context) if kind in _RULES else detail["msg"]
    return f"{field} {rule}, got {_show(value)}. {_remedy(kind, field, value, context)}".lstrip()


def _quote_validator(field: str, message: str) -> str:
    rule, _, remedy = message.rpartition(": ")
    # The validator of a value says the rule alone; that of a section names the field below it first.
    separator = " " if rule.startswith("must ") else "." if field else ""
    return f"{field}{separator}{rule}. {remedy[:1].upper()}{remedy[1:]}."


def _remedy(kind: str, field: str, value: object, context: Mapping[str, Any]) -> str:
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        close = difflib.get_close_matches(str(value), choices, n=1)
        if close:
            return f"Did you mean {close[0]}?"
    if kind == "invalid_key" or (kind == "string_type" and isinstance(value, bool | int | float)):
        return "Put it in quotes."
    return f"Correct it in the experiment file or use --set {field}=VALUE."


def _show(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _suggest(location: Sequence[str]) -> str:
    *section, key = location
    known = _keys_of(section)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {'.'.join([*section, close[0]])}?"
    return f"Known keys there: {', '.join(known)}."


def _keys_of(section: Sequence[str]) -> list[str]:
    model: type[BaseModel] = ExperimentConfig
    for key in section:
        model = next(_models_in(model.model_fields[key].annotation))
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
