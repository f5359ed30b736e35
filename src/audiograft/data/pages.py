"""Pages to read: templates of `assets` with everything that is put into them escaped, without scripts and without anything to be fetched."""

from __future__ import annotations

import unicodedata
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

_JOINERS = "\u200c\u200d"
"""Invisible, but Persian and Indic words are spelt with them."""


def render_page(template: str, **values: Any) -> str:
    """Render an HTML template of `assets`."""
    environment = page_environment(autoescape=True)
    environment.filters.update(number=number, printable=printable)
    return environment.get_template(template).render(**values)


def page_environment(**options: Any) -> jinja2.Environment:
    """Where templates of `assets` are found, by name; a value that is missing is an error."""
    import jinja2

    assets = resources.files("audiograft").joinpath("assets")
    loader = jinja2.FunctionLoader(lambda name: assets.joinpath(name).read_text(encoding="utf-8"))
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)


def number(value: float, decimals: int = 0) -> str:
    """With commas between thousands."""
    return f"{value:,.{decimals}f}"


def printable(text: str) -> str:
    """Text that a page can hold and a reader can see: a space or control character is shown by its name or code point."""
    if len(text) == 1 and (text.isspace() or not text.isprintable()):
        return f"{unicodedata.name(text, '')} U+{ord(text):04X}".strip().lower() if text != " " else "space"
    return "".join(char if char.isprintable() or char in _JOINERS else "\N{REPLACEMENT CHARACTER}" for char in text)
