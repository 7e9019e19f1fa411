"""A dev box with a project, a compiler that is never run, and what makes commands ready there."""

import os
from collections.abc import Iterable
from pathlib import Path

from distbuild.command.model import CompileCommand, Family
from distbuild.compiler.identity import Identity
from distbuild.syncer.compilers import Driver, Search
from distbuild.syncer.prepare import Preparer
from distbuild.syncer.understand import Submission
from tests.support.mirrored import Mirror

IDENTITY = Identity("d" * 64, Family.GCC, "gcc 12 x86_64", "/usr/bin/gcc", (), ())


class FakeCompilers:
    """Same methods as ``Compilers``; every driver is the same gcc."""

    def __init__(self, dirs: tuple[str, ...] = ()) -> None:
        self.dirs = dirs
        self.implicit_include: str | None = None
        self.found: tuple[str, ...] | None = ("-march=cpu",)

    def identity(self, driver: Driver) -> Identity:
        return IDENTITY

    def look_for(self, names: Iterable[str], path: str) -> None:
        pass

    def seen(self) -> list[tuple[str, Identity]]:
        return [("/usr/bin/gcc", IDENTITY)]

    def search(self, driver: Driver, command: CompileCommand) -> Search:
        return Search(self.dirs, self.implicit_include)

    def processor(self, driver: Driver, command: CompileCommand) -> tuple[str, ...] | None:
        return self.found


class Box:
    """The project lies in ``src``; ``inc`` is a search directory of ``submission``."""

    def __init__(self, base: Path, home: str = "") -> None:
        self.base = base
        self.mirror = Mirror(base, home or str(base / "home"), "inotify")
        self.mirroring = self.mirror.mirroring
        self.mirroring.ready.set()
        self.compilers = FakeCompilers()
        self.preparer = Preparer(
            self.compilers,  # type: ignore[arg-type]
            self.mirroring,
        )
        self.write("bin/gcc", "").chmod(0o755)
        self.write("src/x.c", '#include "a.h"\n')
        self.write("inc/a.h", "int a;\n")

    def write(self, name: str, text: str) -> Path:
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def submission(self, *options: str, source: str = "x.c") -> Submission:
        """``gcc -I../inc -c x.c OPTIONS`` in ``src``."""
        argv = ("gcc", f"-I{self.base}/inc", "-c", source, *options)
        return Submission(argv, f"{self.base}/src", {"PATH": f"{self.base}/bin", "SECRET": "x"})

    def path(self, name: str) -> bytes:
        return os.fsencode(self.base / name)

    def stop(self) -> None:
        self.mirroring.stop()
