"""The program that runs a command in a namespace: what the command sees, can do, and leaves."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distbuild.worker.process import spawn
from distbuild.worker.sandbox import enter, prepared
from distbuild.worker.sandbox.view import base_plan
from tests.support.cluster import wait_until
from tests.support.sandboxes import entering
from tests.support.tools import absent, need

pytestmark = pytest.mark.program

#: Where the test's directory is shown in the namespace.
SHOWN = b"/.shown"
PROC = enter.one(b"proc", b"/proc")
TMP = [*PROC, *enter.one(b"tmpfs", b"/tmp")]
FAILED = 125


class Namespace:
    """A namespace in which ``directory`` can be written in, as ``SHOWN``."""

    def __init__(self, directory: Path) -> None:
        plan = base_plan()
        plan.bind(SHOWN, os.fsencode(directory), writable=True)
        plan.special(b"/.empty", "dir")
        self.directory = directory
        self.kept = prepared.make(os.fsencode(need("bwrap")), plan.arguments())

    def words(self, operations: Sequence[bytes], command: Sequence[bytes]) -> list[bytes]:
        program = os.fsencode(entering())
        limits = spawn.limits()
        return enter.arguments(program, self.kept.descriptors, limits, operations, command)

    def start(
        self, operations: Sequence[bytes], command: Sequence[bytes]
    ) -> tuple["subprocess.Popen[bytes]", int]:
        """The started program and the descriptor of its report."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        words = [
            b"%d" % writer if word == b"{report}" else word
            for word in _with_report(self.words(operations, command))
        ]
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(writer,),
            start_new_session=True,
        )
        os.close(writer)
        return process, reader

    def run(
        self, operations: Sequence[bytes], *command: str | bytes
    ) -> tuple[int, bytes, bytes, bytes]:
        """The exit status, the report, and what was printed."""
        process, reader = self.start(operations, list(map(os.fsencode, command)))
        out, err = process.communicate(timeout=60)
        with open(reader, "rb") as file:
            return process.returncode, file.read(), out, err

    def output(self, script: str, operations: Sequence[bytes] = PROC) -> str:
        """What a shell script prints that succeeds."""
        status, _, out, err = self.run(operations, "/bin/sh", "-c", script)
        assert (status, err) == (0, b"")
        return out.decode()


def _with_report(words: Sequence[bytes]) -> list[bytes]:
    """The second word stands for the report's descriptor."""
    return [words[0], b"{report}", *words[2:]]


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Namespace:
    entering()
    return Namespace(tmp_path_factory.mktemp("shown"))


# --- what it reports ----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 7, FAILED, 127, 255])
def test_the_exit_code_is_the_commands(namespace: Namespace, code: int) -> None:
    status, report, *_ = namespace.run(PROC, "/bin/sh", "-c", f"exit {code}")
    assert status == code
    assert json.loads(report) == {"exit-code": code}


def test_a_signal_counts_from_128(namespace: Namespace) -> None:
    status, report, *_ = namespace.run(PROC, "/bin/sh", "-c", "kill -SEGV $$")
    assert status == 128 + signal.SIGSEGV
    assert json.loads(report) == {"exit-code": status}


@pytest.mark.parametrize(
    ("operations", "command", "said"),
    [
        ([], ["/no/such/program"], b"cannot run /no/such/program: No such file"),
        ([], ["/etc"], b"cannot run /etc: Permission denied"),
        ([], [], b"no command: Invalid argument"),
        ([b"frobnicate", b"/tmp"], ["true"], b"frobnicate /tmp: Invalid argument"),
        ([b"bind", b"/tmp"], ["true"], b"bind --: No such file or directory"),
        (enter.bind(b"/no/such", b"/tmp"), ["true"], b"bind /tmp: No such file"),
        (enter.one(b"detach", b"/usr/bin"), ["true"], b"detach /usr/bin: Invalid argument"),
        (enter.one(b"chdir", b"/no/such"), ["true"], b"chdir /no/such: No such file"),
        (enter.overlay(b"/tmp", b"/" + b"x" * 300), ["true"], b"overlay /xxx"),
    ],
)
def test_what_cannot_be_done_is_said_and_not_reported(
    namespace: Namespace, operations: list[bytes], command: list[str], said: bytes
) -> None:
    status, report, _, err = namespace.run([*PROC, *operations], *command)
    assert (status, report) == (FAILED, b"")
    assert said in err


