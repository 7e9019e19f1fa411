"""Which failures of a compiler are the machine's, by what it says."""

import pytest

from distbuild.command.model import Family
from distbuild.protocol.errors import CompilerCrashed, InfrastructureError
from distbuild.worker.process.here import Completed
from distbuild.worker.process.limits import check, machine_trouble
from distbuild.worker.sandbox.base import names


@pytest.mark.parametrize(
    "said",
    [
        b"cc1: out of memory allocating 65536 bytes after a total of 1232896 bytes\n",
        b"\ncc1plus: out of memory allocating 8 bytes\n",
        b"/usr/lib/gcc/x86_64-linux-gnu/12/cc1: out of memory allocating 8 bytes\n",
        b"virtual memory exhausted: Cannot allocate memory\n",
        b"x86_64-linux-gnu-gcc-12: fatal error: cannot execute 'cc1': Cannot allocate memory\n",
        b"gcc: fatal error: cannot execute 'cc1': execvp: No such file or directory\n"
        b"compilation terminated.\n",
        b"g++-12: error trying to exec 'cc1plus': execvp: Permission denied\n",
        b"gcc: installation problem, cannot exec 'cc1': No such file or directory\n",
        b"gcc: fatal error: Killed signal terminated program cc1\ncompilation terminated.\n",
        b"\x1b[01m\x1b[Kgcc:\x1b[m\x1b[K fatal error: x.s: No space left on device\n",
        b"clang: error: unable to execute command: Killed\n",
        b"clang-14: error: clang frontend command failed with exit code 139\n",
        b"error: unable to open output file 'x.o': 'No space left on device'\n",
        b"LLVM ERROR: out of memory\n",
        b"LLVM ERROR: IO failure on output stream: No space left on device\n",
        b"fatal error: error in backend: IO failure on output stream: No space left on device\n",
        b"x.c:1:1: fatal error: error writing to /tmp/ccx.s: No space left on device\n",
        b"In file included from x.c:1:\na.h:1:10: fatal error: b.h: Input/output error\n",
        b"x.c:3:9: fatal error: cannot open file '/a b/b.h': Input/output error\n",
        b"{standard input}: Fatal error: can't write 12 bytes to section .text of x.o: "
        b"'No space left on device'\n",
        b"/tmp/ccABC.s: Fatal error: can't close x.o: No space left on device\n",
        b"as: x.o: No space left on device\n",
        b"x.c:1:1: internal compiler error: Segmentation fault\n",
    ],
)
def test_trouble_of_the_machine_is_no_verdict(said: bytes) -> None:
    assert machine_trouble(b"x.c: In function 'f':\n" + said)


@pytest.mark.parametrize(
    "said",
    [
        b'x.c:1:2: error: #error "out of memory"\n    1 | #error "out of memory"\n',
        b'x.c:1:2: error: "No space left on device"\n#error "No space left on device"\n ^\n',
        b"x.c:1:2: error: #error fatal error: out of memory\n",
        b"#error fatal error: out of memory\n",
        b"    1 | #error gcc: out of memory\n      |  ^~~~~\n",
        b'x.c:2:5: error: static assertion failed: "Input/output error"\n',
        b"x.c:1:10: fatal error: No space left on device: No such file or directory\n",
        b"x.c:1:10: fatal error: 'Input/output error' file not found\n",
        b"x.c:4: warning: 'out of memory' is deprecated: Cannot allocate memory\n",
        b"{standard input}:5: Error: no such instruction: `out of memory'\n",
        b"x.c:3:1: note: the time limit exceeded\n",
    ],
)
def test_words_of_the_program_itself_are_a_verdict(said: bytes) -> None:
    assert machine_trouble(b"x.c: In function 'f':\n" + said) == ""


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("text", [b"x.o: a\0b.h\n", b"x.o: x.c a\nb.h\n", b"x.o: a\nb.h \\\n c\n"])
def test_a_garbage_list_of_inputs_is_no_verdict(text: bytes, family: Family) -> None:
    with pytest.raises(InfrastructureError, match="garbage"):
        names(text, family)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"x.c:1:1: internal compiler error: Segmentation fault\n", CompilerCrashed),
        (b"gcc: internal compiler error: Aborted signal terminated program cc1\n", CompilerCrashed),
        (b"clang: error: unable to execute command: Segmentation fault\n", CompilerCrashed),
        (b"clang: error: clang frontend command failed with exit code 139\n", CompilerCrashed),
        (b"gcc: fatal error: Killed signal terminated program cc1\n", InfrastructureError),
        (b"clang: error: unable to execute command: Killed\n", InfrastructureError),
        (b"cc1: out of memory allocating 8 bytes\n", InfrastructureError),
    ],
)
def test_a_crash_is_told_from_a_lack(said: bytes, error: type[Exception]) -> None:
    with pytest.raises(InfrastructureError) as raised:
        check(Completed(1, b"", said))
    assert type(raised.value) is error
