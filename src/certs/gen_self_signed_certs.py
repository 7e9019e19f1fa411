"""Makes a private CA for one dist_build installation, both roles' certificates and their tokens.

    python gen_self_signed_certs.py [OUT] [--force]

    OUT/ca/      ca.pem, ca.key: the CA. Its key is only needed to make further certificates.
    OUT/dev/     for the dev box (wrapper and syncer)
    OUT/worker/  for the build machines (daemon)

OUT defaults to $DIST_BUILD_HOME/certs, and that to ~/dist_build/certs. What exists is kept unless
--force is given. The side that verifies a token holds only its SHA-256.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

# The package is beside this script's directory; the Python that runs this may not have it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from distbuild.certificates import CA_DAYS, LEAF_DAYS, ROLE_FILES, is_complete, make_installation


def _obstacle(out: Path, *, force: bool) -> str:
    """Why ``out`` must not be replaced; "" when it may be."""
    if not os.path.lexists(out):
        return ""
    if not out.is_dir():
        return f"{out} exists and is not a directory"
    names = {path.name for path in out.iterdir()}
    if not names:
        return ""
    if not force:
        return f"{out} exists but is not complete; move it away, or use --force to replace it"
    if not names & {"ca", "dev", "worker"}:
        return f"{out} holds other things than certificates; name another directory"
    return ""


def _end_in_order(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _say_what_to_do(out: Path) -> None:
    worker = out / "worker"
    there = (
        "%DIST_BUILD_HOME%\\certs\\worker" if os.name == "nt" else "$DIST_BUILD_HOME/certs/worker"
    )
    print(f"dev box:       keep {out / 'dev'} (wrapper and syncer read it)")
    print(f"build machine: copy {worker} to {there} there, and nothing else")
    if os.name != "nt":
        print(
            "               ssh BUILD1 'mkdir -p -m 700 dist_build/certs' &&"
            f" scp -rp {shlex.quote(str(worker))} BUILD1:dist_build/certs/"
        )


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gen_self_signed_certs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("out", nargs="?", metavar="OUT")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    options = parser.parse_args(words)
    if options.out == "":
        parser.error("OUT is empty")
    return options


def main(words: Sequence[str]) -> int:
    """Make the installation unless it is complete; returns the exit code."""
    options = _parse(words)
    home = os.environ.get("DIST_BUILD_HOME") or os.path.join(os.path.expanduser("~"), "dist_build")
    out = Path(os.path.abspath(options.out or os.path.join(home, "certs")))
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has fewer
            signal.signal(getattr(signal, name), _end_in_order)
    try:
        if not options.force and is_complete(out):
            print(f"{out} exists already; --force makes a new CA, certificates and tokens")
        elif obstacle := _obstacle(out, force=options.force):
            print(f"gen_self_signed_certs: {obstacle}", file=sys.stderr)
            return 1
        else:
            make_installation(out, tuple(ROLE_FILES))
            print(
                f"made a CA (valid {CA_DAYS} days), certificates ({LEAF_DAYS} days)"
                f" and tokens in {out}"
            )
    except OSError as error:
        print(f"gen_self_signed_certs: {error.filename or out}: {error.strerror}", file=sys.stderr)
        return 1
    _say_what_to_do(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
