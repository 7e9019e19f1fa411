"""A prepared namespace is used again as long as it shows what is there, and freed after its use."""

import gc
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distbuild.protocol.errors import InfrastructureError
from distbuild.worker.sandbox import prepared
from distbuild.worker.sandbox.prepared import PreparedNamespaces, end_leftovers
from distbuild.worker.sandbox.view import SharedView, base_plan
from tests.support.cluster import wait_until
from tests.support.sandboxes import entering
from tests.support.tools import need

pytestmark = pytest.mark.program


@pytest.fixture
def kept() -> PreparedNamespaces:
    entering()
    return PreparedNamespaces(os.fsencode(need("bwrap")), most=2)


def view_of(directory: Path) -> SharedView:
    """A view that shows one directory."""
    plan = base_plan()
    plan.bind(b"/.shown", os.fsencode(directory))
    return SharedView(tuple(plan.arguments()), tuple(plan.places()))


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_one_namespace_serves_a_view_as_long_as_it_holds(
    kept: PreparedNamespaces, tmp_path: Path
) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    view = view_of(shown)
    first = kept.of(view)
    (shown / "new").touch()
    assert kept.of(view) is first
    shown.rename(tmp_path / "away")
    assert kept.of(view_of(tmp_path / "away")) is not first
    shown.mkdir()
    assert kept.of(view) is not first


def test_a_namespace_that_failed_is_not_used_again(
    kept: PreparedNamespaces, tmp_path: Path
) -> None:
    view = view_of(tmp_path)
    first = kept.of(view)
    kept.forget(first)
    kept.forget(first)
    assert kept.of(view) is not first


def test_namespaces_are_freed_with_their_last_use(kept: PreparedNamespaces, tmp_path: Path) -> None:
    places = [tmp_path / name for name in "abc"]
    for place in places:
        place.mkdir()
    before = descriptors()
    used = kept.of(view_of(places[0]))
    one = descriptors() - before
    assert one == len(used.descriptors) == 5
    for place in places[1:]:
        kept.of(view_of(place))
    assert descriptors() - before == 3 * one  # the first is in use, though no longer kept
    del used
    assert descriptors() - before == 2 * one


def test_a_worker_with_many_open_files_makes_one_too(tmp_path: Path) -> None:
    """Hundreds of slots have more than the 1,024 descriptors that select(2) can wait for."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
    opened: list[int] = []
    try:
        while not opened or opened[-1] < 1100:
            opened.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        assert len(prepared.make(os.fsencode(need("bwrap")), view_of(tmp_path).words).descriptors)
        assert prepared.obstacle(need("bwrap"), entering()) == ""
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_bubblewraps_reason_is_given(kept: PreparedNamespaces) -> None:
    before = descriptors()
    for bwrap, words, said in (
        (need("bwrap"), ["--ro-bind", "/no/such", "/x"], "/no/such"),
        ("/bin/false", [], "it does not say why"),
        ("/no/such/bwrap", [], "cannot start /no/such/bwrap"),
        ("/bin/echo", [], "cannot keep a namespace"),
    ):
        with pytest.raises(InfrastructureError, match=said):
            prepared.make(os.fsencode(bwrap), list(map(os.fsencode, words)))
    assert descriptors() == before


def test_what_does_not_work_here_is_said() -> None:
    bwrap, program = need("bwrap"), entering()
    assert prepared.obstacle(bwrap, program) == ""
    assert prepared.obstacle(bwrap, None) == "no C compiler works here"
    assert "cannot be entered" in prepared.obstacle(bwrap, Path("/bin/false"))
    assert "it does not say why" in prepared.obstacle("/bin/false", program)
    assert "cannot start" in prepared.obstacle(bwrap, Path("/no/such"))


def test_a_file_system_without_overlays_is_noticed(tmp_path: Path) -> None:
    bwrap, program = need("bwrap"), entering()
    assert not prepared.has_layers(bwrap, Path("/bin/true"), str(tmp_path))
    assert not prepared.has_layers("/bin/false", program, str(tmp_path))
    assert os.listdir(tmp_path) == []
    assert not prepared.has_layers(bwrap, program, "/no/such/directory")


def test_what_an_earlier_worker_left_is_ended(tmp_path: Path) -> None:
    jobs = tmp_path / "sandbox" / ".jobs"
    sleep = ["-c", "import time; time.sleep(600)", "--bind"]
    lines = {
        "ours": ["/usr/bin/bwrap", *sleep, str(jobs)],
        "below ours": ["bwrap", *sleep, f"{jobs}/work"],
        "another worker's": ["bwrap", *sleep, f"{jobs}2"],
        "another program": ["bwrap-of-mine", *sleep, str(jobs)],
    }
    running = {
        name: subprocess.Popen(words, executable=sys.executable) for name, words in lines.items()
    }
    try:
        lines_shown = [Path(f"/proc/{process.pid}/cmdline") for process in running.values()]
        wait_until(
            lambda: all(str(jobs).encode() in line.read_bytes() for line in lines_shown),
            "all of them run",
        )
        end_leftovers(os.fsencode(jobs))
        ended = [running[name].wait(60) for name in ("ours", "below ours")]
        assert ended == [-signal.SIGKILL] * 2
        others = [running[name].poll() for name in ("another worker's", "another program")]
        assert others == [None, None]
    finally:
        for process in running.values():
            process.kill()
            process.wait()
