# Functions for the set-up scripts, which read this file with "." after cd to the repository: steps
# that take long say so, and packages that the system lacks. POSIX sh.

# quietly_with_progress LOG COMMAND [WORD...]: standard output and error go to LOG; every few seconds
# one line says how long it has run, and the last line of LOG. Its exit code is the command's.
quietly_with_progress() {
    progress_log=$1
    shift
    : >"$progress_log"
    # Its own standard output is closed for sleep: a pipe would stay open until that ends.
    (
        seconds=0
        while sleep 8 </dev/null >/dev/null 2>&1 9>&- && kill -0 $$ 2>/dev/null; do
            seconds=$((seconds + 8))
            last=$(tail -n 1 -- "$progress_log" | LC_ALL=C tr -cd '\n -~' | sed 's/^ *//; s/^[0-9]* INFO: //' | cut -c 1-70)
            printf '  %d s%s\n' "$seconds" "${last:+: $last}"
        done
    ) &
    progress_pid=$!
    progress_code=0
    "$@" >"$progress_log" 2>&1 </dev/null || progress_code=$?
    kill "$progress_pid" 2>/dev/null || :
    wait "$progress_pid" 2>/dev/null || :
    return "$progress_code"
}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# install_packages LOG PACKAGE...: as root, with apt-get; a failure prints its output.
install_packages() {
    packages_log=$1
    shift
    echo "installing $* with apt-get"
    quietly_with_progress "$packages_log" sh -c '
        export DEBIAN_FRONTEND=noninteractive
        apt-get -o DPkg::Lock::Timeout=500 install -qy --no-install-recommends "$@" ||
            { apt-get -o DPkg::Lock::Timeout=500 update -q &&
                apt-get -o DPkg::Lock::Timeout=500 install -qy --no-install-recommends "$@"; }' sh "$@" ||
        { cat "$packages_log" >&2; return 1; }
}

# python_version PYTHON: like 3.11
python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# Debian's python3 comes without the shared library that a frozen program needs.
has_shared_python() {
    "$1" - <<'PY'
import ctypes.util, sys, sysconfig
from pathlib import Path
name = "python%d.%d" % sys.version_info[:2]
places = [sysconfig.get_config_var(v) for v in ("LIBDIR", "LIBPL")] + [sys.base_prefix + "/lib"]
near = any(p and list(Path(p).glob("libpython*.so*")) for p in places)
sys.exit(not (near or ctypes.util.find_library(name)))
PY
}

# Whether some C compiler can make a program that uses the C library.
has_c_compiler() {
    for compiler in ${CC:+"$CC"} cc gcc clang; do
        # shellcheck disable=SC2086 # CC may be several words
        echo 'int main(void) { return puts("") < 0; }' |
            $compiler -include stdio.h -x c -o /dev/null - >/dev/null 2>&1 && return
    done
    return 1
}

# Debian's gcc comes without the C library's headers where recommended packages are not installed.
c_packages() {
    if has_c_compiler; then return; fi
    if command -v gcc >/dev/null; then echo libc6-dev; else echo gcc libc6-dev; fi
}
