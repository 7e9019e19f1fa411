"""Which files count as a compiler's own, and that it shows when another one appears."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from distbuild.compiler.files import (
    clang_configuration,
    gcc_configuration,
    has_effect,
    libraries,
    linker_environment,
)
from distbuild.compiler.identity import Around, Identifier, Identity, are_as_identified, around
from distbuild.mirror.digest_cache import DigestCache
from tests.support.stand_in import make_stand_in
from tests.support.tools import need, need_configured, takes_assembler_of_path

pytestmark = pytest.mark.compiler

DIGESTS = DigestCache()


def identify(driver: str, env: dict[str, str] | None = None, cwd: str = "/") -> Identity:
    """The compiler in an environment of the dev box, as if nothing were remembered."""
    _moments.append(len(_moments))
    found = around({"PATH": "/usr/bin:/bin", **(env or {})}, cwd, 10.0 * _moments[-1])
    return Identifier(DIGESTS).identify(driver, found)


_moments: list[int] = []


def copied_gcc(directory: Path) -> Path:
    """A gcc in a directory of its own, whose parts are links."""
    gcc = Path(need("gcc")).resolve()
    asked = [str(gcc), "-print-libgcc-file-name"]
    parts = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout).parent
    (directory / "bin").mkdir(parents=True)
    shutil.copy(gcc, directory / "bin/gcc")
    own = directory / "lib/gcc" / parts.parent.name / parts.name
    own.mkdir(parents=True)
    for part in parts.iterdir():
        (own / part.name).symlink_to(part)
    return directory / "bin/gcc"


def copied_clang(directory: Path) -> Path:
    (directory / "bin").mkdir(parents=True)
    shutil.copy(Path(need(need_configured("clang"))).resolve(), directory / "bin/clang")
    return directory / "bin/clang"


def altered(program: str, directory: Path) -> Path:
    """A copy that works and has other bytes."""
    directory.mkdir(exist_ok=True)
    copy = directory / Path(program).name
    copy.write_bytes(Path(program).read_bytes() + b"\0")
    copy.chmod(0o755)
    return copy


def machine() -> str:
    done = subprocess.run([need("gcc"), "-dumpmachine"], capture_output=True, text=True)
    return done.stdout.strip()


def gcc_parts(root: Path) -> Path:
    return next((root / "lib/gcc" / machine()).iterdir())


APPEARING: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Path]]] = {
    "specs": (copied_gcc, lambda root: gcc_parts(root) / "specs"),
    "specs of all versions": (copied_gcc, lambda root: root / "lib/gcc/specs"),
    "specs of the tools": (copied_gcc, lambda root: root / machine() / "lib/specs"),
    "an assembler": (copied_gcc, lambda root: gcc_parts(root) / "as"),
    "an assembler of the tools": (copied_gcc, lambda root: root / machine() / "bin/as"),
    "clang.cfg": (copied_clang, lambda root: root / "bin/clang.cfg"),
    "a cfg": (copied_clang, lambda root: root / "bin/x86_64-pc-linux-gnu-clang.cfg"),
    "a library": (copied_clang, lambda root: root / "lib/libc.so.6"),
    "a library for better processors": (
        copied_clang,
        lambda root: root / "lib/glibc-hwcaps/x86-64-v2/libc.so.6",
    ),
}


@pytest.mark.parametrize("name", APPEARING)
def test_a_file_that_appears_is_noticed(name: str, tmp_path: Path) -> None:
    make, place = APPEARING[name]
    driver = make(tmp_path / "kit")
    before = identify(str(driver))
    assert are_as_identified([before])
    path = place(tmp_path / "kit")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("*cc1_options:\n+ -DX\n\n")
    path.chmod(0o755)
    is_read = "library" not in name or looks_beside_itself(driver)
    assert are_as_identified([before]) != is_read


def looks_beside_itself(program: Path) -> bool:
    """Whether it loads libraries from beside its own directory; Debian's clang 21 does not."""
    words = ["readelf", "-d", str(program)]
    return "$ORIGIN/../lib" in subprocess.run(words, capture_output=True, text=True).stdout