@pytest.mark.parametrize("count", range(12))
def test_too_few_words_are_refused(count: int) -> None:
    words = [os.fsencode(entering()), *[b"1"] * count]
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.returncode == FAILED
    assert done.stderr


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                b"bind move link overlay proc tmpfs directory file detach chdir --".split()
            ),
            st.sampled_from([b"/", b"/tmp", b"/proc", b"/.empty", b"/.shown", b"/usr/bin", b""]),
            st.binary(max_size=700).map(lambda word: word.replace(b"\0", b"/")),
        ),
        max_size=12,
    )
)
def test_any_operations_end_in_a_result_or_a_reason(
    namespace: Namespace, operations: list[bytes]
) -> None:
    if b"--" in operations:  # what follows is the command
        operations = operations[: operations.index(b"--")]
    status, report, _, err = namespace.run(operations, "/bin/true")
    assert status in (0, FAILED)
    assert bool(report) == (status == 0)
    assert bool(err) == (status != 0)


# --- what the command sees ----------------------------------------------------------------------


def test_the_command_has_no_rights(namespace: Namespace) -> None:
    lines = dict(
        line.split(":\t") for line in namespace.output("cat /proc/self/status").splitlines()
    )
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(lines[kind], 16) == 0
    assert lines["NoNewPrivs"] == "1"
    assert int(lines["Uid"].split()[0]) == os.getuid()


def test_the_command_has_only_its_own_processes_and_descriptors(namespace: Namespace) -> None:
    processes = namespace.output("echo /proc/[0-9]*").split()
    assert processes == ["/proc/1", "/proc/2"]
    assert namespace.output("ls /proc/self/fd").split() == ["0", "1", "2", "3"]


def test_the_first_process_cannot_be_read_or_stopped(namespace: Namespace) -> None:
    script = (
        "for name in root fd/1 mem maps environ ns/mnt; do"
        " head -c1 /proc/1/$name >/dev/null 2>&1 && echo $name; done;"
        " kill -KILL 1; kill -STOP 1; sleep 0.1; echo here"
    )
    status, report, out, _ = namespace.run(PROC, "/bin/sh", "-c", script)
    assert (status, out) == (0, b"here\n")
    assert report


#: Has hundreds of children, attaches to every process, opens their roots, and enters namespaces.
HOSTILE = """\
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/mount.h>
#include <unistd.h>

int main(void)
{
    char path[99];
    for (int i = 0; i < 400; i++)
        if (fork() == 0)
            for (;;)
                pause();
    printf("attached %d, ", ptrace(PTRACE_SEIZE, 1, 0, 0) == 0);
    int roots = 0, spaces = 0, descriptors = 0;
    const char *const kinds[] = {"user", "mnt", "net", "ipc", "uts", "pid"};
    for (int i = 0; i < 3; i++) {
        sprintf(path, "/proc/%d/root", i);
        roots += open(path, O_RDONLY) >= 0 && i != 2;
    }
    for (int i = 0; i < 6; i++) {
        sprintf(path, "/proc/1/ns/%s", kinds[i]);
        spaces += setns(open(path, O_RDONLY), 0) == 0;
        sprintf(path, "/proc/self/ns/%s", kinds[i]);
        spaces += setns(open(path, O_RDONLY), 0) == 0;
    }
    for (int i = 0; i < 64; i++) {
        sprintf(path, "/proc/1/fd/%d", i);
        descriptors += open(path, O_RDONLY) >= 0;
    }
    int mounts = (mount("none", "/tmp", "tmpfs", 0, 0) == 0) + (umount("/usr") == 0) +
                 (mount("/usr", "/", 0, MS_MOVE, 0) == 0) + (chroot("/usr") == 0);
    printf("roots %d, spaces %d, descriptors %d, mounts %d\\n", roots, spaces, descriptors, mounts);
    return 0;
}
"""


