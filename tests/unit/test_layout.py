"""The order of the house: who may import whom, and how long things get."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
PACKAGE = SRC / "distbuild"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 40
#: 150, two of the object cache, four of the history, one that both use, seven of joining, the wheel
#: and the table of subcommands, one of the metrics, four of the dashboard, two of the namespaces,
#: two of gcc's modules, and one of files with checksums.
MAX_MODULES = 175
#: A module with fewer lines and one importer is a part of that one, but for these: pure, or what
#: tests replace.
SMALL = 80
SMALL_ON_PURPOSE = {
    "command.configured",
    "mirror.name_index",
    "push.found_files",
}

#: Package or module of the top -> what it may import of ours besides itself. The packages of the
#: three processes, below, do not know each other.
ALLOWED: dict[str, set[str]] = {
    "protocol": set(),
    "system": set(),
    "one_shot": set(),
    "logs": {"protocol"},
    "metrics": set(),
    "config": {"protocol", "system"},
    "credentials": {"protocol"},
    "certificates": {"protocol", "credentials"},
    "joining": {"protocol", "system"},
    "command": {"system"},
    "write_outputs": {"protocol", "system"},
    "mirror": {"protocol", "system", "one_shot"},
    "http": {"protocol", "one_shot", "credentials"},
    "compiler": {"command", "mirror", "protocol", "system"},
    "push": {"mirror", "http", "protocol", "system", "config", "credentials"},
    "farm": {"command", "protocol", "system", "one_shot", "write_outputs"},
    "cache": {"command", "farm", "mirror", "protocol", "system"},
    "history": {"protocol", "system"},
}
OF_THE_SYNCER = {"syncer", "push", "farm", "cache"}
STRANGERS = {
    "syncer": {"worker", "wrapper"},
    "worker": OF_THE_SYNCER | {"wrapper"},
    "wrapper": OF_THE_SYNCER | {"worker", "mirror", "http"},
}


@dataclass(frozen=True)
class Facts:
    """What the tests need of a file; its syntax tree would be a hundred times as large."""

    docstring: str | None
    #: The packages and modules of the project that it imports: the name after ``distbuild.``
    packages: set[str]
    #: The modules that it imports, like ``http.loop``.
    modules: set[str]
    classes: list[str]
    #: The lines of each function.
    functions: list[tuple[str, int]]


@cache
def facts(path: Path) -> Facts:
    tree = ast.parse(path.read_bytes())
    nodes = list(ast.walk(tree))
    return Facts(
        ast.get_docstring(tree),
        set(imported_packages(path, nodes)),
        imported_modules(nodes),
        [node.name for node in tree.body if isinstance(node, ast.ClassDef)],
        [
            (node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
            for node in nodes
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ],
    )


def imported_packages(path: Path, nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
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


def module_of(path: Path) -> str:
    """``http.loop`` for its file."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {module_of(path): path for path in FILES if path.name != "__init__.py"}


def imported_modules(nodes: list[ast.AST]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distbuild"):
            module = (node.module or "").removeprefix("distbuild").lstrip(".")
            names = {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
            found |= ({module} | names) & MODULES.keys()
    return found


def all_imports() -> dict[str, set[str]]:
    return {name: facts(path).modules for name, path in MODULES.items()}


def relative(path: Path) -> str:
    return str(path.relative_to(SRC))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_keep_the_order(path: Path) -> None:
    package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    imported = facts(path).packages - {package}
    if package in STRANGERS:
        assert not imported & STRANGERS[package]
    elif package != "__init__":
        assert imported <= ALLOWED[package]


def test_the_pure_packages_import_no_disk() -> None:
    """Of Windows' modules they may have those that only handle strings."""
    for path in (PACKAGE / "command").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        modules = set(re.findall(r"distbuild\.system\.?([a-z_.]*)", text))
        assert modules <= {"windows.paths", "windows.names"}, path


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    for name, lines in facts(path).functions:
        assert lines <= MAX_FUNCTION_LINES, f"{name}: {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_every_module_opens_with_its_duty(path: Path) -> None:
    assert facts(path).docstring


def test_no_module_imports_itself_by_others() -> None:
    left = {name: set(imported) for name, imported in all_imports().items()}
    while ready := {name for name, imported in left.items() if not imported & left.keys()}:
        for name in ready:
            del left[name]
    assert not left


def test_a_class_name_is_used_once() -> None:
    places: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for each in facts(path).classes:
            places.setdefault(each, []).append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_small_modules_have_several_importers() -> None:
    everything = list(all_imports().values())
    small = {
        name
        for name, path in MODULES.items()
        if len(path.read_text(encoding="utf-8").splitlines()) < SMALL
        and sum(name in imported for imported in everything) == 1
    }
    assert small == SMALL_ON_PURPOSE


def test_there_are_not_too_many_modules() -> None:
    assert len(MODULES) <= MAX_MODULES


#: Phrases of a private language. The documents have the same list, and more (test_docs).
NOT_PLAIN = re.compile(
    r"\bwhoever\b|\bnobody\b|\bof ours\b|\btold of\b|\btells? of\b|\bhe(?:ld|lds?) against\b"
    r"|\bhold against\b|\blead out\b|\bas it has it\b|\bwithout a word\b|\bhas in hand\b"
    r"|\bworth the way\b",
    re.IGNORECASE,
)
SPEAKING = [
    path
    for top in (SRC, SRC.parent / "bench", SRC.parent / "tools")
    for suffix in ("*.py", "*.c", "*.h", "*.sh")
    for path in top.rglob(suffix)
    if "dist" not in path.relative_to(top).parts[:1]
]


@pytest.mark.parametrize("path", SPEAKING, ids=str)
def test_the_code_speaks_plainly(path: Path) -> None:
    text = " ".join(path.read_text(encoding="utf-8").replace("#", " ").replace("*", " ").split())
    assert NOT_PLAIN.findall(text) == []
