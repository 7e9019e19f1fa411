"""Edits a small tree at random and builds in it: each result that the object cache gives is
compared with a compile by the local compiler.

The tree has few paths, texts and commands, so that states come again and there are hits.
"""

import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.caching_box import CachingBox, done_of, is_hit
from tests.support.cluster import Done, run_here

#: Directories of a checkout. ``out`` gets the outputs.
PLACES = ("src", "a", "b", "c", "sys")
BELOW = ("", "sub/", "sub/low/")
NAMES = ("x.h", "y.h", "z.h")
#: Names whose content is not mirrored, or that are not mirrored at all.
ODD_NAMES = ("t.tmp", "t.txt", "t.o")
SOURCES = ("src/m.c", "src/n.c", "src/sub/o.c")
WITH_OWN_LIST = (
    "-MD",
    "-MD",
    "-MD -MP",
    "-MD -MT target",
    "-MD -MF out/deps.mk",
    "-MMD",
    "-MMD -MP",
    "-MD -MQ $x",
    "-MMD -MD",
    "-Wp,-MMD,out/w.d",
)
_DEPTH = "#if __INCLUDE_LEVEL__ < 6\n{0}#endif\n"


class Command(NamedTuple):
    """A command of the pool: its words, its directory below the checkout, and variables."""

    argv: tuple[str, ...]
    below: str
    env: Mapping[str, str]


class Difference(AssertionError):
    """A hit is not what the local compiler gives."""


def _operand(random_: random.Random) -> str:
    """A name that an include may have."""
    name = random_.choice(BELOW) + random_.choice(NAMES)
    kind = random_.random()
    if kind < 0.04:
        name = random_.choice(ODD_NAMES)
    elif kind < 0.14:
        name = "../" + random_.choice(("", "a/", "sub/")) + name
    elif kind < 0.16:
        name = random_.choice(("./", "sub/../", ".//")) + name
    return name


def _quoted(name: str, random_: random.Random) -> str:
    return f"<{name}>" if random_.random() < 0.4 else f'"{name}"'


def _piece(random_: random.Random) -> str:
    """Some lines that look for a file, or not."""
    operand = _quoted(_operand(random_), random_)
    other = _quoted(_operand(random_), random_)
    tag = f"t{random_.randrange(4)}"
    seen = f'__asm__(".ident \\"{tag}\\"");\n'
    has = random_.choice(("__has_include", "__has_include", "__has_include_next"))
    include = random_.choice(("include", "include", "include", "include_next", "import"))
    pieces = [
        lambda: seen,
        lambda: seen,
        lambda: f"#if __has_include({operand})\n#{include} {operand}\n#endif\n",
        lambda: f"#if __has_include({operand})\n#{include} {operand}\n#endif\n",
        lambda: f"#include {operand}\n" if random_.random() < 0.1 else seen,
        lambda: f"#if {has}({operand})\n{seen}#endif\n",
        lambda: f"#if !{has}({operand}) || {has}({other})\n{seen}#endif\n",
        lambda: f"#ifdef D\n#if __has_include({operand})\n#include {operand}\n#endif\n#endif\n",
        lambda: f"#ifndef {tag}\n#define {tag}\n{seen}#endif\n",
        lambda: f"#if defined {tag}\n{seen}#else\n#define {tag} 1\n#endif\n",
        lambda: (
            f"#undef NAME\n#define NAME {operand}\n#if __has_include({operand})\n"
            "#include NAME\n#endif\n"
        ),
        lambda: (
            "#ifdef NAME\n#if __has_include(NAME)\n#include NAME\n#endif\n#endif\n"
            if random_.random() < 0.2
            else seen
        ),
        lambda: f"#pragma once\n{seen}",
        lambda: f"#pragma GCC system_header\n{seen}",
        lambda: f"#pragma GCC dependency {operand}\n" if random_.random() < 0.3 else seen,
        lambda: f"/* {operand} */ // __DATE__\n{seen}",
        lambda: f'#\\\ninclude "{_operand(random_)}"\n' if random_.random() < 0.3 else seen,
        lambda: f"static const char *f{tag}_LINE(void) {{ return __FILE__; }}\n".replace(
            "LINE", str(random_.randrange(10**6))
        ),
        lambda: f"#if __has_embed({operand})\n{seen}#endif\n" if random_.random() < 0.2 else seen,
        lambda: f'__asm__(".ident \\"" "l" "\\"");\n#warning {tag}\n',
        lambda: f"// __DATE__\r#if __has_include({operand})\r{seen}#endif\n",
        lambda: f'#line 7 "{_operand(random_)}"\n{seen}',
    ]
    return random_.choice(pieces)()