def test_a_specs_file_that_goes_is_noticed(tmp_path: Path) -> None:
    driver = copied_gcc(tmp_path / "kit")
    specs = gcc_parts(tmp_path / "kit") / "specs"
    plain = identify(str(driver))
    specs.write_text("*cc1_options:\n+ -DX\n\n")
    with_specs = identify(str(driver))
    assert str(specs) in map(os.path.realpath, with_specs.needs)
    assert with_specs.digest != plain.digest
    specs.write_text("*cc1_options:\n+ -DY\n\n")
    assert identify(str(driver)).digest not in (plain.digest, with_specs.digest)
    specs.unlink()
    assert not are_as_identified([with_specs])
    assert identify(str(driver)).digest == plain.digest


def test_what_a_cfg_includes_counts(tmp_path: Path) -> None:
    driver = copied_clang(tmp_path / "kit")
    cfg, more = (tmp_path / "kit/bin" / name for name in ("clang.cfg", "more.txt"))
    cfg.write_text("@more.txt\n")
    without = clang_configuration(str(driver), "")
    assert str(more) in without.places
    more.write_text("-DX @<CFGDIR>/third\n")
    (cfg.parent / "third").write_text("@clang.cfg")
    found = [path for _, path in clang_configuration(str(driver), "").contents]
    assert sorted(set(found)) == sorted(map(str, (cfg, more, cfg.parent / "third")))


def test_the_directories_that_are_compiled_in_count(tmp_path: Path) -> None:
    """A stand-in for a clang that is built with such directories: it is told of them."""
    program, system, home = tmp_path / "clang", tmp_path / "etc clang", tmp_path / "home"
    user = home / ".config/clang"
    for directory in (system, user):
        directory.mkdir(parents=True)
    clang = need(need_configured("clang"))
    options = (f"--config-system-dir={system}", "--config-user-dir=%s/.config/clang")
    make_stand_in(program, clang, *options)
    env = {"HOME": str(home)}
    plain = identify(str(program), env)
    assert plain.digest == identify(str(program)).digest
    (user / "clang.cfg").write_text("-DX\n")
    assert not are_as_identified([plain])
    own = identify(str(program), env)
    assert own.digest != plain.digest
    assert identify(str(program)).digest == plain.digest
    assert identify(str(program), {"HOME": "/no/such"}).digest == plain.digest
    (system / "clang.cfg").write_text("-DX\n")
    assert not are_as_identified([own])
    assert str(system / "clang.cfg") in identify(str(program)).needs


@pytest.fixture
def gcc() -> Identity:
    return identify(need("gcc"))


def test_the_assembler_is_that_of_the_builds_path(gcc: Identity, tmp_path: Path) -> None:
    path = f"{altered(need('as'), tmp_path / 'bin').parent}:/usr/bin"
    if not takes_assembler_of_path():
        assert identify(need("gcc"), {"PATH": path}).digest == gcc.digest
        return
    assert identify(need("gcc"), {"PATH": path}).digest != gcc.digest
    assert identify(need("gcc"), {"PATH": f"/no/such:{tmp_path}:/usr/bin"}).digest == gcc.digest
    for relative in ("bin:/usr/bin", "./bin:/usr/bin"):
        tied = identify(need("gcc"), {"PATH": relative}, str(tmp_path))
        assert tied.digest != gcc.digest
        assert identify(need("gcc"), {"PATH": relative}, "/").digest == gcc.digest
    (tmp_path / "as").symlink_to(tmp_path / "bin/as")
    assert identify(need("gcc"), {"PATH": ":/usr/bin"}, str(tmp_path)).digest != gcc.digest


def _mpfr(gcc: Identity) -> str:
    return next(path for path in gcc.needs if "libmpfr" in path)


def test_the_libraries_are_those_of_the_builds_environment(gcc: Identity, tmp_path: Path) -> None:
    mpfr = altered(_mpfr(gcc), tmp_path / "lib")
    mpfr.rename(mpfr.with_name("libmpfr.so.6"))
    driver, lib = need("gcc"), str(mpfr.parent)
    for value in (lib, f"/no/such:{lib}", f"/usr;{lib}:", "lib"):
        changed = identify(driver, {"LD_LIBRARY_PATH": value}, str(tmp_path))
        assert changed.digest != gcc.digest, value
    for value in ("", "/no/such", "/usr/lib", str(Path(_mpfr(gcc)).parent), str(tmp_path), ":"):
        same = identify(driver, {"LD_LIBRARY_PATH": value}, str(tmp_path))
        assert same.digest == gcc.digest, value
    preloaded = str(mpfr.with_name("libmpfr.so.6"))
    for value in (preloaded, f"/no/such.so {preloaded}", "./lib/libmpfr.so.6"):
        assert identify(driver, {"LD_PRELOAD": value}, str(tmp_path)).digest != gcc.digest, value


