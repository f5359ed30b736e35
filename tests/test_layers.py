"""The layer rule (imports point down only, siblings never import each other) and the limits on length."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "audiograft"
LAYERS = (
    {"__init__", "__main__"},
    {"cli"},
    {"audit", "serve", "export", "prompt_search"},
    {"evaluate"},
    {"train"},
    {"inference"},
    {"metrics", "data", "model"},
    {"audio", "images", "messages", "bulk"},
    {"files"},
    {"types", "provenance"},
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def part_of(file: Path, source: Path) -> str:
    """The package or module right below `audiograft` that a file belongs to."""
    return file.relative_to(source).with_suffix("").parts[0]


def imported_modules(file: Path, source: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of each import, inside functions too; `from a import b` gives a.b."""
    package = ("audiograft", *file.relative_to(source).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def layer_violations(source: Path) -> list[str]:
    """One line for each import that does not point down."""
    found = []
    for file in sorted(source.rglob("*.py")):
        part = part_of(file, source)
        if part not in LEVEL:
            found.append(f"{file}: {part} has no place in LAYERS")
            continue
        for line, module in imported_modules(file, source):
            first, *rest = module.split(".")
            # The package itself holds its version and what callers use; below it, only the version may be read.
            if first != "audiograft" or not rest or rest == ["__version__"]:
                continue
            target = rest[0] if rest[0] in LEVEL else "__init__"
            if target != part and LEVEL[target] <= LEVEL[part]:
                found.append(f"{file}:{line}: {part} imports {module}")
    return found


def length_violations(source: Path) -> list[str]:
    """One line for each file and function that is too long."""
    found = []
    for file in sorted(source.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if (n_lines := len(text.splitlines())) > MAX_FILE_LINES:
            found.append(f"{file}: {n_lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if n_lines > MAX_FUNCTION_LINES:
                    found.append(f"{file}:{node.lineno}: {node.name} has {n_lines} lines")
    return found


def test_imports_point_down() -> None:
    assert layer_violations(SOURCE) == []


def test_files_and_functions_are_short() -> None:
    assert length_violations(SOURCE) == []


@pytest.mark.parametrize(
    ("file", "code", "allowed"),
    [
        ("train/run.py", "from audiograft.data.manifest import read_manifest", True),
        ("train/run.py", "from . import rows", True),
        ("train/run.py", "from audiograft import __version__", True),
        ("train/run.py", "import torch", True),
        ("data/rows.py", "from audiograft.train.recipe import Recipe", False),
        ("data/rows.py", "import audiograft.model", False),
        ("data/rows.py", "from audiograft import metrics", False),
        ("data/deep/rows.py", "from ...model import graft", False),
        ("data/rows.py", "def f():\n    from ..inference.engine import Engine", False),
        ("data/rows.py", "from audiograft import load", False),
        ("types.py", "from audiograft.audio import Clip", False),
        ("utils.py", "import os", False),
    ],
)
def test_the_rule_sees_every_way_to_import(tmp_path: Path, file: str, code: str, allowed: bool) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    assert (layer_violations(tmp_path) == []) is allowed


def test_the_limits_see_what_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "types.py").write_text("def f():\n" + "    pass\n" * MAX_FUNCTION_LINES + "\n" * MAX_FILE_LINES)
    assert len(length_violations(tmp_path)) == 2
