"""Diagnostics on a terminal equal the local compiler's: colours, links, widths, whatever else."""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Done, wrapper_command
from tests.support.screen import Screen
from tests.support.tools import need

pytestmark = pytest.mark.compiler

LONG = " + ".join(f"a_rather_long_name_{n}" for n in range(12))
SOURCE = f"""#include "outer.h"
int cut(int a) {{ int not_used; return a + {LONG}; }}
int plain(const char *text) {{ printf("%s %d\\n", 1, text); return prinft("%d\\n"); }}
int caf\u00e9(void) {{ return "\u00fc" - 1.5; }}\t/* a tab and \u00fcnic\u00f6d\u00e9 */
"""
TEMPLATES = """#include <algorithm>
#include <list>
template <class T> struct Holder { using type = typename T::missing_type_of_a_long_name; T t; };
template <class T> struct Outer { typename Holder<Holder<T>>::type held; };
void sorted(std::list<int> &l) { std::sort(l.begin(), l.end()); Outer<int> outer; (void)outer; }
"""
#: Options, with the colours of a terminal of 80 columns.
LINES = [
    "",
    "-Wall -Wextra -Wconversion",
    "-fdiagnostics-color=never -Wall",
    "-fdiagnostics-color=always -Wall",
    "-fdiagnostics-color=auto -Wall",
    "-fno-diagnostics-show-option -Wall",
    "-fno-diagnostics-show-caret -Wall",
    "-fdiagnostics-parseable-fixits -Wall",
    "-fmessage-length=0 -Wall",
    "-fmessage-length=50 -Wall",
    "-w",
    "-Werror -fmax-errors=1",
    "-DMISSING",
    "-fno-such-option",
    "-include not/there.h",
]
GCC = [
    "-fdiagnostics-format=json -Wall",
    "-fdiagnostics-plain-output -Wall",
    "-fdiagnostics-urls=always -Wall",
    "-fdiagnostics-urls=never -Wall",
    "-fdiagnostics-show-location=every-line -fmessage-length=60 -Wall",
    "-fdiagnostics-column-unit=byte -fdiagnostics-column-origin=0 -Wall",
    "-fdiagnostics-generate-patch -fno-diagnostics-show-line-numbers -Wall",
    "-fdiagnostics-path-format=inline-events -fanalyzer",
    "-fdiagnostics-minimum-margin-width=9 -Wall",
]
CLANG = [
    "-fcolor-diagnostics -Wall",
    "-fno-color-diagnostics -Wall",
    "-fdiagnostics-format=msvc -Wall",
    "-fdiagnostics-format=vi -Wall",
    "-fdiagnostics-show-category=name -Weverything",
    "-fdiagnostics-print-source-range-info -Wall",
    "-fdiagnostics-absolute-paths -Wall",
    "-fno-show-source-location -fno-show-column -Wall",
    "-fansi-escape-codes -Wall",
    "-fdiagnostics-show-template-tree -Wall",
    "-frecord-command-line -Wall",
    "-fmessage-length=30 -fmessage-length=0 -Wall",
]
XTERM = {"TERM": "xterm-256color"}
SCREENS: list[tuple[Screen, dict[str, str]]] = [
    *((Screen((columns, 24)), XTERM) for columns in (0, 1, 20, 40, 80, 200)),
    (Screen((40, 24), stdin=False), XTERM),
    (Screen((40, 24), stdin=(60, 30)), XTERM),
    (Screen(), {}),
    (Screen(), {"TERM": "dumb"}),
    (Screen(), {"TERM": ""}),
    (Screen(), {"TERM": "xterm"}),
    (Screen(), {"TERM": "no-such-terminal"}),
    (Screen(), {**XTERM, "COLORTERM": "gnome-terminal"}),
    (Screen(), {**XTERM, "COLORTERM": "truecolor", "VTE_VERSION": "7000"}),
    (Screen(), {**XTERM, "COLUMNS": "0"}),
    (Screen(), {**XTERM, "COLUMNS": "50", "LINES": "3"}),
    (Screen(stdin=False), {**XTERM, "COLUMNS": "30"}),
    (Screen(), {**XTERM, "GCC_URLS": "no"}),
    (Screen(), {**XTERM, "TERM_URLS": "bel"}),
    (Screen(), {**XTERM, "GCC_COLORS": ""}),
    (Screen(), {**XTERM, "GCC_COLORS": "error=01;32:warning=7:url=4"}),
    (Screen(), {**XTERM, "NO_COLOR": "1", "CLICOLOR": "0", "CLICOLOR_FORCE": "1"}),
    (Screen(), {**XTERM, "GCC_EXTRA_DIAGNOSTIC_OUTPUT": "fixits-v2"}),
    (Screen(), {**XTERM, "LC_ALL": "C.UTF-8"}),
    (Screen(), {**XTERM, "LC_ALL": "C", "LANG": "C.UTF-8"}),
    (Screen(), {**XTERM, "LANG": "xx_YY.UTF-8", "LANGUAGE": "de"}),
]
PIPED: list[dict[str, str]] = [
    {},
    {"LC_ALL": "C.UTF-8"},
    {"LC_CTYPE": "C.UTF-8"},
    {"LANG": "xx_YY.UTF-8"},
    {**XTERM, "COLUMNS": "30"},
]
CASES = [
    *(("gcc", line) for line in LINES + GCC),
    *(("clang", line) for line in LINES + CLANG),
    *((compiler, line) for compiler in ("g++", "clang++") for line in LINES[:3]),
    *(pytest.param("g++", line, marks=pytest.mark.slow) for line in LINES[3:] + GCC),
    *(pytest.param("clang++", line, marks=pytest.mark.slow) for line in LINES[3:] + CLANG),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("terminal") / "a b"
    (root / "inc").mkdir(parents=True)
    (root.parent / "out").mkdir()
    (root / "outer.h").write_text('#include "inc/inner.h"\n')
    (root / "inc/inner.h").write_text(
        "#include <stdio.h>\n#ifdef MISSING\n#include <not/there.h>\n#endif\n"
        "static inline int inner(int x) { int y = x; return undeclared_in_a_header; }\n"
    )
    (root / "x.c").write_text(SOURCE, encoding="utf-8")
    (root / "x.cc").write_text(TEMPLATES + SOURCE, encoding="utf-8")
    return root


def command(compiler: str, line: str) -> list[str]:
    source = "x.cc" if compiler.endswith("++") else "x.c"
    # Not into the mirrored directory: clang's temporary file there is a change under the compiler.
    return [compiler, *shlex.split(line), "-c", source, "-o", "../out/x.o"]


def assert_same_on(
    screen: Screen, farm: Cluster, argv: list[str], cwd: Path, env: Mapping[str, str]
) -> None:
    """The wrapper shows what the compiler shows, from one run on a worker."""
    need(argv[0])
    env = {"PATH": os.environ["PATH"], **env}
    before = farm.jobs()
    local = screen.run(argv, cwd, env)
    ours = dict(env, DIST_BUILD_HOME=str(farm.syncer.home), DIST_BUILD_FALLBACK="0")
    shown = screen.run([*wrapper_command(), *argv], cwd, ours)
    after = farm.jobs()
    if b"no_namespace" in shown.stderr and is_tied(farm, argv, env):
        assert shown.exit_code == 103
        return
    if argv[0] == "clang" and env.get("TERM") == "no-such-terminal":
        assert shown == local  # of a worker only where clang (19 or later) asks for no description
        return
    assert shown == local, farm.logs()
    assert after["retried"] == before["retried"]
    # A compiler that gives up in a text lists nothing: the local one has the last word.
    gives_up = argv[0] in ("gcc", "g++") and "-fmax-errors=1" in argv
    assert after["done"] == before["done"] + (not (gives_up or "-DMISSING" in argv))


def is_tied(farm: Cluster, argv: list[str], env: Mapping[str, str]) -> bool:
    """Whether no plain worker gives the right line breaks, or bytes."""
    (kind,) = {w["sandbox"]["mode"] for w in farm.syncer.status()["workers"].values()}
    wraps = argv[0].startswith("clang") and int(env.get("COLUMNS", "0")) > 0
    options = {
        "-fmessage-length=50",
        "-fmessage-length=60",
        "-fmessage-length=30",
        "-fmessage-length=20",
    }
    return kind == "plain" and (wraps or bool({*options, "-frecord-command-line"} & {*argv}))


def piped(argv: list[str], cwd: Path, env: Mapping[str, str]) -> Done:
    need(argv[0])
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.in_turn("farm", "line", of=3)
@pytest.mark.parametrize(("compiler", "line"), CASES, ids=str)
def test_a_terminal_gets_what_the_compiler_would_show(
    farm: Cluster, project: Path, require_tool: Callable[[str], str], compiler: str, line: str
) -> None:
    require_tool(compiler)
    assert_same_on(Screen(), farm, command(compiler, line), project, XTERM)


@pytest.mark.in_turn("farm", "compiler", "screen", of=3)
@pytest.mark.parametrize(("screen", "env"), SCREENS, ids=str)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_compiler_sees_the_terminal_that_the_wrapper_has(
    farm: Cluster,
    project: Path,
    require_tool: Callable[[str], str],
    compiler: str,
    screen: Screen,
    env: dict[str, str],
) -> None:
    require_tool(compiler)
    assert_same_on(screen, farm, command(compiler, "-Wall -Wextra"), project, env)


@pytest.mark.in_turn("farm", "compiler", "env", of=3)
@pytest.mark.parametrize("env", PIPED, ids=str)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_messages_in_a_pipe_have_the_developer_s_locale(
    farm: Cluster,
    project: Path,
    require_tool: Callable[[str], str],
    compiler: str,
    env: dict[str, str],
) -> None:
    require_tool(compiler)
    before = farm.jobs()
    argv = command(compiler, "-Wall")
    local = piped(argv, project, env)
    home = {"DIST_BUILD_HOME": str(farm.syncer.home), "DIST_BUILD_FALLBACK": "0"}
    assert piped([*wrapper_command(), *argv], project, {**env, **home}) == local
    after = farm.jobs()
    assert (after["done"], after["retried"]) == (before["done"] + 1, before["retried"])


@pytest.mark.in_turn("farm", "line", of=3)
@pytest.mark.parametrize(
    ("compiler", "line"),
    [
        ("gcc", ""),
        ("gcc", "-fdiagnostics-format=json"),
        ("gcc", "-fmessage-length=20"),
        ("clang", ""),
        ("clang", "-fdiagnostics-format=vi"),
        ("clang", "-fno-show-source-location"),
    ],
)
def test_on_a_terminal_it_is_seen_which_file_the_worker_lacks(
    farm: Cluster, project: Path, require_tool: Callable[[str], str], compiler: str, line: str
) -> None:
    """A source that another one includes is withheld, and so is what only a macro names."""
    require_tool(compiler)
    part = Path(tempfile.mkdtemp(dir=project)) / "part.c"
    part.write_text("int broken = undeclared;\n")
    (part.parent / "x.c").write_text('#include "part.c"\n')
    env = {"PATH": os.environ["PATH"], **XTERM, "COLUMNS": "20"}
    argv = [*command(compiler, line)[:-4], "-c", "x.c", "-o", "../../out/x.o"]
    local = Screen().run(argv, part.parent, env)
    ours = dict(env, DIST_BUILD_HOME=str(farm.syncer.home), DIST_BUILD_FALLBACK="0")
    shown = Screen().run([*wrapper_command(), *argv], part.parent, ours)
    if shown.exit_code == 103:
        assert is_tied(farm, argv, env) or line == "-fno-show-source-location"
    else:
        assert shown == local, farm.logs()
