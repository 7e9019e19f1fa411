#!/bin/sh
# Makes a private CA for one dist_build installation, a certificate for each of its two roles, and
# the roles' tokens:
#
#   gen_self_signed_certs.sh [OUT] [--force]
#
# Runs gen_self_signed_certs.py, which stands beside it, with the first Python that can: that of the
# active virtual environment, of the clone's .venv, the system's; else .venv is made. POSIX sh.
set -eu

here=$(cd -- "$(dirname -- "$0")" && pwd)
root=$here/../..

can_run() {
    "$1" -c 'import sys, cryptography; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

for python in ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"} "$root/.venv/bin/python" python3; do
    if can_run "$python"; then exec "$python" "$here/gen_self_signed_certs.py" "$@"; fi
done
"$root/tools/venv.sh" >&2
exec "$root/.venv/bin/python" "$here/gen_self_signed_certs.py" "$@"
