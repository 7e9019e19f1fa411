"""The servers around an app: start, stop, and every way in which either can go wrong."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests

from distbuild.credentials import load_credentials
from distbuild.wrapper.syncer_client import make_session

SOURCE = Path(__file__).parents[2] / "src"

#: Serves / (pid), /poll (until stop), /slow (0.5 s) and /crash; ``join`` writes a file.
PROGRAM = """
import logging, os, signal, sys, time
from pathlib import Path
from distbuild.logs import set_up_logging
from distbuild.protocol.errors import ConfigError
from distbuild.http import run
from distbuild.http.site import Front, Site
from distbuild.http.listen import listen_port
from distbuild.http.transport import Tls, server_context

certs, port, out, mode = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]

def make_app(stop):
    if mode == "refuse":
        raise ConfigError("the app cannot start")
    if mode == "bug":
        raise RuntimeError("a bug")
    if mode == "early":
        os.kill(server, signal.SIGTERM)
    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/poll":
            (out / "polling").touch()
            stop.wait(60)
        elif path == "/slow":
            (out / "slow").touch()
            time.sleep(0.5)
        elif path == "/crash":
            os.kill(os.getpid(), signal.SIGKILL)
        logging.getLogger("app").info("asked for %s", path)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{os.getpid()} {stop.is_set()}".encode()]
    def join():
        (out / "joined").write_text(f"{os.getpid()} {stop.is_set()}")
        if mode == "bad-join":
            raise RuntimeError("a bug in join")
    return app, join

def make_site(stop):
    app, join = make_app(stop)
    return Site(app, {}, join)

cert, key = certs / "dev/cert.pem", certs / "dev/key.pem"
server = os.getpid()
set_up_logging(out, "testd")
try:
    context = server_context(cert, key)
    front = Front(listen_port("127.0.0.1", port), lambda c: Tls(c, context), 2,
                  lambda headers: True, 1 << 20, 100)
    run.serve(make_site, {"testd": front})
