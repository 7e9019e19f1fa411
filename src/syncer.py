"""The syncer: run this on the dev box."""

import argparse
import sys

from distbuild import __version__
from distbuild.config import find_home
from distbuild.protocol.errors import ConfigError
from distbuild.syncer.main import run


def main() -> int:
    """Parse the options and serve; 2 when the set-up is wrong."""
    parser = argparse.ArgumentParser(prog="syncer.py", description=__doc__)
    parser.add_argument("--home", help="configuration and state (default: $DIST_BUILD_HOME)")
    parser.add_argument("-v", "--verbose", action="store_true", help="log everything, also here")
    parser.add_argument("--version", action="version", version=f"dist_build {__version__}")
    options = parser.parse_args()
    try:
        run(find_home(options.home), verbose=options.verbose)
    except ConfigError as error:
        print(f"syncer: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
