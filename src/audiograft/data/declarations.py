"""A mapping from YAML as the frozen dataclass that declares its keys: every key and type checked, with the closest valid key for a wrong one."""

from __future__ import annotations

import difflib
import types
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from audiograft.types import ConfigError

_Section = TypeVar("_Section")


class OpenSection(ABC):
    """A section whose keys are not all known from its fields, so that it is built in its own way."""

    @classmethod
    @abstractmethod
    def from_mapping(cls, tree: Mapping[Any, Any], key: str, origin: str) -> Self:
        """Build it from a mapping; args as those of `convert`.

        Raises:
            ConfigError: a key or a value does not fit.
        """


def declared_fields(declared: Any) -> tuple[Field[Any], ...]:
    """The fields of a dataclass, or of an object of one, which a protocol such as `Source` can't promise to be."""
    return fields(declared)


def build(cls: type[_Section], tree: Mapping[Any, Any], prefix: str, origin: str, mend: str = "add it") -> _Section:
    """Build a dataclass from a mapping.

    Args:
        cls: its fields are strings, numbers, booleans, paths, literals, tuples, dataclasses, or one of these or None.
        tree: the values by the names of the fields.
        prefix: put before keys in messages, such as `data.`.
        origin: where the mapping comes from, for messages: a file.
        mend: what is said of a missing key; `{key}` stands for it.

    Raises:
        ConfigError: an unknown key (with the closest valid one), a missing key or a wrong type.
    """
    hints = get_type_hints(cls)
    valid = {item.name: item for item in declared_fields(cls)}
    for key in tree:
        if key not in valid:
            raise unknown_key(key, valid, prefix, origin)
    for name, item in valid.items():
        if name not in tree and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{origin}: the key {prefix}{name} is missing: {mend.format(key=prefix + name)}")
    return cls(**{key: convert(value, hints[key], f"{prefix}{key}", origin, mend) for key, value in tree.items()})


def unknown_key(key: Any, valid: Mapping[str, Any], prefix: str, origin: str) -> ConfigError:
    """The error for a key that nothing reads."""
    close = difflib.get_close_matches(str(key), valid, n=1, cutoff=0.0)
    return ConfigError(f"{origin}: unknown key {prefix}{key}: the closest valid one is {prefix}{close[0]}")


def convert(value: Any, hint: Any, key: str, origin: str, mend: str = "add it") -> Any:
    """A YAML value as the type that a field declares.

    Raises:
        ConfigError: it is of another type; the message has `origin` and `key`.
    """
    if isinstance(hint, types.UnionType) or get_origin(hint) is Union:
        if value is None and types.NoneType in get_args(hint):
            return None
        sections = [choice for choice in get_args(hint) if is_dataclass(choice)]
        return convert(value, sections[0] if sections and isinstance(value, dict) else get_args(hint)[0], key, origin, mend)
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(value, dict):
            raise wrong_value(key, "a section with keys of its own", value, origin)
        if issubclass(hint, OpenSection):
            return hint.from_mapping(value, key, origin)
        return build(hint, value, f"{key}.", origin, mend)
    if get_origin(hint) is tuple:
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(convert(item, get_args(hint)[0], key, origin, mend) for item in values)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise wrong_value(key, f"one of {', '.join(get_args(hint))}", value, origin)
        return value
    return _scalar(value, hint, key, origin)


def _scalar(value: Any, hint: Any, key: str, origin: str) -> Any:
    if hint is float:
        return _number(value, key, origin)
    if hint is Path and isinstance(value, str | Path) and str(value):
        return Path(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise wrong_value(key, {int: "a whole number", bool: "true or false", str: "text", Path: "a path"}[hint], value, origin)
    return value


def _number(value: Any, key: str, origin: str) -> float:
    """A finite float. YAML 1.1 reads `1e-3` as text, since it lacks a dot; here it is a number."""
    try:
        number = float("nan") if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        number = float("nan")
    if not abs(number) < float("inf"):
        raise wrong_value(key, "a number", value, origin)
    return number


def wrong_value(key: str, expected: str, value: Any, origin: str) -> ConfigError:
    """The error for a value that does not fit its key."""
    return ConfigError(f"{origin}: {key} must be {expected}, not {value!r}")