except ConfigError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(is_true: Callable[[], bool], what: str, timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


class Daemon:
    """A server as its own process."""

    def __init__(self, certs: Path, out: Path, mode: str, *, prefix: tuple[str, ...] = ()) -> None:
        self.out = out
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.session = make_session(load_credentials(certs, "dev"), "syncer")
        self.start(certs, mode, prefix)

    def start(self, certs: Path, mode: str, prefix: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", PROGRAM, certs, str(self.port), self.out, mode],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def get(self, path: str = "/") -> str:
        return self.session.get(self.url + path, timeout=600).text

    def wait_until_up(self) -> int:
        """The serving process' id."""
        eventually(self.answers, "the server answers")
        return int(self.get().split()[0])

    def answers(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[0]
        with contextlib.suppress(requests.ConnectionError):
            return bool(self.get())
        return False

    def start_request(self, path: str) -> subprocess.Popen[str]:
        return subprocess.Popen(["curl", "-sk", self.url + path], stdout=subprocess.PIPE, text=True)

    def end(self) -> tuple[int, str]:
        """Exit code, and everything it said."""
        said, _ = self.process.communicate(timeout=600)
        return self.process.returncode, said

    def close(self) -> None:
        self.session.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


StartDaemon = Callable[..., Daemon]


@pytest.fixture
def start(
    certs_dir: Path, tmp_path: Path, require_tool: Callable[[str], str]
) -> Iterator[StartDaemon]:
    require_tool("curl")
    with contextlib.ExitStack() as stack:

        def start_daemon(mode: str = "normal", prefix: tuple[str, ...] = ()) -> Daemon:
            daemon = Daemon(certs_dir, tmp_path, mode, prefix=prefix)
            stack.callback(daemon.close)
            return daemon

        yield start_daemon


def is_gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


@pytest.mark.parametrize("told_by", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_it_in_order_and_in_silence(start: StartDaemon, told_by: int) -> None:
    daemon = start()
    child = daemon.wait_until_up()
    began = time.monotonic()
    daemon.process.send_signal(told_by)
    assert daemon.end() == (0, "")
    assert time.monotonic() - began < 2
    assert (daemon.out / "joined").read_text() == f"{child} True"


def test_terminal_interrupt_of_the_whole_group_ends_it_in_order(start: StartDaemon) -> None:
    for _ in range(10):
        daemon = start()
        daemon.wait_until_up()
        os.killpg(daemon.process.pid, signal.SIGINT)
        assert daemon.end() == (0, "")


def test_hang_up_under_nohup_is_ignored(start: StartDaemon) -> None:
    daemon = start(prefix=("nohup",))
    child = daemon.wait_until_up()
    os.killpg(daemon.process.pid, signal.SIGHUP)
    assert int(daemon.get().split()[0]) == child
    daemon.process.terminate()
    assert daemon.end()[0] == 0


def test_long_polls_answer_when_it_is_told_to_stop(start: StartDaemon) -> None:
    daemon = start()
    child = daemon.wait_until_up()
    polls = [daemon.start_request("/poll") for _ in range(20)]
    eventually((daemon.out / "polling").exists, "a poll has begun")
    eventually(lambda: len(psutil.Process(child).net_connections()) > 20, "all are connected")
    daemon.process.terminate()
    replies = [poll.communicate()[0] for poll in polls]
    assert f"{child} True" in replies
    assert daemon.end() == (0, "")


def test_request_in_flight_is_answered(start: StartDaemon) -> None:
    daemon = start()
    child = daemon.wait_until_up()
    slow = daemon.start_request("/slow")
    eventually((daemon.out / "slow").exists, "the request has begun")
    daemon.process.terminate()
    assert slow.communicate()[0] == f"{child} True"
    assert daemon.end() == (0, "")


def test_signal_while_the_app_is_being_built_is_not_lost(start: StartDaemon) -> None:
    daemon = start("early")
    assert daemon.end() == (0, "")
    assert (daemon.out / "joined").exists()


def test_port_is_free_again_at_once(start: StartDaemon, certs_dir: Path) -> None:
    daemon = start()
    for _ in range(2):
        daemon.wait_until_up()
        daemon.process.terminate()
        assert daemon.end() == (0, "")
        daemon.start(certs_dir, "normal")
    daemon.wait_until_up()


@pytest.mark.parametrize(("mode", "what"), [("bug", "a bug"), ("bad-join", "a bug in join")])
def test_bug_in_the_app_is_an_error_with_its_traceback(
    start: StartDaemon, mode: str, what: str
) -> None:
    daemon = start(mode)
    if mode == "bad-join":
        daemon.wait_until_up()
        daemon.process.terminate()
    code, said = daemon.end()
    assert code == 1
    assert f"RuntimeError: {what}\n" in said


def test_config_error_of_the_app_reaches_the_caller(start: StartDaemon) -> None:
    assert start("refuse").end() == (2, "the app cannot start\n")


def test_port_in_use_is_one_line(start: StartDaemon, certs_dir: Path) -> None:
    daemon = start()
    child = daemon.wait_until_up()
    first = daemon.process
    daemon.start(certs_dir, "normal")
    assert daemon.end() == (
        2,
        f"cannot listen on 127.0.0.1:{daemon.port}: Address already in use;"
        " choose another port, or stop what listens there (ss -ltnp)\n",
    )
    daemon.process = first
    assert int(daemon.get().split()[0]) == child


def test_log_goes_on_in_the_serving_process(start: StartDaemon) -> None:
    daemon = start()
    daemon.wait_until_up()
    eventually(lambda: "app: asked for /" in (daemon.out / "testd.log").read_text(), "it is logged")
    daemon.process.terminate()
    daemon.end()


def test_a_name_that_is_no_utf8_is_taken(
    start: StartDaemon, certs_dir: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "odd\udcff"
    odd.symlink_to(certs_dir)
    daemon = start("refuse")
    assert daemon.end()[0] == 2
    daemon.start(odd, "normal")
    daemon.wait_until_up()
