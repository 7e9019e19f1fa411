"""The syncer: run this on the dev box."""

import sys

from distbuild.syncer.main import main

if __name__ == "__main__":
    sys.exit(main())
