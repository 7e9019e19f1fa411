import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distbuild.worker.process import spawn

KINDS = {
    "core": (resource.RLIMIT_CORE, 0),
    "cpu": (resource.RLIMIT_CPU, 1800),
    "file": (resource.RLIMIT_FSIZE, 4 * 1024**3),
}
#: Says all limits, as a child of its own sees them: what is forked later has them too. They are set
#: a moment after the program's start, which may be late on a busy machine.
LIMITS = (
    "import os, resource, time\n"
    "kinds = [getattr(resource, 'RLIMIT_' + kind) for kind in 'CORE CPU FSIZE AS'.split()]\n"
    "end = time.monotonic() + 20\n"
    "while any(resource.getrlimit(k)[1] < 0 for k in kinds) and time.monotonic() < end:\n"
    "    time.sleep(0.001)\n"
    "if os.fork() == 0:\n"
    "    for kind in kinds:\n"
    "        print(*resource.getrlimit(kind), flush=True)\n"
    "    os._exit(0)\n"
    "os.wait()\n"
)
DESCRIPTORS = "import os; print([*map(int, os.listdir('/proc/self/fd'))])"


def output_of(script: str, passed: int | None = None) -> str:
    """What a Python program says, started as a compiler is."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    argv = [os.fsencode(sys.executable), b"-I", b"-S", b"-c", script.encode()]
    process = spawn.start(argv, b"/", {}, (subprocess.DEVNULL, writer, writer), passed)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    assert process.wait() == 0, text
    return text


@pytest.fixture
def stray_descriptors() -> Iterator[list[int]]:
    """Descriptors of this process that could be inherited."""
    found = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    for descriptor in found:
        os.set_inheritable(descriptor, True)
    yield found
    for descriptor in found:
        os.close(descriptor)


@pytest.fixture
def own_limits() -> Iterator[None]:
    """This process' soft limits, put back afterwards."""
    before = {kind: resource.getrlimit(kind) for kind, _ in KINDS.values()}
    yield
    for kind, limits in before.items():
        resource.setrlimit(kind, limits)


def expected_limits() -> list[str]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    address_space = max(memory, spawn.MIN_ADDRESS_SPACE)
    return [f"{n} {n}" for n in (0, 1800, 4 * 1024**3, address_space)]


def test_all_limits_reach_what_the_program_forks() -> None:
    assert output_of(LIMITS).splitlines() == expected_limits()


def test_a_program_that_runs_as_somebody_else_is_limited_by_a_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(pid: int) -> None:
        raise PermissionError(pid)

    monkeypatch.setattr(spawn, "confine", refuse)
    monkeypatch.setattr(spawn, "gains_rights", lambda _: True)
    assert output_of(LIMITS).splitlines() == expected_limits()


def test_a_lower_limit_stays() -> None:
    lower = f"""
import os, resource, sys
sys.path[:0] = {sys.path!r}
from distbuild.worker.process import spawn
resource.setrlimit(resource.RLIMIT_CPU, (100, 200))
spawn.start([b"/bin/sh", b"-c", b"sleep 0.1; ulimit -St; ulimit -Ht"], "/", {{}}, (0, 1, 2)).wait()
"""
    done = subprocess.run([sys.executable, "-c", lower], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["100", "200"]


def test_core_and_file_size_are_limited_from_the_first_moment(own_limits: None) -> None:
    spawn.limit_descendants()
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] <= spawn.MAX_FILE_BYTES
    script = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"0\n"


def test_too_large_a_file_kills_the_program(tmp_path: Path) -> None:
    # Python ignores the signal for that, which a child must not inherit.
    script = b"ulimit -f 1; exec head -c 10000 /dev/zero > %s" % os.fsencode(tmp_path / "large")
    process = spawn.start(
        [b"/bin/sh", b"-c", script], b"/", {b"PATH": os.fsencode(os.defpath)}, (0, 1, 2)
    )
    assert process.wait() == -signal.SIGXFSZ


def descriptors(passed: int | None = None) -> list[int]:
    """What a program inherits; the last in the list is the directory that it reads."""
    found = json.loads(output_of(DESCRIPTORS, passed))
    return sorted(found)[:-1]


def test_nothing_is_inherited(stray_descriptors: list[int]) -> None:
    assert descriptors() == [0, 1, 2]


def test_nothing_is_inherited_where_descriptors_cannot_be_sealed(
    stray_descriptors: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "_seal", lambda: False)
    assert descriptors() == [0, 1, 2]


def test_only_the_passed_descriptor_is_inherited_beside_the_outputs(
    stray_descriptors: list[int],
) -> None:
    passed = stray_descriptors[-1]
    assert {*descriptors(passed), passed} - {3} == {0, 1, 2, passed}
    assert descriptors() == [0, 1, 2]
    script = f"import os; print(os.fstat({passed}).st_rdev == os.stat('/dev/null').st_rdev)"
    assert output_of(script, passed) == "True\n"


def test_a_program_that_is_not_there_says_so() -> None:
    with pytest.raises(FileNotFoundError):
        spawn.start([b"/no/such/program"], b"/", {}, (0, 1, 2))
