"""Option tables of cl.exe and clang-cl: the value form, role and verdict of each option.

Contains every option of clang-cl 14 that takes a value, names a file or a directory, or adds an
output, and those of cl.exe 19.29 from Microsoft's "Compiler options listed alphabetically". Rows
are spelled with "-"; "/" means the same. With "-", clang-cl also accepts clang's own options.
"""

from distbuild.command.model import Family, LocalReason
from distbuild.command.options import Option, OptionTable, ValueForm
from distbuild.command.tables import rows_families
from distbuild.command.tables.values import (
    DEPENDENCIES,
    DIR,
    EITHER,
    FILE,
    HEADER,
    INFORMATION,
    JOINED,
    MODULES,
    NATIVE,
    ORIGINAL,
    OUT,
    PLAIN_VALUES,
    PREPROCESS,
    SEPARATE,
    UNSUPPORTED,
)

MICROSOFT, CLANG_CL = Family.CL, Family.CLANG_CL

_FLAGS = """
-Brepro -Brepro- -C -FC -FS -G1 -G2 -GA -GF -GF- -GH -GL- -GR -GR- -GS -GS- -GT -GX -GX- -GZ -Gd
-Ge -Gh -Gm- -Gr -Gregcall -Gs -Gv -Gw -Gw- -Gy -Gy- -Gz -J -JMC -LD -LDd -MD -MDd -MT -MTd
-QIfist -QIntel-jcc-erratum -Qfast_transcendentals -Qimprecise_fwaits -Qpar -Qsafe_fp_loads
-Qspectre -Qspectre-load -Qspectre-load-cf -Qvec -Qvec- -TC -TP -W0 -W1 -W2 -W3 -W4 -WL -WX -WX-
-Wall -X -Za -Ze -Zl -Zo -Zo- -Zp -analyze- -bigobj -c -external:anglebrackets
-external:templates- -homeparams -hotpatch -kernel -kernel- -nologo -openmp -openmp-
-openmp:experimental -permissive -permissive- -sdl -sdl- -showFilenames
-showFilenames- -showIncludes -showIncludes:user -utf-8 -validate-charset -validate-charset- -vmb
-vmg -vmm -vms -vmv -volatile:iso -volatile:ms -w
""".split()

_JOINED = """
-EH -Fd -Fe -Fm -Gs -MP -O -Qpar-report: -Qvec-report: -RTC -Zc: -Zm -Zp -ZH: -arch:
-cgthreads -constexpr: -diagnostics: -errorReport: -execution-charset: -external:W -favor: -fp:
-guard: -source-charset: -std: -tune: -vd -w
""".split()

