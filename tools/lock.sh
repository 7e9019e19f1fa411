#!/bin/sh
# Writes requirements.lock: one version of each package of requirements.txt and of what those need,
# with the digests of its files, for every system and for every Python from 3.11 on. Only a release
# is built with it (CONTRIBUTING.md). Takes the newest versions that requirements.txt allows. POSIX sh.
set -eu

cd -- "$(dirname -- "$0")/.."
. tools/common.sh
TOOL=build/lock

fail() { printf 'tools/lock.sh: %s\n' "$*" >&2; exit 1; }

tools/venv.sh
if ! [ -x "$TOOL/bin/uv" ]; then
    echo "installing uv into $TOOL (once)"
    quietly_with_progress build/lock.log .venv/bin/python -m venv --clear "$TOOL" &&
        quietly_with_progress build/lock.log "$TOOL/bin/python" -m pip install --no-input 'uv>=0.4' ||
        { tail -n 15 build/lock.log >&2; fail "uv cannot be installed"; }
fi
{
    echo "# Made by make lock from requirements.txt; what a release is built with. Not to be edited."
    "$TOOL/bin/uv" pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
        --no-header --no-emit-index-url requirements.txt
} >build/requirements.lock || fail "requirements.txt cannot be resolved, see above"
mv build/requirements.lock requirements.lock
echo "requirements.lock: $(grep -c '==' requirements.lock) packages"