@pytest.mark.parametrize(("name", "same"), [("libfakeroot-0.so", True), ("libother.so", False)])
def test_what_is_preloaded_counts_unless_it_has_no_effect(
    name: str, same: bool, gcc: Identity, tmp_path: Path
) -> None:
    library = tmp_path / name
    subprocess.run([need("gcc"), "-shared", "-xc", "/dev/null", "-o", library], check=True)
    preloaded = identify(need("gcc"), {"LD_PRELOAD": str(library)})
    assert (preloaded.digest == gcc.digest) is same
    assert str(library) in preloaded.needs


def test_directories_without_libraries_leave_no_trace(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libx.so").touch()
    kept = linker_environment((f"/etc/init.d:{tmp_path}:lib:", "x.so ./y.so"), str(tmp_path))
    assert kept == (
        ("LD_LIBRARY_PATH", f"{tmp_path}/lib"),
        ("LD_PRELOAD", f"x.so:{tmp_path}/./y.so"),
    )
    assert linker_environment((None, None), "/") == ()
    assert Around() == around({"PATH": "/no/such", "HOME": "/no/such"}, "/", 1e9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("libc.so.6", True),
        ("libmpfr.so.6.2.0", True),
        ("libbfd-2.40-system.so", True),
        ("libLLVM-16.so.1", True),
        ("ld-linux-x86-64.so.2", True),
        ("libfaketime.so.1", True),
        ("clang.cfg", True),
        ("specs", True),
        ("libxml2.so.2.9.14", False),
        ("libicudata.so.72.1", False),
        ("libtinfo.so.6.4", False),
        ("libfakeroot-sysv.so", False),
        ("libmd5.so", True),
    ],
)
def test_libraries_for_terminals_and_the_like_do_not_count(name: str, expected: bool) -> None:
    assert has_effect(name) is expected


@pytest.mark.parametrize(
    "content",
    [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 90, b"\x7fELF" + bytes(80)],
)
def test_what_is_no_program_has_no_libraries(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(content)
    found = libraries([str(tmp_path / "program"), str(tmp_path / "none"), str(tmp_path)], {})
    assert found.contents == ()


def test_answers_that_are_none_name_no_places(tmp_path: Path) -> None:
    (tmp_path / "gcc").write_bytes(b"\0/nowhere/lib/gcc/\0")
    found = gcc_configuration(str(tmp_path / "gcc"), "m", "")
    assert found.places == ("/nowhere/lib/gcc/m/specs",)
    assert gcc_configuration("/no/such", "m", "install: \nprograms: =\n").places == ()


def test_odd_files_among_the_configuration_are_passed_over(tmp_path: Path) -> None:
    driver = copied_clang(tmp_path / "kit")
    plain = identify(str(driver))
    (driver.parent / "a.cfg").mkdir()
    os.mkfifo(driver.parent / "b.cfg")
    (driver.parent / "c.cfg").symlink_to("/no/such")
    (driver.parent / "d.cfg").symlink_to("d.cfg")
    assert identify(str(driver)).digest == plain.digest
    (driver.parent / "e.cfg").write_bytes(b"@\0 @" + b"x" * 5000 + b" @e.cfg \xff '")
    (driver.parent / "\udcff.cfg").write_bytes(b"-DX")
    found = identify(str(driver))
    assert found.digest != plain.digest
    assert are_as_identified([found])


def test_a_preloaded_library_is_not_run(tmp_path: Path) -> None:
    """The syncer asks what would be loaded, for whoever may have it compile."""
    source, ran = tmp_path / "x.c", tmp_path / "ran"
    source.write_text(
        "#include <fcntl.h>\n"
        f'__attribute__((constructor)) static void f(void) {{ open("{ran}", O_CREAT, 0600); }}\n'
        f'unsigned la_version(unsigned v) {{ open("{ran}", O_CREAT, 0600); return v; }}\n'
    )
    library = tmp_path / "libx.so"
    subprocess.run([need("gcc"), "-shared", "-fPIC", source, "-o", library], check=True)
    env = dict.fromkeys(("LD_PRELOAD", "LD_AUDIT"), str(library))
    assert str(library) in identify(need("gcc"), env).needs
    assert not ran.exists()
