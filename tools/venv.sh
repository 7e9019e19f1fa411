#!/bin/sh
# Makes .venv in the repository, unless it is there and newer than the requirements:
#
#   tools/venv.sh       with requirements.txt: what running dist_build and building its executable need
#   tools/venv.sh dev   with requirements-dev.txt: that, and what tests, checks and benchmarks need
#
# Several of these may run at the same time. POSIX sh.
set -eu

cd -- "$(dirname -- "$0")/.."
. tools/common.sh

fail() { printf 'tools/venv.sh: %s\n' "$*" >&2; exit 1; }

case ${1-} in
    '') requirements=requirements.txt stamp=.venv/.complete ;;
    dev) requirements=requirements-dev.txt stamp=.venv/.complete-dev ;;
    *) fail "usage: tools/venv.sh [dev]" ;;
esac

# Newer than all that it was made from, and its Python still finds its packages: after an upgrade
# of the system's Python it does not.
is_complete() {
    [ -e "$stamp" ] && [ -z "$(find requirements.txt "$requirements" -newer "$stamp")" ] && is_usable
}

is_usable() { .venv/bin/python -c 'import msgspec' 2>/dev/null; }

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

# The first that is tuned and complete, else the first; nothing where none is new enough.
find_python() {
    first=
    for name in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if path=$(command -v "$name") && is_new_enough "$path"; then
            : "${first:=$path}"
            if is_tuned "$path" && is_complete_python "$path"; then
                echo "$path"
                return
            fi
        fi
    done
    echo "$first"
}

# Debian and Ubuntu ship Python without what makes environments. The command that
# it prints for them names all other missing packages as well.
install_ensurepip() {
    package=python$(python_version "$1")-venv
    [ "$1" != /usr/bin/python3 ] || package=python3-venv
    command -v apt-get >/dev/null || fail "$1 has no ensurepip; install Python's venv module"
    if ! can_install; then
        others=$(c_packages)
        has_shared_python "$1" || others="libpython$(python_version "$1") $others"
        fail "$1 has no ensurepip; run: sudo apt-get install $package${others:+ $others}"
    fi
    install_packages build/apt.log "$package" || fail "apt-get install $package failed"
}

if is_complete; then exit 0; fi
mkdir -p build
if command -v flock >/dev/null; then
    exec 9>build/venv.lock
    flock 9
    if is_complete; then exit 0; fi
fi

if ! is_usable; then
    python=$(find_python)
    [ -n "$python" ] || fail "Python 3.11 or newer is needed, found: $(python3 --version 2>&1 || true)"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_ensurepip "$python"
    echo "making .venv with $("$python" --version), $python (once)"
    rm -f .venv/.complete .venv/.complete-dev
    quietly_with_progress build/venv.log "$python" -m venv --clear .venv ||
        { cat build/venv.log >&2; fail "$python cannot make .venv"; }
fi
echo "installing $requirements into .venv (downloads; about half a minute)"
rm -f "$stamp"
quietly_with_progress build/pip.log .venv/bin/python -m pip install --progress-bar off \
    --disable-pip-version-check --no-input -r "$requirements" ||
    { tail -n 15 build/pip.log >&2; fail "pip could not install $requirements, see above"; }
# The larger set has all of the smaller; a stamp that is good is not touched, since what was built
# with the packages would be built again.
for each in "$stamp" .venv/.complete; do
    if [ ! -e "$each" ] || [ -n "$(find requirements.txt -newer "$each")" ]; then : >"$each"; fi
done
