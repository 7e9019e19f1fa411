"""Entry point of a worker: ``python src/daemon.py [--home DIR] [-v] [join URL CODE]``."""

import sys

from distbuild.worker.main import main

if __name__ == "__main__":
    sys.exit(main())
