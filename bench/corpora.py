"""The compile commands of real projects, and sources that are made up. Compiles nothing."""

import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.common import Command, Skipped
from tests.support.projects import NotFetched, fetch


@dataclass(frozen=True)
class Recipe:
    """Which sources of a Debian source package are compiled, and how, in the project's directory.

    A glob that begins with ``!`` takes away.
    """

    package: str
    compiler: str
    options: Sequence[str]
    globs: Sequence[str]


PROJECTS = {
    "lua": Recipe("lua5.4", "gcc", ["-O2", "-g", "-DLUA_USE_POSIX"], ["src/*.c"]),
    "re2": Recipe(
        "re2",
        "g++",
        ["-std=c++17", "-O2", "-g", "-Wall", "-pthread", "-I."],
        ["re2/*.cc", "util/rune.cc", "util/strutil.cc"],
    ),
    "leveldb": Recipe(
        "leveldb",
        "g++",
        [
            *["-std=c++11", "-O2", "-g", "-fno-exceptions", "-fno-rtti", "-DNDEBUG", "-I."],
            *[
                "-Iinclude",
                "-DLEVELDB_PLATFORM_POSIX=1",
                "-DHAVE_FDATASYNC=1",
                "-DHAVE_O_CLOEXEC=1",
            ],
        ],
        ["db/*.cc", "table/*.cc", "util/*.cc", "!*/*_test.cc", "!util/testutil.cc", "!*/*windows*"],
    ),
    # Only for comparisons: benchmarks take the first three.
    "zlib": Recipe("zlib", "gcc", ["-O3", "-g", "-fPIC", "-DZ_HAVE_UNISTD_H"], ["*.c"]),
}


def commands_of(name: str, work: Path) -> list[Command]:
    """Fetch a project and list its compiles, objects in a directory beside it; raises Skipped."""
    recipe = PROJECTS[name]
    if shutil.which(recipe.compiler) is None:
        raise Skipped(f"{name}: {recipe.compiler} is not installed")
    try:
        project = fetch(recipe.package, work / name)
    except NotFetched as error:
        raise Skipped(str(error)) from error
    sources = select(project, recipe.globs)
    return [compile_command(recipe, project, source, work / f"{name}.out") for source in sources]


def select(project: Path, globs: Iterable[str]) -> list[str]:
    """Relative paths that the globs leave, sorted."""
    found: set[Path] = set()
    for glob in globs:
        hits = set(project.glob(glob.removeprefix("!")))
        found = found - hits if glob.startswith("!") else found | hits
    return sorted(str(path.relative_to(project)) for path in found)


def compile_command(recipe: Recipe, project: Path, source: str, out: Path) -> Command:
    """One compile, as a build system would spell it."""
    out.mkdir(exist_ok=True)
    stem = str(out / source.replace("/", "_").rpartition(".")[0])
    options = [*recipe.options, "-MD", "-MF", f"{stem}.d", "-c", source, "-o", f"{stem}.o"]
    return Command(project, [recipe.compiler, *options])


def synthetic(size: int, seed: int, *, data: bool) -> str:
    """A C source of about ``size`` bytes: all of it data of the object, or all but a line comment.

    Names and figures repeat as they do in real sources, so that both compress as those do.
    """
    choose = random.Random(seed)
    words = [f"{choose.getrandbits(24):06x}" for _ in range(400)]
    lines, length = [f"int f{seed}(int x) {{ return x + {seed}; }}"], 40
    while length < size:
        text = " ".join(choose.choices(words, k=10))
        lines.append(f'const char d{len(lines)}_{seed}[] = "{text}";' if data else f"/* {text} */")
        length += len(lines[-1]) + 1
    return "\n".join(lines) + "\n"
