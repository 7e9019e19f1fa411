"""The option table itself: its order, and which row a word finds."""

import pytest

from distbuild.command.model import Family, LocalReason, Role
from distbuild.command.option_table import ROWS, option_table
from distbuild.command.options import Option, Shape, Verdict

C, J, S, E = Shape.FLAG, Shape.JOINED, Shape.SEPARATE, Shape.EITHER


def test_rows_are_sorted_and_unique():
    spellings = [row.spelling for row in ROWS]

    assert spellings == sorted(set(spellings))


def test_values_are_never_prefixes_of_their_own_alias():
    known = {row.spelling for row in ROWS} | {"-std=", "-target", "--sysroot"}

    assert {row.same_as for row in ROWS if row.same_as} <= known


@pytest.mark.parametrize(
    ("word", "option"),
    [
        ("-c", Option("-c")),
        ("-I", Option("-I", E, Role.INPUT_DIR)),
        ("-Idir", Option("-I", E, Role.INPUT_DIR)),
        ("-isystemdir", Option("-isystem", E, Role.INPUT_DIR)),
        ("-includex.h", Option("-include", E, Role.INPUT_FILE)),
        ("-imacros", Option("-imacros", E, Role.INPUT_FILE)),
        ("-O2", Option("-O2")),
        ("-fno-common", Option("-fno-common")),
        ("-Wno-error=format", Option("-Wno-error=format")),
        ("-Wp,-MD,x", Option("-Wp,", J)),
        ("-march=native", Option("-march=native", verdict=Verdict.ORIGINAL_PATHS)),
        ("-march=x86-64-v3", Option("-march=x86-64-v3")),
        ("-ffile-prefix-map=a=b", Option("-ffile-prefix-map=", J, Role.PREFIX_MAP)),
        ("-fplugin-arg-x", Option("-fplugin", J, verdict=LocalReason.RUNS_OTHER_CODE)),
        ("-fprofile-arcs", Option("-fprofile-", J, verdict=Verdict.ORIGINAL_PATHS)),
        ("-fprofile-use=x", Option("-fprofile-use", J, verdict=LocalReason.PROFILE_USE)),
        ("-MDx", None),
        ("--no-such", None),
        ("-ycool", None),
    ],
)
def test_a_word_finds_its_row(word, option):
    assert option_table(Family.GCC).find(word) == option


@pytest.mark.parametrize(
    ("family", "word", "known"),
    [
        (Family.GCC, "-aux-info", True),
        (Family.CLANG, "-aux-info", False),
        (Family.GCC, "-Xclang", False),
        (Family.CLANG, "-Xclang", True),
        (Family.GCC, "--target=arm-none-eabi", False),
        (Family.CLANG, "--target=arm-none-eabi", True),
    ],
)
def test_each_family_has_its_own_options(family, word, known):
    assert (option_table(family).find(word) is not None) == known
