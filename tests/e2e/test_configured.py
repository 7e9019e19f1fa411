"""Compilers with configuration of their own compile elsewhere as here, where both have the same."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import SANDBOXES
from tests.support.cluster import Cluster
from tests.support.objects import assert_same
from tests.support.stand_in import make_stand_in
from tests.support.tools import need, need_configured, takes_assembler_of_path

pytestmark = pytest.mark.compiler

KITS = ("kit-gcc", "clang-98", "clang-99")
SOURCE = "int defined = FROM_CONFIGURATION;\n"


def _gcc(kit: Path) -> None:
    """A gcc in a directory of its own, with a specs file beside its parts."""
    gcc = Path(need("gcc")).resolve()
    asked = [str(gcc), "-print-libgcc-file-name"]
    parts = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout).parent
    own = kit / "lib/gcc" / parts.parent.name / parts.name
    own.mkdir(parents=True)
    shutil.copy(gcc, kit / "bin/kit-gcc")
    for part in parts.iterdir():
        (own / part.name).symlink_to(part)
    asked = [str(gcc), "-print-prog-name=cc1"]
    programs = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout).parent
    if programs != parts:  # Debian 13 has them below libexec
        (kit / "libexec/gcc" / parts.parent.name).mkdir(parents=True)
        (kit / "libexec/gcc" / parts.parent.name / parts.name).symlink_to(programs)
    (own / "specs").write_text("*cc1_options:\n+ -DFROM_CONFIGURATION=1\n\n")


def _clang(kit: Path) -> None:
    shutil.copy(Path(need(need_configured("clang"))).resolve(), kit / "bin/clang-98")
    (kit / "bin/clang.cfg").write_text("@more.txt\n")
    (kit / "bin/more.txt").write_text("-DFROM_CONFIGURATION=2\n")


def _with_outputs(kit: Path) -> None:
    """One whose configuration has each compile write more than its command says."""
    shutil.copytree(kit / "bin", kit.parent / "more/bin")
    (kit.parent / "more/bin/more.txt").write_text("-save-temps\n")
    (kit.parent / "more/bin/clang-98").rename(kit.parent / "more/bin/clang-97")
    (kit / "bin/clang-97").symlink_to(kit.parent / "more/bin/clang-97")


def _elsewhere(kit: Path) -> None:
    """A stand-in for a clang that is built with a directory for its configuration."""
    clang = str(Path(need(need_configured("clang"))).resolve())
    system = kit.parent / "etc" / "clang"
    system.mkdir(parents=True)
    (system / "clang.cfg").write_text("-DFROM_CONFIGURATION=3\n")
    make_stand_in(kit / "bin/clang-99", clang, f"--config-system-dir={system}")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("configured") / "kit"
    (made / "bin").mkdir(parents=True)
    for make in (_gcc, _clang, _with_outputs, _elsewhere):
        make(made)
    return made


@pytest.fixture(scope="module", params=SANDBOXES)
def farm(
    request: pytest.FixtureRequest,
    kit: Path,
    tmp_path_factory: pytest.TempPathFactory,
    certs_dir: Path,
) -> Iterator[Cluster]:
    """One worker with these compilers; its own environment must reach none of them."""
    if SANDBOXES[request.param]:
        need(SANDBOXES[request.param])
    root = tmp_path_factory.mktemp("farm")
    home = root / "home"
    (home / ".config/clang").mkdir(parents=True)
    started = Cluster(root / "cluster", certs_dir, [{"sandbox": request.param}])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"/usr/bin:/bin:{kit / 'bin'}")
        started.daemons[0].prefix = [
            "env",
            f"HOME={home}",
            "CCC_OVERRIDE_OPTIONS=+-DWORKER",
            "CLANG_NO_DEFAULT_CONFIG=1",
            "CPATH=/no/such",
            f"GCC_EXEC_PREFIX={home}/",
            f"COMPILER_PATH={home}",
            "DEPENDENCIES_OUTPUT=/dev/null",
        ]
        try:
            yield started.start()
            started.stop()
        finally:
            started.kill()


@pytest.mark.in_turn("name")
@pytest.mark.parametrize("name", KITS)
def test_configuration_that_both_have(
    name: str, farm: Cluster, kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"/usr/bin:/bin:{kit / 'bin'}")
    (tmp_path / "x.c").write_text(SOURCE)
    before = farm.jobs()["done"]
    for words in (["-c", "x.c"], ["-g", "-O2", "-c", "x.c"]):
        done = assert_same(farm, [name, *words], tmp_path)
        assert done.exit_code == 0
    assert farm.jobs()["done"] == before + 2


def test_configuration_that_makes_another_command_of_it(
    farm: Cluster, kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"/usr/bin:/bin:{kit / 'bin'}")
    (tmp_path / "x.c").write_text("int x;\n")
    done = assert_same(farm, ["clang-97", "-c", "x.c"], tmp_path)
    assert "x.s" in done.files
    said = farm.run(["clang-97", "-c", "x.c"], tmp_path, DIST_BUILD_VERBOSE="1").stderr
    assert b"unsupported_option: -save-temps" in said


#: What of the dev box's environment makes it another compiler, or one that only it can run.
LOCAL = {
    "PATH": ("{bin}:/usr/bin:/bin", "no_toolchain"),
    "LD_LIBRARY_PATH": ("{lib}", "no_toolchain"),
    "LD_PRELOAD": ("{lib}/libmpfr.so.6", "no_toolchain"),
    "COMPILER_PATH": ("{bin}", "runs_other_code"),
    "CCC_OVERRIDE_OPTIONS": ("+-DX", "runs_other_code"),
    "CLANG_NO_DEFAULT_CONFIG": ("1", "unsupported_option"),
    "GCC_EXEC_PREFIX": ("{bin}/", "runs_other_code"),
    "GCONV_PATH": ("{bin}", "runs_other_code"),
    "LD_AUDIT": ("{lib}/libmpfr.so.6", "runs_other_code"),
    "LOCPATH": ("{bin}", "unsupported_option"),
}


@pytest.fixture
def other(tmp_path: Path) -> dict[str, Path]:
    """Directories with another assembler and another library."""
    made = {name: tmp_path / "other" / name for name in ("bin", "lib")}
    for directory in made.values():
        directory.mkdir(parents=True)
    loaded = subprocess.run(
        ["ldd", _asked("cc1")], capture_output=True, text=True, check=True
    ).stdout.split()
    mpfr = next(word for word in loaded if word.startswith("/") and "libmpfr" in word)
    for path, copy in ((need("as"), made["bin"] / "as"), (mpfr, made["lib"] / "libmpfr.so.6")):
        copy.write_bytes(Path(path).read_bytes() + b"\0")
        copy.chmod(0o755)
    return made


def _asked(program: str) -> str:
    words = [need("gcc"), f"-print-prog-name={program}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("variable", LOCAL)
def test_an_environment_that_changes_the_compiler(
    variable: str, farm: Cluster, other: dict[str, Path], tmp_path: Path
) -> None:
    value, reason = LOCAL[variable]
    if variable == "PATH" and not takes_assembler_of_path():
        reason = "compiled by"
    (tmp_path / "x.c").write_text("int x;\n")
    env = {variable: value.format(**other)}
    done = farm.run(["gcc", "-c", "x.c"], tmp_path, DIST_BUILD_VERBOSE="1", **env)
    assert reason in done.stderr.decode()


def test_an_environment_that_does_not_change_the_compiler(
    farm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.c").write_text("int x;\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libx.so").touch()
    before = farm.jobs()["done"]
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}/lib:")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin:.")
    for compiler in ("gcc", "clang", need_configured("clang")):
        assert_same(farm, [compiler, "-c", "x.c"], tmp_path)
    assert farm.jobs()["done"] == before + 3
