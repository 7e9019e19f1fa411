"""The Debian package: installed, used and purged in a copy-on-write view of this system."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import free_ports
from tests.support.tools import absent, need

ROOT = Path(__file__).parents[2]
# Changes go to memory: the system itself stays as it is.
VIEW = """
set -e
mount -t tmpfs none "$1"
cd "$1"
mkdir upper work merged
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work merged
for each in proc dev sys; do mount --rbind /$each merged/$each; done
cp "$2" merged/root/package.deb
chroot merged sh -ec "$3" >output 2>&1 || { cat output; exit 1; }
cat output
echo '--- left'
find upper -path '*dist?build*' ! -path 'upper/root/*' ! -path 'upper/var/cache/*'
grep -s dist_build merged/etc/passwd merged/etc/group merged/etc/shadow || :
"""
SCENARIO = """
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd
dpkg -i package.deb
dist_build setup --no-service --port SYNCER --address 127.0.0.1
dist_build-syncer & syncer=$!
code=$(dist_build setup --invite --address 127.0.0.1 | sed -n 's/.* join .* //p')
as='setpriv --reuid dist_build --regid dist_build --clear-groups'
daemon="$as dist_build-daemon --home /var/lib/dist_build"
join="join https://127.0.0.1:SYNCER $code --name w --port DAEMON --no-start"
until $daemon $join; do sleep 1; done
echo "mode $(stat -c '%U %a' /var/lib/dist_build)"
$daemon & daemon=$!
echo 'int a;' >a.c
until dist_build.exe status | grep 'w .*up'; do sleep 0.2; done
DIST_BUILD_VERBOSE=1 dist_build.exe gcc -c a.c
cp a.o there.o
gcc -c a.c
cmp a.o there.o && echo same
test -x /usr/lib/dist_build/python/distbuild/worker/sandbox/enter-* && echo 'can enter namespaces'
kill $daemon $syncer
wait
dpkg -P dist-build
"""

pytestmark = [pytest.mark.compiler, pytest.mark.program, pytest.mark.exhaustive]


@pytest.fixture(scope="module")
def package() -> Path:
    """The package, built here."""
    for tool in ("dpkg-deb", "cc"):
        need(tool)
    done = subprocess.run(
        [ROOT / "tools" / "deb.sh", sys.executable], capture_output=True, text=True, check=False
    )
    if "No matching distribution" in done.stderr:
        absent("a package index that can be reached is not here")
    assert done.returncode == 0, done.stderr
    return ROOT / done.stdout.split()[-1]


def test_it_is_set_up_compiles_and_leaves_nothing(package: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("adduser") is None:
        absent("installing a package needs root, and adduser")
    syncer, daemon = free_ports(2)
    scenario = SCENARIO.replace("SYNCER", str(syncer)).replace("DAEMON", str(daemon))
    words = ["timeout", "300", "unshare", "-m", "sh", "-c", VIEW, "sh"]
    words += [str(tmp_path), str(package), scenario]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "mode dist_build 700" in lines
    assert "dist_build: compiled by w" in lines
    assert "same" in lines
    assert "can enter namespaces" in lines
    assert lines[-1] == "--- left"
