"""The set-up by hand, word for word, in a fresh clone in ``~/dist_build``, under the plain ``sh``.

One machine is dev box and build machine at once, and the clone is the home of both: that is what
``git clone`` in the user's home leads to.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Done, free_ports, get_status, wait_until
from tests.support.tools import need

ROOT = Path(__file__).parents[2]
NOT_CLONED = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "__pycache__", "out", ".*_cache"
)

SET_UP = """
set -e
cd ~/dist_build
. ~/env/bin/activate
sh generate_dist_build_executable.sh
sh src/certs/gen_self_signed_certs.sh
"""
SERVER = """
cd ~/dist_build
. ~/env/bin/activate
cp EXAMPLE ~/dist_build/config.json
cd src
exec python PROGRAM
"""
COMPILE = """
cd ~/dist_build
src/dist/dist_build.exe gcc -c test.c
"""
#: What a system without a C compiler has, of all that building asks for.
TOOLS = (
    "cat cut dirname find flock grep head id ldd ln mkdir mktemp mv rm sed sh sleep tail touch tr"
)


class Machine:
    """A user's home with a clone in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.clone = home / "dist_build"
        self.syncer_port, self.daemon_port = free_ports(2)
        self._servers: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        kept = {n: v for n, v in os.environ.items() if n not in ("VIRTUAL_ENV", "PYTHONPATH")}
        # What pip has downloaded for somebody else is not downloaded again.
        cache = os.environ.get("PIP_CACHE_DIR") or os.path.expanduser("~/.cache/pip")
        return {**kept, "HOME": str(self.home), "PIP_CACHE_DIR": cache}

    def make(self) -> None:
        """A clone in which only the two ports differ: others may listen on the examples' ports."""
        shutil.copytree(ROOT, self.clone, ignore=NOT_CLONED)
        for name in ("example_dev_config.json", "example_daemon_config.json"):
            text = (self.clone / name).read_text()
            text = text.replace(":5000", f":{self.syncer_port}")
            text = text.replace("8443", str(self.daemon_port))
            (self.clone / name).write_text(text)
        (self.clone / "test.c").write_text(
            '#include <stdio.h>\nint f(void) { return puts("x"); }\n'
        )

    def run(self, script: str) -> Done:
        done = subprocess.run(
            ["sh", "-c", script],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=600,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def install_requirements(self) -> None:
        """``pip install -r requirements.txt`` in an active virtual environment."""
        made = self.run(
            f"{sys.executable} -m venv ~/env && . ~/env/bin/activate && cd ~/dist_build &&"
            " pip install --quiet --disable-pip-version-check -r requirements.txt"
        )
        if b"No matching distribution" in made.stderr:
            pytest.skip("no package index can be reached")
        assert made.exit_code == 0, made.stderr.decode()

    def start(self, example: str, program: str) -> None:
        script = SERVER.replace("EXAMPLE", example).replace("PROGRAM", program)
        with open(self.home / f"{program}.output", "wb") as output:
            self._servers.append(
                subprocess.Popen(
                    ["sh", "-c", script],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            )

    def stop(self) -> None:
        for server in self._servers:
            server.terminate()
        for server in self._servers:
            server.wait(30)
        self._servers.clear()

    def said(self) -> str:
        return "\n".join(path.read_text() for path in self.home.glob("*.output"))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    made.make()
    yield made
    made.stop()


def answers(port: int) -> dict[str, object]:
    with contextlib.suppress(OSError):
        return get_status(port)
    return {}


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_the_steps_by_hand_work_as_written(machine: Machine) -> None:
    if os.geteuid() == 0:
        need("bwrap")  # a daemon refuses to run as root without it
    machine.install_requirements()
    set_up = machine.run(SET_UP)
    assert set_up.exit_code == 0, set_up.stderr.decode()
    assert not (machine.clone / ".venv").exists(), "the active environment was to be used"
    machine.start("example_dev_config.json", "syncer.py")
    wait_until(lambda: answers(machine.syncer_port), "the syncer answers")
    machine.start("example_daemon_config.json", "daemon.py")
    wait_until(lambda: answers(machine.daemon_port), f"the daemon answers\n{machine.said()}")
    done = wait_until(lambda: compiled(machine), f"test.c is compiled\n{machine.said()}")
    assert (done.exit_code, done.stdout, done.stderr) == (0, b"", b"")
    assert (machine.clone / "test.o").exists()
    curl = shutil.which("curl")
    if curl is not None:
        for port in (machine.syncer_port, machine.daemon_port):
            said = machine.run(f"curl -sk https://127.0.0.1:{port}/status")
            assert json.loads(said.stdout)["version"]
    assert get_status(machine.daemon_port)["done"] == 1
    assert "is a clone of dist_build and also the home" in machine.said()
    machine.stop()
    # A compiler may be missing later; then the client is the wrapper, however often it is built.
    path = without_compilers(machine)
    again = f"cd ~/dist_build; . ~/env/bin/activate; PATH={path}; rm src/dist/dist_build.exe;"
    for _ in range(2):
        done = machine.run(f"{again} sh generate_dist_build_executable.sh")
        assert done.exit_code == 0, done.stderr.decode()
        assert b"no C compiler works here; run: sudo apt-get install" in done.stderr
        again = again.partition(" rm ")[0]
    assert (machine.clone / "src/dist/dist_build.exe").samefile(
        machine.clone / "src/dist/dist_build_client"
    )


def without_compilers(machine: Machine) -> str:
    """A PATH with what the script needs, and no C compiler."""
    directory = machine.home / "bin"
    directory.mkdir()
    for name in TOOLS.split():
        if found := shutil.which(name):
            (directory / name).symlink_to(found)
    return str(directory)


def compiled(machine: Machine) -> Done | None:
    """The compile, once the daemon has asked for work."""
    if get_status(machine.syncer_port)["workers"] == {}:
        return None
    return machine.run(COMPILE)
