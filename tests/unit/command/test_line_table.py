"""Which commands make gcc name the source twice."""

import pytest

from distbuild.command.model import CompileCommand
from distbuild.command.original_paths import with_line_table
from distbuild.command.parse import parse

GCC_12, GCC_10 = "gcc 12.2.0 x86_64", "gcc 10.2.1 x86_64"


@pytest.mark.parametrize(
    ("line", "version", "tied"),
    [
        ("gcc -gdwarf-4 -c /p/x.c", GCC_12, True),
        ("gcc -g -gdwarf-2 -O2 -c /p/x.c", GCC_12, True),
        ("gcc -gdwarf-5 -gdwarf-3 -c /p/x.c", GCC_12, True),
        ("gcc -gdwarf-3 -gdwarf-5 -c /p/x.c", GCC_12, False),
        ("gcc -gdwarf-4 -c x.c", GCC_12, False),
        ("gcc -gdwarf-4 -c /p/x.S", GCC_12, False),
        ("clang -gdwarf-4 -c /p/x.c", "clang 14.0.6 x86_64", False),
        ("gcc -g -c /p/x.c", GCC_12, False),
        ("gcc -g -c /p/x.c", GCC_10, True),
        ("gcc -g -c /p/x.c", "gcc of somebody", True),
        ("gcc -ggdb3 -c /p/x.c", GCC_10, True),
        ("gcc -O2 -c /p/x.c", GCC_10, False),
        ("gcc -g -c x.c", GCC_10, False),
    ],
)
def test_an_absolute_source_in_an_old_line_table_needs_the_original_paths(line, version, tied):
    command = parse(line.split(), "/p", lambda _: None)
    assert isinstance(command, CompileCommand)
    assert with_line_table(command, version).needs_original_paths == tied
