"""Entry point of a worker: ``python src/daemon.py [--home DIR] [-v]``."""

import argparse
import sys

from distbuild import __version__
from distbuild.worker.main import run_worker


def main() -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description="dist_build worker: compiles for other machines")
    parser.add_argument("--home", help="default: $DIST_BUILD_HOME or ~/dist_build")
    parser.add_argument("-v", "--verbose", action="store_true", help="log everything")
    parser.add_argument("--version", action="version", version=f"dist_build {__version__}")
    arguments = parser.parse_args()
    return run_worker(arguments.home, verbose=arguments.verbose)


if __name__ == "__main__":
    sys.exit(main())
