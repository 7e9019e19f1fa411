#!/usr/bin/env bash
# Makes .venv in the repository, with everything that running, testing and building needs, unless it
# is there and newer than the requirements. Several of these may run at the same time.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
readonly STAMP=.venv/.complete

fail() { printf 'tools/venv.sh: %s\n' "$*" >&2; exit 1; }

is_complete() {
    [ -e "$STAMP" ] && [ -x .venv/bin/python ] && [ ! requirements.txt -nt "$STAMP" ] &&
        [ ! requirements-dev.txt -nt "$STAMP" ] && [ "$(cat "$STAMP")" = "$PWD" ]
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Distributions compile their Python with a profile of how it runs, and link it statically. What a
# version manager has compiled is often neither, and costs the dev box more for each job.
is_tuned() {
    case $1 in /usr/bin/python3*) return ;; esac
    "$1" -c 'import sys, sysconfig
sys.exit("--enable-optimizations" not in (sysconfig.get_config_var("CONFIG_ARGS") or ""))'
}

# Whether it can make an environment, and PyInstaller a program of it, as things are.
is_complete_python() {
    "$1" -c 'import ctypes.util, ensurepip, sys, sysconfig, venv
is_linked = sysconfig.get_config_var("Py_ENABLE_SHARED") and sys.prefix != "/usr"
sys.exit(not (is_linked or ctypes.util.find_library("python%d.%d" % sys.version_info[:2])))' 2>/dev/null
}

# The first that is tuned and complete, else the first.
find_python() {
    local name path first=
    for name in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if path=$(command -v "$name") && is_new_enough "$path"; then
            : "${first:=$path}"
            if is_tuned "$path" && is_complete_python "$path"; then
                echo "$path"
                return
            fi
        fi
    done
    [ -n "$first" ] || fail "Python 3.11 or newer is needed, found: $(python3 --version 2>&1 || true)"
    echo "$first"
}

# Debian and Ubuntu ship Python without what makes environments.
install_ensurepip() {
    local package
    package=python$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
    [ "$1" != /usr/bin/python3 ] || package=python3-venv
    command -v apt-get >/dev/null || fail "$1 has no ensurepip; install Python's venv module"
    [ "$(id -u)" = 0 ] || fail "$1 has no ensurepip; run: sudo apt-get install $package"
    echo "installing $package"
    local log
    log=$({ apt-get -o DPkg::Lock::Timeout=500 update -q &&
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=500 install -qy "$package"; } 2>&1) ||
        { printf '%s\n' "$log" >&2; fail "apt-get install $package failed"; }
}

is_complete && exit 0
if command -v flock >/dev/null; then
    mkdir -p build
    exec 9>build/venv.lock
    flock 9
    is_complete && exit 0
fi

python=$(find_python)
"$python" -c 'import ensurepip, venv' 2>/dev/null || install_ensurepip "$python"
echo "making .venv with $("$python" --version), $python (once)"
rm -f "$STAMP"
"$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
    -r requirements-dev.txt || fail "pip could not install requirements-dev.txt, see above"
printf '%s\n' "$PWD" >"$STAMP"
