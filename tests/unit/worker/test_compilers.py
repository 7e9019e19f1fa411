import os
from pathlib import Path

import msgspec
import pytest

from distbuild.command.model import Family
from distbuild.compiler.find import WRAPPERS
from distbuild.compiler.identity import Identity, state_of
from distbuild.protocol.errors import InfrastructureError
from distbuild.protocol.messages import Toolchain
from distbuild.system.state_file import read_checked, write_checked
from distbuild.worker.compilers import REFRESH_S, InstalledCompilers, is_wrapper


class FakeIdentifier:
    """Takes a file's content for a compiler's identity; "no" is none. Records what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def identify(self, driver: str, around: object) -> Identity:
        self.asked.append(os.path.basename(driver))
        digest = Path(driver).read_text()
        if digest == "no":
            raise InfrastructureError("not a compiler")
        return Identity(digest, Family.GCC, "gcc 1", os.path.realpath(driver), (), ())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def add(directory: Path, name: str, content: str) -> Path:
    path = directory / name
    path.write_text(content)
    path.chmod(0o755)
    return path


def make(
    path: str, clock: Clock | None = None, memory: Path | None = None
) -> tuple[InstalledCompilers, FakeIdentifier]:
    identifier = FakeIdentifier()
    made = InstalledCompilers(identifier, path, clock or Clock(), memory)  # type: ignore[arg-type]
    return made, identifier


def test_compilers_are_found_by_the_names_that_they_have(directory: Path) -> None:
    for name in ("gcc", "g++-12", "arm-none-eabi-gcc", "clang-14", "c++", "gcc-ar", "cpp", "gccgo"):
        add(directory, name, name)
    compilers, _ = make(str(directory))
    names = [toolchain.name for toolchain in compilers.advertised()]
    assert names == ["arm-none-eabi-gcc", "c++", "clang-14", "g++-12", "gcc"]
    assert Toolchain("gcc", "gcc", "gcc 1") in compilers.advertised()


def test_what_is_no_compiler_is_not_advertised(directory: Path) -> None:
    add(directory, "gcc", "no")
    add(directory, "cc", "id").chmod(0o644)
    (directory / "clang").mkdir()
    compilers, _ = make(str(directory))
    assert compilers.advertised() == []


def test_a_job_s_name_decides_among_equal_compilers(directory: Path) -> None:
    for name in ("cc", "gcc"):
        add(directory, name, "same")
    compilers, _ = make(str(directory))
    for name, found in (("gcc", "gcc"), ("cc", "cc"), ("/other/x-gcc", "cc")):
        driver = compilers.find("same", name)
        assert driver is not None
        assert driver.name == found
    assert compilers.find("other", "gcc") is None


def test_the_first_on_the_path_counts(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "late").mkdir()
    add(directory, "gcc", "first")
    add(tmp_path / "late", "gcc", "second")
    compilers, _ = make(f"{directory}:{tmp_path / 'late'}:/no/such:relative")
    assert [toolchain.identity for toolchain in compilers.advertised()] == ["first"]


def test_one_file_under_several_names_is_asked_once(directory: Path) -> None:
    add(directory, "gcc-12", "id")
    (directory / "gcc").symlink_to("gcc-12")
    compilers, identifier = make(str(directory))
    assert len(compilers.advertised()) == 2
    assert len(identifier.asked) == 1


def test_wrappers_are_passed_over(directory: Path, tmp_path: Path) -> None:
    add(tmp_path, "ccache", "cache")
    (directory / "gcc").symlink_to(tmp_path / "ccache")
    assert is_wrapper(str(directory / "gcc"))
    assert is_wrapper("/usr/lib/ccache/gcc")
    assert is_wrapper("/usr/lib/distcc/bin/gcc")
    assert not is_wrapper("/home/distccfan/bin/gcc")
    for name in WRAPPERS:
        add(tmp_path, name, "wrapper")
        (directory / f"{name}-gcc").symlink_to(tmp_path / name)
        assert is_wrapper(str(directory / f"{name}-gcc")), name
    compilers, _ = make(str(directory))
    assert compilers.advertised() == []


def test_a_new_compiler_is_seen_when_its_directory_has_changed(directory: Path) -> None:
    clock = Clock()
    add(directory, "gcc", "old")
    compilers, identifier = make(str(directory), clock)
    compilers.advertised()
    os.utime(directory, ns=(1, 1))
    add(directory, "clang", "new")
    assert len(compilers.advertised()) == 1
    clock.now = REFRESH_S
    assert [toolchain.name for toolchain in compilers.advertised()] == ["clang", "gcc"]
    asked = len(identifier.asked)
    clock.now = 2 * REFRESH_S
    compilers.advertised()
    assert len(identifier.asked) == asked


def test_a_part_of_a_compiler_that_is_replaced_is_noticed(directory: Path) -> None:
    cc1 = add(directory.parent, "cc1", "1")
    gcc = add(directory, "gcc", "old")
    clock = Clock()

    class WithParts(FakeIdentifier):
        def identify(self, driver: str, around: object) -> Identity:
            found = super().identify(driver, around)
            return msgspec.structs.replace(
                found,
                digest=found.digest + cc1.read_text(),
                needs=(str(cc1),),
                states=(state_of(str(cc1)),),
            )

    compilers = InstalledCompilers(WithParts(), str(directory), clock)  # type: ignore[arg-type]
    assert [t.identity for t in compilers.advertised()] == ["old1"]
    os.utime(gcc)
    cc1.write_text("22")
    assert [t.identity for t in compilers.advertised()] == ["old1"]
    clock.now += REFRESH_S
    assert [t.identity for t in compilers.advertised()] == ["old22"]
    driver = compilers.find("old22", "gcc")
    assert driver is not None
    assert compilers.is_same(driver)
    cc1.rename(cc1.with_name("away"))
    cc1.write_text("3")
    assert not compilers.is_same(driver)
    assert [t.identity for t in compilers.advertised()] == ["old3"]


def test_a_name_that_leads_to_another_compiler_is_noticed(directory: Path, tmp_path: Path) -> None:
    """Through a link in a directory that is not on PATH, as update-alternatives sets it."""
    link = tmp_path / "alternatives/cc"
    for name in ("gcc", "clang"):
        add(tmp_path, name, name)
    link.parent.mkdir()
    link.symlink_to(tmp_path / "gcc")
    (directory / "cc").symlink_to(link)
    clock = Clock()
    compilers, _ = make(str(directory), clock)
    driver = compilers.find("gcc", "cc")
    assert driver is not None
    assert compilers.is_same(driver)
    link.unlink()
    link.symlink_to(tmp_path / "clang")
    assert not compilers.is_same(driver)
    assert compilers.find("gcc", "cc") is None
    link.unlink()
    link.symlink_to(tmp_path / "gcc")
    clock.now += REFRESH_S
    assert compilers.find("gcc", "cc") == driver


def test_a_new_run_asks_only_what_may_have_changed(directory: Path, tmp_path: Path) -> None:
    memory = tmp_path / "state/compilers"
    gcc = add(directory, "gcc", "id")
    offered = make(str(directory), memory=memory)[0].advertised()

    def asked(path: str = str(directory)) -> list[str]:
        compilers, identifier = make(path, memory=memory)
        assert compilers.advertised() == offered
        return identifier.asked

    assert asked() == []
    assert asked(f"{directory}:/no/such") == ["gcc"]
    assert asked() == ["gcc"]  # only the last PATH is remembered
    assert asked() == []
    os.utime(directory, ns=(1, 1))
    assert asked() == ["gcc"]
    memory.write_bytes(memory.read_bytes()[:-1])
    assert asked() == ["gcc"]
    gcc.unlink()
    assert make(str(directory), memory=memory)[0].advertised() == []


def test_what_other_code_found_is_looked_for_again(directory: Path, tmp_path: Path) -> None:
    memory = tmp_path / "compilers"
    add(directory, "gcc", "id")
    make(str(directory), memory=memory)[0].advertised()
    found = msgspec.msgpack.decode(read_checked(memory))
    write_checked(memory, msgspec.msgpack.encode({**found, "rules": b"of an earlier version"}))
    compilers, identifier = make(str(directory), memory=memory)
    assert len(compilers.advertised()) == 1
    assert identifier.asked == ["gcc"]


def test_a_memory_that_cannot_be_written_costs_only_time(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")
    add(directory, "gcc", "id")
    assert len(make(str(directory), memory=tmp_path / "state/compilers")[0].advertised()) == 1


def test_objective_c_is_offered_once_for_all_names(directory: Path) -> None:
    add(directory, "gcc-12", "id")
    (directory / "gcc").symlink_to("gcc-12")

    class WithObjectiveC(FakeIdentifier):
        def identify(self, driver: str, around: object) -> Identity:
            return msgspec.structs.replace(super().identify(driver, around), objective_c="objc")

    compilers = InstalledCompilers(WithObjectiveC(), str(directory), Clock())  # type: ignore[arg-type]
    assert [t.identity for t in compilers.advertised()] == ["id", "id", "objc"]
    found = compilers.find("objc", "gcc")
    assert found is not None
    assert found.name == "gcc"
