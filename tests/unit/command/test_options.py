"""The option table itself: its order, and which row a word finds."""

import pytest

from distbuild.command.model import Family, LocalReason, Role
from distbuild.command.options import Effect, Option, ValueForm
from distbuild.command.tables import rows_families, rows_long, rows_short
from distbuild.command.tables.gcc import ROWS, option_table

J, E = ValueForm.JOINED, ValueForm.EITHER
ORIGINAL, GCC = Effect.ORIGINAL_PATHS, Family.GCC


@pytest.mark.parametrize("module", [rows_long, rows_short, rows_families])
def test_rows_are_sorted(module):
    spellings = [row.spelling for row in module.ROWS]

    assert spellings == sorted(spellings)


@pytest.mark.parametrize("family", Family)
def test_each_spelling_has_one_row(family):
    spellings = [row.spelling for row in ROWS if row.only in (None, family)]

    assert sorted(spellings) == sorted(set(spellings))


@pytest.mark.parametrize("family", Family)
def test_what_another_spelling_stands_for_is_known(family):
    table = option_table(family)
    others = {row.same_as for row in ROWS if row.only in (None, family)} - {""}

    assert [name for name in others if table.find(name) is None] == []


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
        ("-Wno-error=format", Option("-Wno-error=", J)),
        ("-Wno-such=x", Option("-Wno-such=x", guessed=True)),
        ("-fno-such/x", Option("-fno-such/x", guessed=True)),
        ("-fno-such", Option("-fno-such")),
        ("--warn-error=format", Option("--warn-", J, guessed=True)),
        ("-Wp,-MD,x", Option("-Wp,", J)),
        ("-march=native", Option("-march=native", verdict=ORIGINAL)),
        ("-march=native+crc", Option("-march=native+", J, verdict=LocalReason.NATIVE_TARGET)),
        ("-march=x86-64-v3", Option("-march=", J)),
        ("-ffile-prefix-map=a=b", Option("-ffile-prefix-map=", J, Role.PREFIX_MAP)),
        ("-fplugin-arg-x", Option("-fplugin", J, verdict=LocalReason.RUNS_OTHER_CODE)),
        ("-fprofile-arcs", Option("-fprofile-arcs", verdict=ORIGINAL)),
        ("-fopt-info", Option("-fopt-info", verdict=ORIGINAL, only=GCC)),
        ("-fopt-info-vec", Option("-fopt-info-vec", verdict=ORIGINAL, only=GCC)),
        ("-fopt-info-vec=o", Option("-fopt-info-vec=", J, Role.OUTPUT_FILE, ORIGINAL, only=GCC)),
        ("-fdump-rtl-all=o=p", Option("-fdump-rtl-all=", J, Role.OUTPUT_FILE, ORIGINAL)),
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
