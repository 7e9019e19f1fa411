import pytest

from distbuild.command.configured import configured_obstacle
from distbuild.command.model import Family, Local, LocalReason

CODE, UNSUPPORTED = LocalReason.RUNS_OTHER_CODE, LocalReason.UNSUPPORTED_OPTION


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("", None),
        ("-DX=1 -O2 -g -fstack-protector-strong", None),
        ("--gcc-triple=x86_64-redhat-linux", None),
        ("--rtlib=compiler-rt --unwindlib=libunwind -stdlib=libc++ -fuse-ld=lld -Wl,-z,now", None),
        ("-include /usr/include/gentoo/fortify.h -I/opt/include --sysroot=/opt", None),
        ("-fplugin=/opt/p.so", CODE),
        ("-B/opt", CODE),
        ("-no-such-option-at-all", UNSUPPORTED),
        ("-gsplit-dwarf", UNSUPPORTED),
        ("-save-temps", UNSUPPORTED),
        ("-MD", UNSUPPORTED),
        ("-march=native", UNSUPPORTED),
        ("-S", UNSUPPORTED),
    ],
)
def test_what_a_configuration_may_add(options: str, reason: LocalReason | None) -> None:
    found = configured_obstacle(tuple(options.split()), Family.CLANG)
    assert (found.reason if isinstance(found, Local) else None) is reason


@pytest.mark.parametrize("words", [("x.c",), ("-o", "y.o"), ("-E",), ("-o",), ("-x", "c++-header")])
def test_what_makes_another_command_of_it_may_not_be_added(words: tuple[str, ...]) -> None:
    assert isinstance(configured_obstacle(words, Family.CLANG), Local)


def test_clang_cl_has_none() -> None:
    assert configured_obstacle((), Family.CLANG_CL) is None
    assert isinstance(configured_obstacle(("-DX",), Family.CLANG_CL), Local)
