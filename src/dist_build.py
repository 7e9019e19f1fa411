"""Entry point of the wrapper, which a build runs in front of the compiler."""

import sys

from distbuild.wrapper.main import client

if __name__ == "__main__":
    sys.exit(client())
