"""Fixtures for every test: nothing may be left running, and which tools have to be there."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from tests.support.chosen import VARIABLE, choose
from tests.support.seed import locked
from tests.support.tools import need

#: Whatever a test has told to end gets this long; only a leak waits for all of it.
GRACE_S = 30.0
#: The number of examples of a property test, by hypothesis's profiles: `make unit` and `make test`
#: take the first, `.ci/run` at its end the second, each round of `make fuzz` the third.
for _profile, _examples in (("quick", 20), ("thorough", 100), ("fuzz", 200)):
    settings.register_profile(
        _profile,
        max_examples=_examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],  # a machine may do other things
    )
settings.load_profile("quick")
USUAL_HANDLERS = {
    getattr(signal, name): usual
    for name, usual in (
        ("SIGINT", signal.default_int_handler),
        ("SIGHUP", signal.SIG_DFL),
        ("SIGQUIT", signal.SIG_DFL),
    )
    if hasattr(signal, name)  # Windows has the first only
}
GEN_CERTS = Path(__file__).parents[1] / "src" / "certs" / "gen_self_signed_certs.sh"


def pytest_configure(config: pytest.Config) -> None:
    """The compilers that DIST_BUILD_COMPILERS names. Processes of pytest-xdist inherit PATH.

    A run in the background or under nohup inherits ignored signals. Its servers would ignore them
    too, while tests wait for what they do.
    """
    for number, usual in USUAL_HANDLERS.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    if not hasattr(config, "workerinput") and (links := choose(os.environ.get(VARIABLE, ""))):
        config.add_cleanup(lambda: shutil.rmtree(links))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as exhaustive every second combination of parameters that take turns, or all but every
    third with ``of=3``.

    With two sandboxes and two compilers each row is run in each sandbox and with each compiler,
    though not with each pair of these.
    """
    # One process runs all tests of a file: the file of the longest ones is not to be the last.
    items.sort(key=lambda item: "tests/fault/" not in item.nodeid)
    # The values of each parameter of each test, in order: pytest's own indices number combinations.
    values = defaultdict[tuple[object, str], list[object]](list)
    for item in items:
        turns = item.get_closest_marker("in_turn")
        if turns is not None and isinstance(item, pytest.Function):
            number = 0
            for name in turns.args:
                value, known = item.callspec.params[name], values[item.function, name]
                if value not in known:
                    known.append(value)
                number += known.index(value)
            if number % turns.kwargs.get("of", 2):
                item.add_marker(pytest.mark.exhaustive)


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.is_alive()}


def _may_have_children() -> bool:
    """Whether this process has a child, from Linux's own list; True without that list.

    psutil reads the status of every process on the machine (milliseconds, twice a test).
    """
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", "rb") as children:
                if children.read():
                    return True
    except OSError:  # a thread has just ended, or the kernel has no such list
        return True
    return False


def _children() -> set[psutil.Process]:
    if not _may_have_children():
        return set()
    return {
        child
        for child in psutil.Process().children(recursive=True)
        if child.is_running() and "resource_tracker" not in " ".join(_cmdline(child))
    }


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    """Fail a test that leaks a thread or a child process; leaked processes are killed."""
    threads, children = _threads(), _children()
    yield
    deadline = time.monotonic() + GRACE_S
    new_threads, new_children = _threads() - threads, _children() - children
    while (new_threads or new_children) and time.monotonic() < deadline:
        for thread in new_threads:
            thread.join(0.05)
        psutil.wait_procs(list(new_children), timeout=0.05)
        new_threads, new_children = _threads() - threads, _children() - children
    described = [f"{child.pid}: {' '.join(_cmdline(child))}" for child in new_children]
    for child in new_children:
        child.kill()
    psutil.wait_procs(list(new_children), timeout=GRACE_S)
    assert not new_threads, f"left running: {new_threads}"
    assert not new_children, f"left running: {described}"


@pytest.fixture
def require_tool() -> Callable[[str], str]:
    """``require_tool(name)``: its path, or skip; with DIST_BUILD_REQUIRE_TOOLS=1 fail instead."""

    return need


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own settings reach no test."""
    for name in list(os.environ):
        if name.startswith("DIST_BUILD_") and name != "DIST_BUILD_REQUIRE_TOOLS":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def certs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA with both roles' certificates and tokens, made once; read only."""
    top = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent  # of all processes
    installation = top / "installation"
    installation.mkdir(exist_ok=True)
    certs = installation / "certs"
    with locked(installation / "certs.lock"):
        if not certs.exists():
            subprocess.run([GEN_CERTS, certs], check=True, capture_output=True)
    return certs
