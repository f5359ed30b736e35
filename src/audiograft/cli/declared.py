"""Options of the command line made from dataclasses, so that what `option` declares is written down once."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from audiograft.data.declarations import declared_fields

Declared = TypeVar("Declared")


def parameters(declared: type[Any], panel: str | None = None, leave_out: Collection[str] = ()) -> list[inspect.Parameter]:
    """The fields of a dataclass as parameters of a Typer command.

    Fields that are no options, such as another dataclass, are left out. A tuple can be given several times.

    Args:
        declared: its fields are made by `option`.
        panel: heading in `--help`; what has to be given stands with the verb's own options.
        leave_out: names of fields.
    """
    hints = get_type_hints(declared)
    chosen = [item for item in declared_fields(declared) if item.name not in leave_out and not hasattr(hints[item.name], "__dataclass_fields__")]
    return [_parameter(item, hints[item.name], panel) for item in chosen]


def made_of(declared: type[Declared], values: Mapping[str, Any], **more: Any) -> Declared:
    """The dataclass with the values of its fields, as Typer gives them.

    Args:
        declared: the dataclass.
        values: by the names of the fields; others are passed over.
        more: values that come from elsewhere.
    """
    # Typer gives None for what was left out and has no default, and for an empty tuple.
    own = {item.name: values[item.name] for item in declared_fields(declared) if values.get(item.name) is not None}
    return declared(**{name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}, **more)


def command(run: Callable[[dict[str, Any]], None], options: list[inspect.Parameter], help: str) -> Callable[..., None]:
    """A function with these parameters for `app.command`, which hands their values on.

    Args:
        run: takes the values by name.
        options: its parameters; those of the first of one name win.
        help: its docstring.
    """

    def function(**values: Any) -> None:
        run(values)

    by_name: dict[str, inspect.Parameter] = {}
    for option in options:
        by_name.setdefault(option.name, option)
    vars(function)["__signature__"] = inspect.Signature(list(by_name.values()))
    function.__annotations__ = {}
    function.__doc__ = unmarked(help)
    return function


def _parameter(item: Field[Any], hint: Any, panel: str | None) -> inspect.Parameter:
    kind, default = hint, item.default
    if any(get_origin(part) is tuple for part in (hint, *_members(hint))):
        kind, default = list[str] | None, (list(default) if isinstance(default, tuple) else default) or None
    required = item.default is MISSING
    # Names of options share 80 columns with what they take: kinds are short, and choices stand in the help.
    choices = [choice for part in (hint, *_members(hint)) if get_origin(part) is Literal for choice in get_args(part)]
    metavar = "<choice>" if choices else "<str>" if kind != hint else None
    settings: dict[str, Any] = {"help": unmarked(_sentence(item, hint)), "rich_help_panel": None if required else panel}
    if item.metadata["argument"]:
        info: Any = typer.Argument(metavar=item.name.upper(), **settings)
    elif default is False:  # with nothing to be switched off
        info = typer.Option(f"--{item.name.replace('_', '-')}", **settings)
    else:
        if any(choice not in settings["help"] for choice in choices):
            settings["help"] += f" One of {', '.join(choices)}."
        info = typer.Option(metavar=metavar, **settings)
    return inspect.Parameter(
        item.name, inspect.Parameter.KEYWORD_ONLY, default=inspect.Parameter.empty if required else default, annotation=Annotated[kind, info]
    )


def unmarked(text: str) -> str:
    """Help in which brackets are brackets, and no markup that rich would swallow."""
    return text.replace("[", "\\[")


def _sentence(item: Field[Any], hint: Any) -> str:
    """The help with a capital, unless it begins with something to be typed, and a full stop."""
    text: str = item.metadata["help"]
    first = text.split(maxsplit=1)[0].rstrip(",:;.")
    typed = not first.isalpha() or first == item.default or any(first in get_args(part) for part in (hint, *_members(hint)))
    return f"{text if typed else text[:1].upper() + text[1:]}".removesuffix(".") + "."


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, types.UnionType) else ()
