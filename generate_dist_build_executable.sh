#!/usr/bin/env bash
# Builds src/dist/dist_build.exe, the program that is put before the compiler: a small native one
# from src/launcher, because it is started for every compile. Beside it the Python client that it
# leaves all else to, src/dist/dist_build_client, with PyInstaller: as a folder (src/dist/_internal),
# because one file that unpacks itself costs half a second of CPU. Without a C compiler, or with
# DIST_BUILD_NO_LAUNCHER=1, dist_build.exe is the client. Builds only what is older than its
# sources; --force builds all.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
readonly TARGET=src/dist/dist_build.exe CLIENT=src/dist/dist_build_client
# What only the servers import.
readonly EXCLUDED=(
    flask werkzeug jinja2 markupsafe itsdangerous click blinker granian watchdog
    distbuild.syncer distbuild.worker distbuild.mirror distbuild.serving
    zstandard._cffi zstandard.backend_cffi
    tkinter unittest pydoc doctest pdb lib2to3 test xmlrpc curses sqlite3 asyncio multiprocessing
    setuptools pkg_resources pip pytest _pytest hypothesis psutil
)

fail() { printf 'generate_dist_build_executable.sh: %s\n' "$*" >&2; exit 1; }

force=no
case ${1-} in
    '') ;;
    --force) force=yes ;;
    *) fail "usage: generate_dist_build_executable.sh [--force]" ;;
esac

tools/venv.sh

client_is_up_to_date() {
    [ -x "$CLIENT" ] && [ -z "$(find src/dist_build.py src/distbuild .venv/.complete \
        generate_dist_build_executable.sh \
        \( -name __pycache__ -o -path src/distbuild/syncer -o -path src/distbuild/worker -o -path src/distbuild/mirror \) -prune \
        -o -type f -newer "$CLIENT" -print -quit)" ]
}

launcher_is_up_to_date() {
    if [ "${DIST_BUILD_NO_LAUNCHER-}" = 1 ]; then [ "$TARGET" -ef "$CLIENT" ]; return; fi
    [ -x "$TARGET" ] && [ ! "$TARGET" -ef "$CLIENT" ] && [ -z "$(find src/launcher \
        generate_dist_build_executable.sh -type f -newer "$TARGET" -print -quit)" ]
}

# Makes $1 with the first compiler whose program runs here; it ends with 1 where it has no client.
compile_launcher() {
    local compiler linking
    for compiler in "${CC-}" cc gcc clang; do
        # One that is linked statically starts in three quarters of the time.
        for linking in -static ''; do
            # shellcheck disable=SC2086 # CC may be several words, and linking none
            if [ -n "$compiler" ] && $compiler -std=c11 -O2 -Wall $linking src/launcher/dist_build.c -o "$1" \
                >>"$work/launcher.log" 2>&1 && { "$1" >/dev/null 2>&1 || [ $? = 1 ]; }; then
                return 0
            fi
        done
    done
    echo "$TARGET starts Python for every compile: no C compiler works here" >&2
    return 1
}

# Puts dist_build.exe beside the client in the directory $1, in one step.
add_launcher() {
    local made=$work/dist_build.exe
    if [ "${DIST_BUILD_NO_LAUNCHER-}" = 1 ] || ! compile_launcher "$made"; then
        rm -f -- "$made"
        ln -- "$1/dist_build_client" "$made"
    else
        # Sources edited during the build are newer than this, so the next call builds again.
        touch -r "$started" "$made"
    fi
    mv -f -- "$made" "$1/dist_build.exe"
}

# Makes the directory $1 take the place of src/dist.
finish() {
    touch -r "$started" "$1/dist_build_client"
    add_launcher "$1"
    rm -rf -- src/dist.old
    [ ! -e src/dist ] || mv src/dist src/dist.old
    mv -- "$1" src/dist
    rm -rf -- src/dist.old
    exit 0
}

[ -f src/dist_build.py ] || fail "src/dist_build.py is missing"
mkdir -p build
if command -v flock >/dev/null; then
    exec 9>build/exe.lock
    flock 9
fi
if [ "$force" = no ] && client_is_up_to_date && launcher_is_up_to_date; then exit 0; fi

echo "building $TARGET"
started=$(mktemp build/started.XXXXXX)
work=$(mktemp -d "$PWD/build/exe.XXXXXX")
trap 'rm -rf -- "$work" "$started"' EXIT
if [ "$force" = no ] && client_is_up_to_date; then
    add_launcher src/dist
    exit 0
fi

# Debian's python3 comes without the shared library that a frozen program needs.
has_shared_python() {
    .venv/bin/python - <<'PY'
import ctypes.util, sys, sysconfig
from pathlib import Path
name = "python%d.%d" % sys.version_info[:2]
places = [sysconfig.get_config_var(v) for v in ("LIBDIR", "LIBPL")] + [sys.base_prefix + "/lib"]
near = any(p and list(Path(p).glob("libpython*.so*")) for p in places)
sys.exit(not (near or ctypes.util.find_library(name)))
PY
}

if ! has_shared_python; then
    package=libpython$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing $package"
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=500 install -qy "$package" \
            >"$work/apt.log" 2>&1 || { cat "$work/apt.log" >&2; fail "cannot install $package"; }
    else
        # Slower by Python's own start, and otherwise the same.
        echo "$package is missing: $TARGET runs from source; sudo apt-get install $package" >&2
        mkdir -p "$work/dist"
        quoted="'${PWD//\'/\'\\\'\'}"
        printf '#!/bin/sh\ncase ${0##*/} in dist_build*) ;; *) set -- "${0##*/}" "$@" ;; esac\n' \
            >"$work/dist/dist_build_client"
        printf "exec %s/.venv/bin/python' %s/src/dist_build.py' \"\$@\"\n" "$quoted" "$quoted" \
            >>"$work/dist/dist_build_client"
        chmod 755 "$work/dist/dist_build_client"
        finish "$work/dist"
    fi
fi
excludes=()
for module in "${EXCLUDED[@]}"; do excludes+=(--exclude-module "$module"); done
log=$work/log
.venv/bin/python -m PyInstaller --onedir --noconfirm --clean --log-level WARN \
    --name dist_build_client --contents-directory _internal --paths src \
    --distpath "$work/dist" --workpath "$work/work" --specpath "$work" \
    "${excludes[@]}" src/dist_build.py >"$log" 2>&1 || { cat "$log" >&2; fail "PyInstaller failed"; }

built=$work/dist/dist_build_client
[ -x "$built/dist_build_client" ] || { cat "$log" >&2; fail "PyInstaller made no executable"; }
finish "$built"