_ROWS: tuple[Option, ...] = (
    *(Option(spelling) for spelling in _FLAGS),
    *(Option(spelling, JOINED) for spelling in _JOINED),
    Option("-?", verdict=INFORMATION),
    Option("-AI", EITHER, verdict=UNSUPPORTED),
    Option("-Bt", verdict=UNSUPPORTED),
    Option("-Bt+", verdict=UNSUPPORTED),
    Option("-D", EITHER),
    Option("-E", verdict=PREPROCESS),
    Option("-EP", verdict=PREPROCESS),
    Option("-F", EITHER, verdict=UNSUPPORTED),
    Option("-FA", verdict=ORIGINAL),
    Option("-FA", JOINED, verdict=UNSUPPORTED),
    Option("-FI", EITHER, FILE),
    Option("-FR", JOINED, verdict=UNSUPPORTED),
    Option("-FU", EITHER, verdict=UNSUPPORTED),
    Option("-Fa", JOINED, verdict=ORIGINAL),
    Option("-Fi", JOINED, verdict=UNSUPPORTED),
    Option("-Fo", JOINED, OUT),
    Option("-Fo:", JOINED, OUT, same_as="-Fo", only=MICROSOFT),
    # clang-cl 14 reads the colon as part of the file's name; later releases do not.
    Option("-Fo:", JOINED, verdict=UNSUPPORTED, only=CLANG_CL),
    Option("-Fp", JOINED, verdict=HEADER),
    Option("-Fr", JOINED, verdict=UNSUPPORTED),
    Option("-Fx", verdict=UNSUPPORTED),
    Option("-GL", only=CLANG_CL),
    Option("-GL", verdict=UNSUPPORTED, only=MICROSOFT),
    Option("-Gm", verdict=UNSUPPORTED),
    Option("-H", verdict=UNSUPPORTED),
    Option("-HELP", verdict=INFORMATION),
    Option("-I", EITHER, DIR),
    Option("-JMC-", only=MICROSOFT),
    Option("-LN", verdict=UNSUPPORTED),
    Option("-P", verdict=PREPROCESS),
    Option("-Tc", EITHER),
    Option("-Tp", EITHER),
    Option("-U", EITHER),
    Option("-V", verdict=UNSUPPORTED),
    Option("-Y-"),
    Option("-Yc", JOINED, verdict=HEADER),
    Option("-Yd", JOINED, verdict=UNSUPPORTED),
    Option("-Yl", JOINED, verdict=UNSUPPORTED),
    Option("-Yu", JOINED, verdict=HEADER),
    # clang-cl treats -ZI and -Zi as -Z7; cl.exe writes a database that several files share.
    Option("-Z7", verdict=ORIGINAL),
    Option("-ZI", verdict=ORIGINAL, only=CLANG_CL),
    Option("-ZI", verdict=LocalReason.DEBUG_DATABASE, only=MICROSOFT),
    Option("-ZW", JOINED, verdict=UNSUPPORTED),
    Option("-Zd", verdict=ORIGINAL),
    Option("-Zg", verdict=UNSUPPORTED),
    Option("-Zi", verdict=ORIGINAL, only=CLANG_CL),
    Option("-Zi", verdict=LocalReason.DEBUG_DATABASE, only=MICROSOFT),
    Option("-Zs", verdict=UNSUPPORTED),
    Option("-analyze", JOINED, verdict=UNSUPPORTED),
    Option("-await", JOINED, verdict=UNSUPPORTED),
    Option("-clang:", JOINED, only=CLANG_CL),
    Option("-clr", JOINED, verdict=UNSUPPORTED),
    Option("-d1", JOINED, verdict=UNSUPPORTED),
    Option("-d2", JOINED, verdict=UNSUPPORTED),
    Option("-d2FastFail"),
    Option("-d2Zi+"),
    Option("-diasdkdir", EITHER, verdict=UNSUPPORTED, only=CLANG_CL),
    Option("-doc", JOINED, verdict=UNSUPPORTED),
    Option("-experimental:", JOINED, verdict=UNSUPPORTED),
    Option("-experimental:module", JOINED, verdict=MODULES),
    Option("-exportHeader", verdict=MODULES),
    Option("-external:I", EITHER, DIR),
    Option("-external:env:", JOINED, verdict=UNSUPPORTED),
    Option("-headerName:", JOINED, verdict=MODULES),
    Option("-headerUnit", JOINED, verdict=MODULES),
    Option("-help", verdict=INFORMATION),
    Option("-ifc", JOINED, verdict=MODULES),
    Option("-imsvc", EITHER, DIR, only=CLANG_CL),
    Option("-interface", verdict=MODULES),
    Option("-internalPartition", verdict=MODULES),
    Option("-link", JOINED, verdict=LocalReason.LINK),
    Option("-o", EITHER, OUT, same_as="-Fo"),
    # clang-cl does not know this spelling and parses it as -o.
    Option("-openmp:llvm", only=MICROSOFT),
    Option("-reference", EITHER, verdict=MODULES),
    Option("-scanDependencies", EITHER, verdict=DEPENDENCIES),
    Option("-sourceDependencies", EITHER),
    Option("-sourceDependencies:directives", EITHER, verdict=DEPENDENCIES),
    Option("-stdIfcDir", EITHER, verdict=MODULES),
    Option("-translateInclude", verdict=MODULES),
    Option("-u", verdict=UNSUPPORTED),
    Option("-vctoolsdir", EITHER, verdict=UNSUPPORTED, only=CLANG_CL),
    Option("-vctoolsversion", EITHER, verdict=UNSUPPORTED, only=CLANG_CL),
    Option("-winsdkdir", EITHER, verdict=UNSUPPORTED, only=CLANG_CL),
    Option("-winsdkversion", EITHER, verdict=UNSUPPORTED, only=CLANG_CL),
    Option("-winsysroot", EITHER, verdict=UNSUPPORTED, only=CLANG_CL),
    Option("-fsanitize=address", verdict=ORIGINAL),
    Option("-fsanitize-", JOINED, verdict=UNSUPPORTED),
    Option("-fsanitize-coverage=", JOINED, verdict=UNSUPPORTED),
)

#: clang's own options, with "-" only.
_CORE: tuple[Option, ...] = (
    Option("-###", verdict=INFORMATION),
    Option("--"),
    Option("--analyze", verdict=UNSUPPORTED),
    Option("--target=", JOINED),
    Option("--version", verdict=INFORMATION),
    Option("-Qunused-arguments"),
    Option("-R", JOINED),
    Option("-W", JOINED),
    Option("-Xclang", SEPARATE),
    Option("-m32"),
    Option("-m64"),
    Option("-march=native", verdict=NATIVE),
    Option("-mcpu=native", verdict=NATIVE),
    Option("-mtune=native", verdict=NATIVE),
    Option("-mllvm", SEPARATE),
    Option("-msse", JOINED),
    Option("-nobuiltininc"),
    Option("-object-file-name=", JOINED, verdict=UNSUPPORTED),
    Option("-print-supported-cpus", verdict=INFORMATION),
    Option("-v", verdict=INFORMATION),
)

#: Options for other programs, which clang-cl parses as something else.
_OTHERS = ("-Wa,", "-Wl,", "-Wp,", "-ObjC")
_ONE_WORD = (ValueForm.FLAG, ValueForm.JOINED, ValueForm.ASSIGNED)
#: Those of clang's options that have no second word. No list says which of the others clang-cl
#: knows, and it parses the value of an unknown option as a source.
_CLANGS = tuple(
    row
    for row in (*rows_families.ROWS, *(Option(s, ValueForm.JOINED) for s in PLAIN_VALUES))
    if row.shape in _ONE_WORD
    and row.only in (None, Family.CLANG)
    and not row.spelling.startswith(_OTHERS)
    and row.spelling.startswith(("-f", "-g", "-m"))
)


def tables(family: Family) -> tuple[OptionTable, OptionTable]:
    """The tables for arguments that begin with "/" and for those that begin with "-"."""
    slash = OptionTable(_ROWS, (), family)
    if family is Family.CL:
        return slash, slash
    own = {row.spelling for row in (*_ROWS, *_CORE)}
    clangs = tuple(
        Option(row.spelling, row.shape, row.role, row.verdict, row.same_as)
        for row in _CLANGS
        if row.spelling not in own
    )
    return slash, OptionTable((*_ROWS, *_CORE, *clangs), ("-f", "-g", "-m"), family)
