"""The README's two machines, as network namespaces: set up, join and compile by its commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.common import Skipped
from bench.cut_off import CUT, KILLED, NOTHING, TOOLS, in_own_network
from bench.dispatch import Shape
from tests.support.cluster import SRC, wrapper_command
from tests.support.tools import absent, need

# The first namespace is the dev box, the second the build machine; a cable joins them.
SCENARIO = """
set -e
cd "$1"
ip link set lo up
unshare -n sleep 300 & other=$!
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
there="nsenter -t $other -n"
ip link add cable type veth peer name cable netns $other
ip address add DEVBOX/BITS dev cable
ip link set cable up
$there ip link set lo up
$there ip address add BUILD1/BITS dev cable
$there ip link set cable up

export DIST_BUILD_HOME=$PWD/devbox
$WRAPPER setup --no-service --address DEVBOX >line
sed -i 's/{/{"bind": "BIND",/' devbox/config.json
$SYNCER &
until join=$(sed -n 's/.* join /join /p' line) &&
    DIST_BUILD_HOME=$PWD/build1 $there $DAEMON $join --name build1 --no-start; do sleep 0.5; done
sed -i 's/{/{"allow_root": true, "allow_unconfined": true, "bind": "BIND",/' build1/config.json
DIST_BUILD_HOME=$PWD/build1 $there $DAEMON &
until $WRAPPER status | grep 'build1 .*up'; do sleep 0.2; done
echo 'int a;' >a.c
DIST_BUILD_VERBOSE=1 $WRAPPER gcc -c a.c
until $WRAPPER status --json | grep -q '"pushes":[1-9]'; do sleep 0.2; done
$WRAPPER workers
# The end of the first process of a PID namespace ends all others.
"""


@pytest.mark.compiler
@pytest.mark.parametrize(
    ("bind", "devbox", "build1", "shown"),
    [
        ("0.0.0.0", "10.77.0.1", "10.77.0.2", "10.77.0.2:8443"),
        pytest.param(*("::", "fd77::1", "fd77::2", "[fd77::2]:8443"), marks=pytest.mark.exhaustive),
    ],
    ids=["IPv4", "IPv6"],
)
def test_the_syncer_finds_the_worker_at_the_address_from_which_it_dials_in(
    bind: str, devbox: str, build1: str, shown: str, tmp_path: Path
) -> None:
    need("gcc")
    if os.geteuid() != 0:
        absent("network namespaces need root")
    for tool in ("ip", "nsenter", "unshare"):
        need(tool)
    scenario = SCENARIO
    names = {"DEVBOX": devbox, "BUILD1": build1, "BIND": bind}
    for name, value in {**names, "BITS": "64 nodad" if ":" in bind else "24"}.items():
        scenario = scenario.replace(name, value)
    script = tmp_path / "scenario.sh"
    script.write_text(scenario)
    environment = {
        **os.environ,
        "WRAPPER": " ".join(wrapper_command()),
        "SYNCER": f"{sys.executable} {SRC / 'syncer.py'}",
        "DAEMON": f"{sys.executable} {SRC / 'daemon.py'}",
    }
    words = ["timeout", "-k", "5", "200", "unshare", "-n", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run(
        [*words, "sh", str(script), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dist_build: compiled by build1" in done.stderr
    assert f"build1  {shown}  asked for work" in done.stdout


@pytest.mark.compiler
@pytest.mark.parametrize(
    "how", [CUT, *(pytest.param(how, marks=pytest.mark.exhaustive) for how in (KILLED, NOTHING))]
)
def test_a_build_goes_on_without_a_machine_that_is_gone(how: str, tmp_path: Path) -> None:
    """The program fails if a command does, or if one is compiled on the dev box."""
    if os.geteuid() != 0:
        absent("network namespaces need root")
    for tool in ("gcc", *TOOLS):
        need(tool)
    try:
        done = in_own_network(how, Shape(32, 0.5, 2, 4))
    except Skipped as why:
        absent(str(why))
        raise
    assert how != NOTHING or done["retried"] == 0