def test_a_hostile_command_gets_nowhere(namespace: Namespace) -> None:
    source = namespace.directory / "hostile.c"
    source.write_text(HOSTILE)
    program = namespace.directory / "hostile"
    words = [need("gcc"), "-w", "-D_GNU_SOURCE", str(source), "-o", str(program)]
    subprocess.run(words, check=True)
    before = len(os.listdir("/proc"))
    found = namespace.output("/.shown/hostile")
    assert found == "attached 0, roots 0, spaces 0, descriptors 0, mounts 0\n"
    wait_until(lambda: len(os.listdir("/proc")) < before + 200, "its children have ended")


#: Removes mounts as far as it can, as itself and in a user namespace of its own, and lists what it
#: then sees.
UNCOVERING = """\
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

int main(void)
{
    const char *const tops[] = {"/tmp", "/.shown", "/usr", "/proc", "/"};
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 5; j++)
            umount2(tops[j], MNT_DETACH);
        unshare(CLONE_NEWUSER | CLONE_NEWNS);
    }
    const char *const seen[] = {"/.shown", "/tmp", "/proc/1/root/.shown", "/proc/self/root/.shown"};
    for (int i = 0; i < 4; i++) {
        DIR *opened = opendir(seen[i]);
        int count = 0;
        while (opened != NULL && readdir(opened) != NULL)
            count++;
        const char *const found = count > 2 ? "full" : "empty";
        printf("%s: %s\\n", seen[i], opened == NULL ? strerror(errno) : found);
    }
    return 0;
}
"""


def test_nothing_that_was_detached_or_covered_is_seen(namespace: Namespace, tmp_path: Path) -> None:
    (namespace.directory / "secret").write_text("secret")
    source, program = tmp_path / "uncovering.c", namespace.directory / "uncovering"
    source.write_text(UNCOVERING)
    words = [need("gcc"), "-w", "-D_GNU_SOURCE", str(source), "-o", str(program)]
    subprocess.run(words, check=True)
    operations = [
        *TMP,
        *enter.one(b"file", b"/tmp/uncovering"),
        *enter.bind(SHOWN + b"/uncovering", b"/tmp/uncovering"),
        *enter.one(b"detach", SHOWN),
    ]
    status, _, out, err = namespace.run(operations, "/tmp/uncovering")
    assert (status, err) == (0, b"")
    assert out.decode().splitlines() == [
        "/.shown: empty",
        "/tmp: full",
        "/proc/1/root/.shown: Permission denied",
        "/proc/self/root/.shown: empty",
    ]


def test_shared_memory_is_one_commands_own(namespace: Namespace) -> None:
    """Segments outlive their processes: they would stay until the worker's end."""
    assert namespace.output("ipcmk -M 4096 >/tmp/x && ipcs -m | grep -c 0x", TMP) == "1\n"
    assert namespace.output("ipcs -m | grep 0x || echo none", TMP) == "none\n"


