#!/usr/bin/env bash
# Builds src/dist/dist_build.exe, the program that is put before the compiler, with PyInstaller: as a
# folder (src/dist/_internal beside it), because one file that unpacks itself costs half a second of
# CPU in every compile. Does nothing if it is newer than its sources; --force builds anyway.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
readonly TARGET=src/dist/dist_build.exe
# What only the servers import.
readonly EXCLUDED=(
    flask werkzeug jinja2 markupsafe itsdangerous click blinker granian watchdog
    distbuild.syncer distbuild.worker distbuild.mirror distbuild.serve
    zstandard._cffi zstandard.backend_cffi _cffi_backend
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

is_up_to_date() {
    [ -x "$TARGET" ] && [ -z "$(find src/dist_build.py src/distbuild .venv/.complete \
        generate_dist_build_executable.sh \
        \( -name __pycache__ -o -path src/distbuild/syncer -o -path src/distbuild/worker -o -path src/distbuild/mirror \) -prune \
        -o -type f -newer "$TARGET" -print -quit)" ]
}

[ -f src/dist_build.py ] || fail "src/dist_build.py is missing"
mkdir -p build
if command -v flock >/dev/null; then
    exec 9>build/exe.lock
    flock 9
fi
if [ "$force" = no ] && is_up_to_date; then exit 0; fi

echo "building $TARGET"
started=$(mktemp build/started.XXXXXX)
work=$(mktemp -d "$PWD/build/exe.XXXXXX")
trap 'rm -rf -- "$work" "$started"' EXIT
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
        printf "#!/bin/sh\nexec %s/.venv/bin/python' %s/src/dist_build.py' \"\$@\"\n" \
            "$quoted" "$quoted" >"$work/dist/dist_build.exe"
        chmod 755 "$work/dist/dist_build.exe"
        touch -r "$started" "$work/dist/dist_build.exe"
        rm -rf -- src/dist
        mv -- "$work/dist" src/dist
        exit 0
    fi
fi
excludes=()
for module in "${EXCLUDED[@]}"; do excludes+=(--exclude-module "$module"); done
log=$work/log
.venv/bin/python -m PyInstaller --onedir --noconfirm --clean --log-level WARN \
    --name dist_build.exe --contents-directory _internal --paths src \
    --distpath "$work/dist" --workpath "$work/work" --specpath "$work" \
    "${excludes[@]}" src/dist_build.py >"$log" 2>&1 || { cat "$log" >&2; fail "PyInstaller failed"; }

built=$work/dist/dist_build.exe
[ -x "$built/dist_build.exe" ] || built=$work/dist/dist_build
[ -x "$built/dist_build.exe" ] || { cat "$log" >&2; fail "PyInstaller made no executable"; }
# Sources edited during the build are newer than this, so the next call builds again.
touch -r "$started" "$built/dist_build.exe"
rm -rf -- src/dist.old
[ ! -e src/dist ] || mv src/dist src/dist.old
mv -- "$built" src/dist
rm -rf -- src/dist.old
