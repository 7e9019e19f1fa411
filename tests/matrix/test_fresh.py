"""The README's two machines on a fresh Debian: from nothing to a distributed compile.

Two network namespaces share one system's files; each machine has a clone and a home of its own.
DIST_BUILD_SUITES chooses the systems, as for the other tests here.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.debian import CHECKOUT, PLACE, REPOSITORY, Debian, need_root

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(0)]

SUITES = ("bookworm", "trixie")
#: Those that the README names; iproute2 and util-linux make the two machines.
NAMED = "python3 python3-venv bubblewrap gcc g++ make git libpython3-dev".split()
NETWORK = ["iproute2", "util-linux", "ca-certificates"]
# The commands of the README, but for cloning; the syncer's is the one that setup prints.
SCENARIO = """
set -e
ip link set lo up
unshare -n sleep 3000 & other=$!
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
there="nsenter -t $other -n env HOME=/home/build1"
ip link add cable type veth peer name cable netns $other
ip address add 10.77.0.1/24 dev cable
ip link set cable up
$there ip link set lo up
$there ip address add 10.77.0.2/24 dev cable
$there ip link set cable up

export HOME=/home/devbox
cd /home/devbox/dist_build_clone
# No name service joins the two.
src/dist/dist_build.exe setup --address 10.77.0.1 >/tmp/said
cat /tmp/said
eval "$(sed -n 's/^start the syncer.*:  //p' /tmp/said)" &
join=$(sed -n 's/^    //p' /tmp/said)
cd /home/build1/dist_build_clone
until $there $join --name build1 --no-start; do sleep 0.5; done
$there .venv/bin/python src/daemon.py &
cd /home/devbox
export PATH=/home/devbox/dist_build_clone/src/dist:$PATH
until dist_build.exe status | grep 'build1 .*up'; do sleep 0.2; done
echo 'int main(void) { return 0; }' >hello.c
DIST_BUILD_VERBOSE=1 dist_build.exe gcc -c hello.c
dist_build.exe doctor
"""


@dataclass(frozen=True)
class Fresh(Debian):
    """A system with the packages that the README names, and no others."""

    @property
    def root(self) -> Path:
        return PLACE / f"fresh-{self.suite}"

    def make_fresh(self) -> None:
        """Make it unless it is there."""
        if not (self.root / "etc/apt").exists():
            self._bootstrap()
        self._apt("update")
        self._apt("install", "--no-install-recommends", *NAMED, *NETWORK)

    def clone(self, machine: str) -> str:
        """A clone of this checkout in a machine's home; its path there."""
        home = self.root / "home" / machine
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True
        )
        for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
            target = home / "dist_build_clone" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target, follow_symlinks=False)
        return f"/home/{machine}/dist_build_clone"


def suites() -> list[str]:
    chosen = os.environ.get("DIST_BUILD_SUITES", " ".join(SUITES)).split()
    return [suite for suite in SUITES if suite in chosen]


@pytest.mark.parametrize("suite", suites())
def test_two_fresh_machines_compile_by_the_readme(suite: str) -> None:
    need_root()
    system = Fresh(suite)
    system.make_fresh()
    system.check(["sh", "-c", f"cd {system.clone('devbox')} && make exe"])
    system.check(["sh", "-c", f"cd {system.clone('build1')} && tools/venv.sh"])
    said = system.check(["unshare", "-n", "sh", "-c", SCENARIO])
    assert "dist_build: compiled by build1\n" in said
    assert "ok    workers: build1: compiled a test in " in said
    assert CHECKOUT not in said
