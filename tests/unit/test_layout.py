"""The order of the house: who may import whom, and how long things get."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
PACKAGE = SRC / "distbuild"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 40

PATHS = {"windows_names", "windows_paths"}
#: Package -> what it may import of ours besides itself. Modules of no package are shared words.
ALLOWED: dict[str, set[str]] = {
    "protocol": set(),
    "command": PATHS,
    "mirror": {"protocol", *PATHS, "disk", "system_paths", "windows_calls"},
}
#: Packages that must not know each other.
STRANGERS = {
    "syncer": {"worker", "wrapper"},
    "worker": {"syncer", "wrapper"},
    "wrapper": {"syncer", "worker"},
}


def imports(path: Path) -> Iterator[str]:
    """The parts of ours that a file imports: the name after ``distbuild.``"""
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            module = node.module or ""
            names = [module]
            if module == "distbuild":
                names = [f"distbuild.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("distbuild."):
                yield name.split(".")[1]


def relative(path: Path) -> str:
    return str(path.relative_to(SRC))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_keep_the_order(path: Path) -> None:
    package = path.relative_to(PACKAGE).parts[0]
    imported = set(imports(path)) - {package}
    if package in ALLOWED:
        assert imported <= ALLOWED[package]
    assert not imported & STRANGERS.get(package, set())


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name}: {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_every_module_opens_with_its_duty(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_bytes()))