def text_of(random_: random.Random) -> str:
    """A header or source."""
    pieces = "".join(_piece(random_) for _ in range(random_.randrange(1, 5)))
    guard = random_.random()
    body = _DEPTH.format(pieces)
    if guard < 0.2:
        return "#pragma once\n" + body
    if guard < 0.4:
        name = f"G{random_.randrange(4)}"
        return f"#ifndef {name}\n#define {name}\n{body}#endif\n"
    return body


class Walk:
    """One seed's walk in a tree of its own."""

    def __init__(self, box: CachingBox, root: Path, seed: int, run: int = 0) -> None:
        """``run``: above 0, the walk goes on in the tree that earlier runs have left, with the same
        texts and commands."""
        self.box, self.seed = box, seed
        self.random = random.Random(seed)
        self.checkouts = [root / "one", root / "two"]
        self.root = self.checkouts[0]
        self.texts = [text_of(self.random) for _ in range(14)]
        self.commands = [self._command() for _ in range(5)]
        self.built = self.hits = 0
        self.log: list[str] = []
        self.kinds = Counter[str]()
        #: When the next compile is disturbed by an edit: "before" or "after" the compiler runs.
        self._disturbed = ""
        box.executor.meanwhile = self._disturb
        if run:
            self.random.seed(f"{seed} {run}")
        else:
            self._make(self.root)

    def _make(self, root: Path) -> None:
        for place in (*PLACES, "out", "src/sub"):
            (root / place).mkdir(parents=True, exist_ok=True)
        for place in PLACES:
            for below in BELOW[:2]:
                for name in NAMES:
                    if self.random.random() < 0.35:
                        self._write(root / place / (below + name))
        for source in SOURCES:
            self._write(root / source, _DEPTH.format("".join(self._piece() for _ in range(4))))

    def _piece(self) -> str:
        return _piece(self.random)

    def _write(self, path: Path, text: str = "") -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text or self.random.choice(self.texts))
        except OSError:
            pass  # a directory, or below a file

    # --- commands -------------------------------------------------------------------------------

    def _command(self) -> Command:
        random_ = self.random
        options: list[str] = []
        for place in random_.sample(("a", "b", "c", "a/sub", "none", "l", "src"), 4):
            kind = random_.choice(("-I", "-I", "-I", "-isystem", "-iquote", "-idirafter"))
            options += [f"-I{place}"] if kind == "-I" else [kind, place]
        if random_.random() < 0.12:
            options += [random_.choice(("-include", "-imacros")), self._include()]
        if random_.random() < 0.2:
            options += ["-DD", "-DE"] if random_.random() < 0.5 else ["-DE", "-DD"]
        if random_.random() < 0.1:
            options.append(f"-DNAME={_quoted(_operand(random_), random_)}")
        more = (
            "-g",
            "-O1",
            "-Wall -Wmissing-include-dirs",
            "-g -fdebug-prefix-map={root}=/x",
            "-ffile-prefix-map={root}=.",
            "-frandom-seed=1",
            "-save-temps=obj",
            "-fdirectives-only",
            "-Wp,-DW=1",
            "-gsplit-dwarf",
            "-H",
            "-std=c99",
            "-nostdinc",
            "-dD",
            "-I .",
            "-I..",
            "-I src/..",
            "-trigraphs",
        )
        for words in random_.sample(more, random_.randrange(3)):
            options += words.split()
        if random_.random() < 0.7:
            options += random_.choice(WITH_OWN_LIST).split()
        compiler = random_.choice(("gcc", "gcc", "gcc", "clang", "clang", "g++"))
        if compiler == "g++":
            compiler, options = "g++", [*options, "-x", "c++"]
        below = random_.choice(("", "", "", "src"))
        up = "../" if below else ""
        where = random_.choice(("out/r.o", "out/r.o", "out/s.o", "r.o"))
        fixed = [o.replace("-Ia", f"-I{up}a") if up else o for o in options]
        argv = (compiler, *fixed, "-c", up + random_.choice(SOURCES), "-o", up + where)
        env = {}
        if random_.random() < 0.25:
            name = random_.choice(("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH"))
            env[name] = random_.choice(("sys", "{root}/sys", "b:", ":sys", "{root}/b/sub:sys"))
        return Command(argv, below, env)

    def _include(self) -> str:
        place = self.random.choice(("", "a/", "b/", "src/", "l/", "{root}/c/"))
        return place + self.random.choice(BELOW[:2]) + self.random.choice(NAMES)

    # --- edits ----------------------------------------------------------------------------------

    def _path(self) -> Path:
        name = self.random.choice(NAMES) if self.random.random() < 0.93 else ODD_NAMES[0]
        return self.root / self.random.choice(PLACES) / (self.random.choice(BELOW) + name)

    def _directory(self) -> Path:
        names = ("a", "b", "c", "sys", "none", "l", "a/sub", "b/sub", "c/sub", "src/sub/sub")
        return self.root / self.random.choice(names)

    def edit(self) -> None:
        """One random change."""
        kinds: Sequence[tuple[int, Callable[[], str]]] = (
            (30, self._rewrite),
            (12, self._remove),
            (5, self._touch),
            (6, self._rename_file),
            (6, self._link_file),
            (4, self._hard_link),
            (5, self._directory_comes_or_goes),
            (4, self._rename_directory),
            (6, self._link_directory),
            (2, self._precompiled),
            (2, self._source),
            (12, self._take_back),
            (2, self._file_for_directory),
            (3, self._odd_file),
            (2, self._switch_checkout),
            (2, self._in_place),
            (1, self._mode),
            (3, self._back_in_place),
        )
        weights, edits = zip(*kinds, strict=True)
        edit = self.random.choices(edits, weights)[0]
        try:
            told = edit()
        except OSError as error:
            told = f"{edit.__name__}: {error}"
        self.log.append(told)

    def _disturb(self, when: str) -> None:
        """An edit during a compile. Only one: a file that is changed and changed back around the
        compiler's run would be noticed by a worker alone, which has a tree of its own."""
        if when == self._disturbed:
            self._disturbed = ""
            self.edit()

    def _rewrite(self) -> str:
        path = self._path()
        self._write(path)
        return f"write {path}"

    def _remove(self) -> str:
        path = self._path()
        path.unlink()
        return f"remove {path}"

    def _touch(self) -> str:
        path = self._path()
        at = self.random.choice((1, 2, 4 * 10**9))
        os.utime(path, (at, at))
        return f"touch {path} {at}"

    def _in_place(self) -> str:
        """Written with the time that it had before."""
        path = self._path()
        before = path.stat()
        text = path.read_text()
        path.write_text(text.replace("t0", "t9") if "t0" in text else text.replace("t1", "t8"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return f"in place {path}"

    def _back_in_place(self) -> str:
        """Written twice within a tick of the file system's clock, with one size."""
        path = self._path()
        text = path.read_text()
        other = text.replace("t0", "t7") if "t0" in text else text.replace("t1", "t6")
        for content in self.random.choice(((other, text), (text, other), (other, text, other))):
            path.write_text(content)
        return f"twice {path}"

    def _mode(self) -> str:
        path = self._path()
        path.chmod(self.random.choice((0o644, 0o755, 0o600)))
        return f"mode {path}"

    def _rename_file(self) -> str:
        one, two = self._path(), self._path()
        one.rename(two)
        return f"rename {one} {two}"

    def _link_file(self) -> str:
        link, target = self._path(), self._path()
        if self.random.random() < 0.15:
            target = target.with_name(self.random.choice(ODD_NAMES))
        if self.random.random() < 0.3:
            target = self.root / "outside" / target.name
        link.unlink(missing_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        is_absolute = self.random.random() < 0.3
        link.symlink_to(target if is_absolute else os.path.relpath(target, link.parent))
        return f"link {link} -> {target}"

    def _odd_file(self) -> str:
        """The targets of links that may dangle."""
        name = self.random.choice((*ODD_NAMES, *NAMES))
        place = self.random.choice((*PLACES, "outside"))
        path = self.root / place / name
        if path.exists() and self.random.random() < 0.5:
            path.unlink()
            return f"remove {path}"
        self._write(path)
        return f"write {path}"

    def _hard_link(self) -> str:
        one, two = self._path(), self._path()
        two.unlink(missing_ok=True)
        os.link(one, two)
        return f"hard link {one} {two}"

    def _directory_comes_or_goes(self) -> str:
        path = self._directory()
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.mkdir(parents=True)
            if self.random.random() < 0.7:
                self._write(path / self.random.choice(NAMES))
        return f"directory {path}"

    def _rename_directory(self) -> str:
        one, two = self._directory(), self._directory()
        one.rename(two)
        return f"rename {one} {two}"

    def _link_directory(self) -> str:
        link, target = self._directory(), self._directory()
        if link.is_symlink():
            link.unlink()
            return f"unlink {link}"
        if link.is_dir():
            link.rename(link.with_name("moved"))
        link.symlink_to(os.path.relpath(target, link.parent))
        return f"link {link} -> {target}"

    def _file_for_directory(self) -> str:
        path = self._directory()
        if path.is_file():
            path.unlink()
        elif not path.is_dir():
            path.write_text("")
        return f"file {path}"

    def _precompiled(self) -> str:
        header = self._path()
        gch = header.with_name(header.name + ".gch")
        if gch.exists():
            gch.unlink()
        elif self.random.random() < 0.5:
            gch.write_bytes(b"garbage")
        else:
            argv = ["gcc", "-x", "c-header", str(header), "-o", str(gch)]
            run_here(argv, self.root)
        return f"precompiled {gch}"

    def _take_back(self) -> str:
        """The tree as it once was."""
        saved = self.root.with_name("saved")
        if not saved.exists() or self.random.random() < 0.3:
            shutil.rmtree(saved, ignore_errors=True)
            subprocess.run(["cp", "-a", self.root, saved], check=True)
            return "save"
        for place in self.root.iterdir():
            if place.is_symlink() or not place.is_dir():
                place.unlink()
            else:
                shutil.rmtree(place)
        subprocess.run(["cp", "-a", f"{saved}/.", self.root], check=True)
        return "as saved"

    def _source(self) -> str:
        path = self.root / self.random.choice(SOURCES)
        self._write(path)
        return f"source {path}"

    def _switch_checkout(self) -> str:
        other = self.checkouts[self.root == self.checkouts[0]]
        if not other.exists():
            subprocess.run(["cp", "-a", self.root, other], check=True)
        self.root = other
        for place in ("out", "src/sub"):
            (other / place).mkdir(parents=True, exist_ok=True)
        return f"switch to {other}"

    # --- builds ---------------------------------------------------------------------------------

    def step(self) -> None:
        """Some edits, and a build."""
        random_ = self.random
        if random_.random() < 0.5:
            for _ in range(random_.choice((1, 1, 1, 2, 3))):
                self.edit()
        if random_.random() < 0.03:
            self.commands[random_.randrange(len(self.commands))] = self._command()
        self._disturbed = random_.choice(("before", "after")) if random_.random() < 0.15 else ""
        self.build(random_.choice(self.commands))
        self._disturbed = ""

    def build(self, command: Command) -> None:
        """One build; a hit is compared."""
        for place in ("out", "src"):
            (self.root / place).mkdir(exist_ok=True)
        here = {"root": str(self.root)}
        argv = [word.replace("{root}", here["root"]) for word in command.argv]
        env = {name: value.replace("{root}", here["root"]) for name, value in command.env.items()}
        cwd = self.root / command.below
        reply = self.box.compile(argv, cwd, env)
        self.built += 1
        if self.random.random() < 0.8:
            self.box.settle()
        if not is_hit(reply):
            self.kinds[f"{reply.outcome} {reply.exit_code} {reply.reason}"] += 1
            return
        self.hits += 1
        ours = done_of(reply)
        local = self._locally(argv, cwd, env)
        if ours != local and ours != self._locally(argv, cwd, env):
            raise Difference(
                f"seed {self.seed}, build {self.built}\n{env} {argv}\nin {cwd}\n{_shown(local)}\n"
                f"{_shown(ours)}\n" + "\n".join(self.log[-8:])
            )

    def _locally(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Done:
        """What a local compile prints and writes."""
        places = [os.path.realpath(p) for p in (self.root / "out", self.root, cwd)]
        for path in _outputs(places):
            path.unlink()
        done = run_here(argv, cwd, **env)
        done.files = {str(path): path.read_bytes() for path in _outputs(places)}
        return done


def _outputs(places: Sequence[str]) -> list[Path]:
    return [path for p in dict.fromkeys(places) for path in Path(p).iterdir() if _is_output(path)]


def _is_output(path: Path) -> bool:
    suffixes = (".o", ".d", ".gcno", ".i", ".ii", ".s", ".bc", ".dwo")
    return path.is_file() and (path.parent.name == "out" or path.suffix in suffixes)


def _shown(done: Done) -> str:
    return f"exit {done.exit_code} {sorted(done.files)} {done.stdout!r} {done.stderr[-600:]!r}"
