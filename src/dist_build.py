"""The wrapper: put this in front of the compiler."""

import sys

from distbuild.wrapper.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
