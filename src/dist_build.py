"""Entry point of the wrapper, which a build runs in front of the compiler."""

import sys

from distbuild.wrapper.main import command_words, main

if __name__ == "__main__":
    sys.exit(main(command_words(sys.argv)))
