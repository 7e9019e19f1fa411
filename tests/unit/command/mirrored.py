"""A small project, its copy below a prefix, and one compile in both. Knows nothing of workers."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from distbuild.command.dependency_file import unmap_dependency_file, unmap_text
from distbuild.command.model import CompileCommand
from distbuild.command.parse import parse
from distbuild.command.probe import parse_implicit_include, parse_search_dirs, search_probe
from distbuild.command.relocate import relocate, relocate_env
from tests.support.system_headers import linked_directories

FILES = {
    "app/a.S": '#include "asm.h"\n.globl VALUE\nVALUE:\n\tnop\n',
    "app/anon.cc": "namespace { int hidden = 3; }\nint visible() { return hidden; }\n",
    "app/asm.h": "#define VALUE entry\n",
    "app/bad.c": '#include "app.h"\nint f(void) { return no_such_name; }\n',
    "app/lost.c": '#include "app.h"\n#include "no/such/header.h"\nint f(void);\n',
    "app/main.c": (
        "#include <stdio.h>\n#include <stdlib.h>\n#include <limits.h>\n#include <assert.h>\n"
        '#include "app.h"\n#include <lib.h>\nstatic int unused_one(int x) { int y; return x; }\n'
        "int main(int c, char **v) { assert(c > 1); puts(WHERE); puts(__FILE__);"
        " return LIB + c; }\n"
    ),
    "app/main.cc": (
        "#include <iostream>\n#include <string>\n#include <vector>\n#include <cstdlib>\n"
        '#include "app.h"\n#include <lib.h>\n#include <cassert>\n'
        "static int spare(int x) { int y; return x; }\n"
        "namespace { struct Hidden { std::vector<std::string> names; }; }\n"
        "int run(int c) { Hidden h; h.names.push_back(WHERE); assert(c); std::cout << __FILE__;"
        " return LIB; }\n"
    ),
    "app/odd dir/q$#:é.c": '#include "side header.h"\nint odd(void) { return SIDE; }\n',
    "app/odd dir/side header.h": "#define SIDE 1\n",
    "app/small.c": "int add(int a, int b) { return a + b; }\n",
    "first/app.h": "#pragma once\n#define WHERE __FILE__\ninline static int in_header(int q)"
    " { int never; return q; }\n",
    "force/forced.h": "#define FORCED 1\n",
    "last/lib.h": "#include_next <lib.h>\n",
    "later/lib.h": "#define LIB 9\n",
    "system/lib.h": "#define LIB 7\nstatic int in_system(void) { int never; return 0; }\n",
}


@dataclass(frozen=True)
class Outcome:
    """Everything that a compile gives."""

    code: int
    stdout: bytes
    stderr: bytes
    object: bytes | None
    dependencies: bytes | None


class Mirrored:
    """A project on a "dev box" and its copy at ``tree`` + the same path."""

    def __init__(self, base: Path) -> None:
        base = base.resolve()
        self.project = base / "dev box" / "project"
        self.cwd = self.project / "app"
        self.tree = f"{base}/sandbox/client one"
        self.out = base / "out"
        self.out.mkdir()
        for name, text in FILES.items():
            path = self.project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.cwd / "obj").mkdir()
        shutil.copytree(self.project, self.tree + str(self.project))

    def mirror_builtin(self, directory: str) -> None:
        """Copy a search directory of the compiler, with every directory that its name passes."""
        passed = self.tree
        for part in directory.split("/"):
            passed += f"/{part}"
            os.makedirs(passed, exist_ok=True)
        subprocess.run(["cp", "-an", f"{directory}/.", passed], check=True, capture_output=True)
        for target in linked_directories(directory):
            self.mirror_builtin(target)

    def parsed(self, argv: list[str]) -> CompileCommand:
        """``argv`` as a command that can be distributed."""
        command = parse(argv, str(self.cwd), _read)
        assert isinstance(command, CompileCommand), command
        return command

    def local(self, command: CompileCommand, env: dict[str, str]) -> Outcome:
        """The compile as the build would run it; its files are taken away again."""
        result = _run(command.argv(), str(self.cwd), env)
        wanted = command.dependencies
        return Outcome(
            *result,
            _take(self.cwd / command.output),
            _take(self.cwd / wanted.path) if wanted else None,
        )

    def remote(self, command: CompileCommand, env: dict[str, str]) -> Outcome:
        """The same in the tree, mapped back to the original paths."""
        builtin, implicit = self.builtin(command)
        moved = relocate(command, self.tree, str(self.out), builtin, implicit)
        code, stdout, stderr = _run(moved.argv, moved.cwd, relocate_env(env, self.tree))
        tree = os.fsencode(self.tree)
        listed = _take(Path(moved.dependency_path))
        if listed is not None:
            listed = unmap_dependency_file(listed, self.tree, command.family)
        return Outcome(
            code,
            unmap_text(stdout, tree),
            unmap_text(stderr, tree),
            _take(Path(moved.output_path)),
            listed if command.dependencies else None,
        )

    def builtin(self, command: CompileCommand) -> tuple[tuple[str, ...], str | None]:
        """What the compiler of ``command`` searches and includes by itself, mirrored."""
        probe = [command.compiler, *search_probe(command), "-E", "-v", "-"]
        asked = subprocess.run(
            probe,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            env=_environment({}),
            cwd=self.cwd,
        )
        dirs = parse_search_dirs(asked.stderr)
        for directory in dirs:
            if not os.path.exists(f"{self.tree}{directory}/.mirrored"):
                self.mirror_builtin(directory)
                Path(f"{self.tree}{directory}/.mirrored").touch()
        return dirs, parse_implicit_include(asked.stdout)


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **more}


def _run(argv: list[str], cwd: str, env: dict[str, str]) -> tuple[int, bytes, bytes]:
    result = subprocess.run(
        argv, cwd=cwd, env=_environment({**env, "PWD": cwd}), capture_output=True, check=False
    )
    return result.returncode, result.stdout, result.stderr


def _take(path: Path) -> bytes | None:
    if not path.exists():
        return None
    data = path.read_bytes()
    path.unlink()
    return data


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None
