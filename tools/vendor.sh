#!/bin/sh
# Fetches the only code of others in the repository, uPlot (MIT), from npm, and checks it: the
# dashboard's charts. Run it to upgrade: change version and digest. POSIX sh.
set -eu

cd -- "$(dirname -- "$0")/.."
VERSION=1.6.32
SHA256=4b8a8191e425658e3ea8c8c1314b0fc679c861ee3a1af2b20c7b16ba50b5133d
PAGE=src/distbuild/syncer/page

fail() { printf 'tools/vendor.sh: %s\n' "$*" >&2; exit 1; }

command -v npm >/dev/null || fail "npm is missing; run: sudo apt-get install npm"
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
npm pack --silent --pack-destination "$work" "uplot@$VERSION" >/dev/null
echo "$SHA256  $work/uplot-$VERSION.tgz" | sha256sum --check --quiet || fail "uplot $VERSION has another digest"
tar -xzf "$work/uplot-$VERSION.tgz" -C "$work"
{
    printf '/* uPlot %s, from npm by tools/vendor.sh.\n' "$VERSION"
    cat "$work/package/LICENSE"
    printf '*/\n'
    cat "$work/package/dist/uPlot.iife.min.js"
} >"$PAGE/uPlot.js"
cp "$work/package/dist/uPlot.min.css" "$PAGE/uPlot.css"
(cd "$PAGE" && sha256sum uPlot.js uPlot.css) >"$PAGE/uPlot.sha256"
cat "$PAGE/uPlot.sha256"
