#!/bin/sh
# Builds build/dist-build_VERSION_ARCHITECTURE.deb, for dev box and worker, with dpkg-deb:
#
#   tools/deb.sh [PYTHON]
#
# PYTHON (default: that of .venv) has pip and is of the version that the package will need; the
# package contains the Python packages of requirements.txt. POSIX sh.
set -eu

cd -- "$(dirname -- "$0")/.."
. tools/common.sh

fail() { printf 'tools/deb.sh: %s\n' "$*" >&2; exit 1; }

command -v dpkg-deb >/dev/null || fail "dpkg-deb is missing; run: sudo apt-get install dpkg"
python=${1-}
if [ -z "$python" ]; then
    tools/venv.sh
    python=.venv/bin/python
fi
version=$(PYTHONPATH=src "$python" -c 'import distbuild; print(distbuild.__version__)')
series=$(python_version "$python")
next=3.$((${series#3.} + 1))
architecture=$(dpkg --print-architecture)

mkdir -p build
work=$(mktemp -d "$PWD/build/deb.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
root=$work/root
lib=$root/usr/lib/dist_build

# setuptools writes into the tree from which it builds.
mkdir -p "$work/tree" "$lib"
cp -R pyproject.toml README.md LICENSE src "$work/tree"
rm -rf "$work/tree/src/dist"
quietly_with_progress "$work/pip.log" "$python" -m pip install --progress-bar off --disable-pip-version-check \
    --no-input --no-compile --target "$lib/python" "$work/tree" ||
    { tail -n 15 "$work/pip.log" >&2; fail "pip failed"; }
rm -rf "$lib/python/bin" "$lib/python/share"
# A daemon cannot write there; without it each would compile it for itself.
PYTHONPATH=$lib/python "$python" -B -c 'import os, sys
from distbuild.worker.sandbox import enter
sys.exit(enter.program([enter.SOURCE.parent], os.environ["PATH"]) is None)' ||
    fail "no C compiler works here; run: sudo apt-get install gcc libc6-dev"

# $1: the program's path; $2: the module that has its function $3
add_program() {
    mkdir -p "$(dirname -- "$1")"
    cat >"$1" <<END
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/usr/lib/dist_build/python")
from $2 import $3

sys.exit($3())
END
    chmod 755 "$1"
}

add_program "$root/usr/bin/dist_build-syncer" distbuild.syncer.main main
add_program "$root/usr/bin/dist_build-daemon" distbuild.worker.main main
# The launcher finds its client beside itself.
add_program "$lib/bin/dist_build_client" distbuild.wrapper.main client
compile() { $1 -std=c11 -O2 -static src/launcher/dist_build.c -o "$lib/bin/dist_build.exe"; }
{ [ -z "${CC-}" ] && compile musl-gcc 2>/dev/null; } || compile "${CC:-cc}" ||
    fail "no C compiler works here; run: sudo apt-get install gcc libc6-dev"
for name in dist_build dist_build.exe; do
    ln -s ../lib/dist_build/bin/dist_build.exe "$root/usr/bin/$name"
done

made() { PYTHONPATH=src "$python" -c "from distbuild.wrapper import commands; print(commands.$1, end='')"; }
share=$root/usr/share
mkdir -p "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/vendor-completions" \
    "$share/fish/vendor_completions.d" "$share/doc/dist-build"
made 'manual()' | gzip -9n >"$share/man/man1/dist_build.1.gz"
made 'completion("bash")' >"$share/bash-completion/completions/dist_build"
made 'completion("zsh")' >"$share/zsh/vendor-completions/_dist_build"
made 'completion("fish")' >"$share/fish/vendor_completions.d/dist_build.fish"
for name in dist_build.exe dist_build-syncer dist_build-daemon; do
    ln -s dist_build.1.gz "$share/man/man1/$name.1.gz"
done
ln -s dist_build "$share/bash-completion/completions/dist_build.exe"
cp LICENSE "$share/doc/dist-build/copyright"

install -D -m 644 tools/debian/worker.service "$root/usr/lib/systemd/system/dist_build-worker.service"
install -D -m 644 tools/debian/syncer.service "$root/usr/lib/systemd/user/dist_build-syncer.service"
install -D -m 644 tools/debian/default "$root/etc/default/dist_build-worker"

mkdir "$root/DEBIAN"
install -m 755 tools/debian/postinst tools/debian/prerm tools/debian/postrm "$root/DEBIAN"
echo /etc/default/dist_build-worker >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/control" <<END
Package: dist-build
Version: $version
Architecture: $architecture
Maintainer: the dist_build project <dist_build@localhost>
Section: devel
Priority: optional
Installed-Size: $(du -ks "$root" | cut -f 1)
Depends: python3 (>= $series~), python3 (<< $next~), adduser
Recommends: bubblewrap, gcc, g++
Description: distributed C and C++ compiles
 Put dist_build.exe before the compiler, and other machines compile. Objects,
 messages and exit codes equal the local compiler's, byte for byte. The package
 serves dev boxes and build machines.
END
chmod -R u+w,go-w,a+rX "$root"
target=build/dist-build_${version}_$architecture.deb
dpkg-deb --build --root-owner-group "$root" "$target" >/dev/null || fail "dpkg-deb failed"
echo "$target"