def test_there_is_no_network(namespace: Namespace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = namespace.run(PROC, "/bin/bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}")
    assert done[0] == 1
    assert b"unreachable" in done[3] or b"refused" in done[3]
    interfaces = namespace.output("tail -n +3 /proc/net/dev").split(":")
    assert interfaces[0].strip() == "lo"


def test_limits_reach_the_command(namespace: Namespace) -> None:
    space, cpu, size = spawn.limits()
    found = namespace.output("ulimit -v; ulimit -t; ulimit -f").split()
    assert [int(word) for word in found] == [space // 1024, cpu, size // 512]
    processes = namespace.output("grep '^Max processes' /proc/self/limits").split()
    assert processes[2:4] == [str(enter.MAX_PROCESSES)] * 2


# --- what it shows ------------------------------------------------------------------------------


def test_mounts_are_one_commands_own(namespace: Namespace) -> None:
    """Two at the same time, in the same namespaces."""
    operations = [*PROC, *enter.one(b"tmpfs", b"/tmp")]
    script = b"echo mine >/tmp/mine; echo; read line; ls /tmp"
    process, reader = namespace.start(operations, [b"/bin/sh", b"-c", b"%s </dev/zero" % script])
    try:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"\n"
        assert namespace.output("ls /tmp", operations) == ""
    finally:
        process.kill()
        process.communicate()
        os.close(reader)


def test_an_overlay_keeps_what_is_written(namespace: Namespace) -> None:
    entering()
    top = namespace.directory / "layered"
    for name in ("below/sub", "up", "work"):
        (top / name).mkdir(parents=True)
    (top / "below/old").write_text("old")
    (top / "below/sub/deep").write_text("deep")
    if not prepared.has_layers(need("bwrap"), entering(), str(top)):
        absent(f"no overlays in {top}")
    shown = SHOWN + b"/layered"
    operations = [*PROC, *enter.overlay(shown + b"/below", shown)]
    script = "cd /.shown/layered/below; cat old sub/deep; echo a >new; echo b >sub/new; rm old; ls"
    assert namespace.output(script, operations) == "olddeepnew\nsub\n"
    assert (top / "below/old").read_text() == "old"
    assert (top / "up/sub/new").read_text() == "b\n"
    assert sorted(os.listdir(top / "below")) == ["old", "sub"]


def test_operations_happen_in_their_order(namespace: Namespace) -> None:
    new = b"/.empty"
    operations = [
        *PROC,
        *enter.one(b"tmpfs", new),
        *enter.one(b"directory", new + b"/d"),
        *enter.one(b"file", new + b"/f"),
        *enter.link(b"f", new + b"/l"),
        *enter.bind(b"/etc/alternatives", new + b"/d"),
        *enter.move(new, b"/tmp"),
        *enter.one(b"chdir", b"/tmp"),
    ]
    script = 'pwd; ls; readlink l; test -e d/README -o -n "$(ls d)" && echo full; ls /.empty'
    assert namespace.output(script, operations).split() == ["/tmp", *"dfl", "f", "full"]


# --- how it ends --------------------------------------------------------------------------------

#: Ignores what can be ignored, leaves its session, and has a child that does so too.
STUBBORN = b"trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM HUP; sleep 1000' & echo; sleep 1000"


def alive(mark: str) -> list[int]:
    """The processes whose command line has this word."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


@pytest.mark.parametrize("victim", ["outer", "first"])
def test_the_end_of_one_process_ends_all(namespace: Namespace, victim: str) -> None:
    mark = f"mark{time.monotonic_ns()}"
    command = [b"/bin/sh", b"-c", STUBBORN.replace(b"1000", b"1000 #" + mark.encode())]
    process, reader = namespace.start(PROC, command)
    assert process.stdout is not None
    assert process.stdout.read(1) == b"\n"
    assert len(alive(mark)) >= 3
    if victim == "first":
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
    else:
        process.kill()
    process.communicate(timeout=30)
    with open(reader, "rb") as report:
        assert report.read() == b""
    wait_until(lambda: not alive(mark), "all have ended")


def test_the_end_of_the_worker_ends_all(namespace: Namespace, tmp_path: Path) -> None:
    mark = f"mark{time.monotonic_ns()}"
    command = [b"/bin/sh", b"-c", STUBBORN.replace(b"1000", b"1000 #" + mark.encode())]
    words = _with_report(namespace.words(PROC, command))
    # Another process has the descriptors under the same numbers; these words name this process's.
    script = (
        "import os, subprocess, sys\n"
        "reader, writer = os.pipe()\n"
        "words = [str(writer) if word == '{report}' else word for word in sys.argv[1:]]\n"
        "subprocess.run(words, pass_fds=(writer,))\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", script, *map(os.fsdecode, words)], stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    assert worker.stdout.read(1) == b"\n"
    worker.kill()
    worker.communicate(timeout=30)
    wait_until(lambda: not alive(mark), "all have ended")
