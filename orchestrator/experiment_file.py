"""Reads the experiment file: YAML, overrides and relative paths in, a config or one clear error out."""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from orchestrator import storage
from orchestrator.config import ExperimentConfig
from orchestrator.config.few_shot import open_keys
from orchestrator.config_mistakes import explain
from orchestrator.errors import ConfigError

# Keys that hold a path or URI, by section.
_PATHS = (
    ("storage_path",),
    ("data", "uri"),
    ("data", "image_root"),
    ("pretrain", "data", "uri"),
    ("pretrain", "data", "image_root"),
    ("pretrain", "weights"),
    ("source", "uri"),
    ("source", "data", "uri"),
    ("source", "data", "image_root"),
    ("backbone", "weights"),
    ("backbone", "candidates", "weights"),
)

_FLOAT_TAG = "tag:yaml.org,2002:float"
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$")


class _Loader(yaml.SafeLoader):
    """Read YAML with the numbers of YAML 1.2 (PyYAML's own rule takes `1e-4` for a string) and unique keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, key in enumerate(keys):
            if key.value in {earlier.value for earlier in keys[:place]}:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value} occurs twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Write YAML that `_Loader` reads back: text that looks like one of its numbers is quoted."""


def _use_yaml_1_2_floats(kind: type[_Loader] | type[_Dumper]) -> None:
    kind.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _FLOAT_TAG]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    # The integers of the inherited rules come first: what is left with these letters is a float.
    kind.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+0123456789."))


_use_yaml_1_2_floats(_Loader)
_use_yaml_1_2_floats(_Dumper)


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read, override, validate and resolve an experiment file.

    `overrides` are `dotted.key=value` with the value in YAML, which replaces the old one as a whole. Relative
    paths in the file are relative to the file, those in overrides to the working directory. Raises ConfigError.
    """
    file = Path(path).expanduser().absolute()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the experiment file must be readable", value=file, remedy=f"Check the path ({error})."
        ) from error
    raw = _resolve_paths(parse_yaml(text, source=str(file)), file.parent)
    for override in overrides:
        raw = _override(raw, override)
    return validate_experiment(raw)


def load_resolved(uri: str) -> ExperimentConfig:
    """Read what `dump_experiment` wrote to a path or URI. Raises StorageError or ConfigError."""
    return validate_experiment(parse_yaml(storage.read_bytes(uri).decode(errors="replace"), source=uri))


def dump_experiment(config: ExperimentConfig) -> str:
    """Write the resolved experiment as YAML that `load_experiment` reads back to an equal value.

    What is decided for each group alone is in it only where the experiment names it.
    """
    resolved = config.model_dump(mode="json", exclude=open_keys(config))
    return yaml.dump(resolved, Dumper=_Dumper, sort_keys=False)


def parse_yaml(text: str, *, source: str) -> dict[str, Any]:
    """Parse YAML text that must hold a mapping. Raises ConfigError naming `source` and the line."""
    try:
        raw = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        where, problem = _locate(error)
        raise ConfigError(
            "the experiment file must be YAML", value=f"{source}{where}", remedy=f"Correct it: {problem}."
        ) from error
    if not isinstance(raw, dict):
        raise ConfigError(
            "the experiment file must hold a mapping of sections",
            value=f"{source}: {raw!r:.60}",
            remedy="Write name: ... and data: ... at its top level.",
        )
    return raw


def validate_experiment(raw: Mapping[str, Any]) -> ExperimentConfig:
    """Validate a plain mapping. Raises ConfigError naming every wrong field, its value and the remedy."""
    try:
        return ExperimentConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def is_weights_path(weights: object) -> bool:
    """Tell a path or URI of weights from a keyword or a torchvision weights name."""
    return isinstance(weights, str) and ("/" in weights or weights.endswith((".pt", ".pth", ".safetensors")))


def _locate(error: yaml.YAMLError) -> tuple[str, str]:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f", line {error.problem_mark.line + 1}", error.problem or "it cannot be read"
    return "", str(error)


def _override(raw: dict[str, Any], override: str) -> dict[str, Any]:
    dotted, separator, text = override.partition("=")
    keys = dotted.split(".")
    if not separator or not all(keys):
        raise ConfigError(
            "--set takes dotted.key=value", value=override, remedy="For example --set search.num_samples=20."
        )
    change: dict[str, Any] = {keys[-1]: _parse_value(text, override)}
    for key in reversed(keys[:-1]):
        change = {key: change}
    return _assign(raw, _resolve_paths(change, Path.cwd()), depth=len(keys))


def _parse_value(text: str, override: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(
            "the value of --set must be YAML", value=override, remedy="Close its brackets, or put it in quotes."
        ) from error


def _assign(base: dict[str, Any], change: dict[str, Any], *, depth: int) -> dict[str, Any]:
    assigned = dict(base)
    for key, value in change.items():
        below = assigned.get(key)
        if depth > 1 and isinstance(below, dict):
            value = _assign(below, value, depth=depth - 1)
        assigned[key] = value
    return assigned


def _resolve_paths(raw: dict[str, Any], base: Path) -> dict[str, Any]:
    resolved = copy.deepcopy(raw)
    for *names, key in _PATHS:
        for section in _sections(resolved, names):
            if _is_path(key, section.get(key)):
                section[key] = _absolute(section[key], base)
    return resolved


def _sections(raw: object, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Give the mappings at a path of keys; every entry of a list on the way."""
    if isinstance(raw, list):
        for entry in raw:
            yield from _sections(entry, names)
    elif isinstance(raw, dict):
        if names:
            yield from _sections(raw.get(names[0]), names[1:])
        else:
            yield raw


def _is_path(key: str, value: object) -> bool:
    return is_weights_path(value) if key == "weights" else isinstance(value, str) and value != ""


def _absolute(path: str, base: Path) -> str:
    if "://" in path:
        return path
    return str((base / Path(path).expanduser()).resolve())
