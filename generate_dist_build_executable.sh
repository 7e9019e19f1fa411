#!/bin/sh
# Builds src/dist/dist_build.exe, the program that is put before the compiler: a small native one
# from src/launcher, because it is started for every compile. Beside it the Python client that it
# leaves all else to, src/dist/dist_build_client, with PyInstaller: as a folder (src/dist/_internal),
# because one file that unpacks itself costs half a second of CPU. Without a C compiler, or with
# DIST_BUILD_NO_LAUNCHER=1, dist_build.exe is the client. Builds only what is older than its
# sources; --force builds all.
#
# The Python is that of the active virtual environment, if requirements.txt is installed there, else
# that of .venv, which is made when it is not there. POSIX sh.
set -eu

cd -- "$(dirname -- "$0")"
. tools/common.sh
TARGET=src/dist/dist_build.exe
CLIENT=src/dist/dist_build_client
# What only the servers import.
EXCLUDED='
    flask werkzeug jinja2 markupsafe itsdangerous click blinker httptools watchdog
    distbuild.syncer distbuild.worker distbuild.mirror distbuild.push distbuild.farm distbuild.http
    zstandard._cffi zstandard.backend_cffi
    tkinter unittest pydoc doctest pdb lib2to3 test xmlrpc curses sqlite3 asyncio multiprocessing
    setuptools pkg_resources pip pytest _pytest hypothesis psutil
'

fail() { printf 'generate_dist_build_executable.sh: %s\n' "$*" >&2; exit 1; }

force=no
case ${1-} in
    '') ;;
    --force) force=yes ;;
    *) fail "usage: generate_dist_build_executable.sh [--force]" ;;
esac

# Whether a virtual environment can build the client.
has_requirements() {
    "$1/bin/python" -c 'import sys
import PyInstaller, cryptography, msgspec, requests, zstandard
sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# The Python to build with, as an absolute path, and a file that is newer when it was installed anew.
if [ -n "${VIRTUAL_ENV-}" ] && ! [ "$VIRTUAL_ENV" -ef .venv ] && has_requirements "$VIRTUAL_ENV"; then
    python=$VIRTUAL_ENV/bin/python
    installed=requirements.txt
else
    tools/venv.sh
    python=$PWD/.venv/bin/python
    installed=.venv/.complete
fi

# A client that runs from source names the clone's place.
runs_elsewhere() { [ "$(head -c 2 "$CLIENT")" = '#!' ] && ! grep -qF "$(quoted "$PWD")" "$CLIENT"; }

# $1 as a word of the shell
quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

client_is_up_to_date() {
    [ -x "$CLIENT" ] && ! runs_elsewhere && [ -z "$(find src/dist_build.py src/distbuild "$installed" \
        generate_dist_build_executable.sh \
        \( -name __pycache__ -o -path src/distbuild/syncer -o -path src/distbuild/worker -o -path src/distbuild/mirror \
            -o -path src/distbuild/push -o -path src/distbuild/farm -o -path src/distbuild/http \) -prune \
        -o -type f -newer "$CLIENT" -print)" ]
}

launcher_is_up_to_date() {
    if [ "${DIST_BUILD_NO_LAUNCHER-}" = 1 ]; then [ "$TARGET" -ef "$CLIENT" ]; return; fi
    [ -x "$TARGET" ] && [ ! "$TARGET" -ef "$CLIENT" ] && [ -z "$(find src/launcher \
        generate_dist_build_executable.sh -type f -newer "$TARGET")" ]
}

# Makes $1 with the first compiler whose program runs here; it ends with 1 where it has no client.
compile_launcher() {
    # With musl it needs less than half the CPU to start on a virtual machine: glibc asks the processor
    # for the sizes of its caches, which the host has to answer. One that is linked statically needs
    # less, too.
    for compiler in "${CC-}" musl-gcc cc gcc clang; do
        for linking in -static ''; do
            # shellcheck disable=SC2086 # CC may be several words, and linking none
            if [ -n "$compiler" ] && $compiler -std=c11 -O2 -Wall $linking src/launcher/dist_build.c -o "$1" \
                >>"$work/launcher.log" 2>&1 && { "$1" >/dev/null 2>&1 || [ $? = 1 ]; }; then
                return 0
            fi
        done
    done
    echo "$TARGET starts Python for every compile: no C compiler works here;" \
        "run: sudo apt-get install $(c_packages)" >&2
    return 1
}

# Puts dist_build.exe beside the client in the directory $1, in one step.
add_launcher() {
    made=$work/dist_build.exe
    if [ "${DIST_BUILD_NO_LAUNCHER-}" = 1 ] || ! compile_launcher "$made"; then
        # One that is linked to the client already stays: mv refuses to replace a file by itself.
        if [ "$1/dist_build.exe" -ef "$1/dist_build_client" ]; then return; fi
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
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ "$force" = no ] && client_is_up_to_date; then
    add_launcher src/dist
    exit 0
fi

# What is missing on the system, in one step.
missing=
[ "${DIST_BUILD_NO_LAUNCHER-}" = 1 ] || missing=$(c_packages)
has_shared_python "$python" || missing="libpython$(python_version "$python")${missing:+ $missing}"
if [ -n "$missing" ] && can_install; then
    # shellcheck disable=SC2086 # several packages
    install_packages "$work/apt.log" $missing || echo "cannot install $missing" >&2
fi
if ! has_shared_python "$python"; then
    # Slower by Python's own start, and otherwise the same.
    echo "libpython$(python_version "$python") is missing: $TARGET runs from source; run: sudo apt-get install $missing" >&2
    mkdir -p "$work/dist"
    {
        printf '#!/bin/sh\ncase ${0##*/} in dist_build*) ;; *) set -- "${0##*/}" "$@" ;; esac\n'
        printf 'exec %s %s/src/dist_build.py "$@"\n' "$(quoted "$python")" "$(quoted "$PWD")"
    } >"$work/dist/dist_build_client"
    chmod 755 "$work/dist/dist_build_client"
    finish "$work/dist"
fi
set --
for module in $EXCLUDED; do set -- "$@" --exclude-module "$module"; done
echo "  with PyInstaller; about half a minute"
quietly_with_progress "$work/log" "$python" -m PyInstaller --onedir --noconfirm --clean \
    --log-level INFO --name dist_build_client --contents-directory _internal --paths src \
    --distpath "$work/dist" --workpath "$work/work" --specpath "$work" \
    "$@" src/dist_build.py || { tail -n 20 "$work/log" >&2; fail "PyInstaller failed"; }

built=$work/dist/dist_build_client
[ -x "$built/dist_build_client" ] || { tail -n 20 "$work/log" >&2; fail "PyInstaller made no executable"; }
finish "$built"
