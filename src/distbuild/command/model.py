"""Immutable value types of a parsed compile command, built by ``parse``. Knows no option table.

A command is either a ``CompileCommand``, which can be distributed, or ``Local``, which holds the
reason why not.
"""

import enum
import ntpath
import os
import posixpath

import msgspec

from distbuild.system.windows.paths import from_windows


class PathStyle(enum.Enum):
    """Path syntax of a system, and of all compilers on it."""

    POSIX = "posix"
    WINDOWS = "windows"

    def absolute(self, cwd: str, name: str) -> str:
        """``name`` resolved in ``cwd``, as a path below "/" (``system.windows.paths``)."""
        if self is PathStyle.WINDOWS:
            return from_windows(name, cwd)
        return posixpath.join(cwd, name)

    def base(self, name: str) -> str:
        """The last part of a path."""
        return ntpath.basename(name) if self is PathStyle.WINDOWS else posixpath.basename(name)

    def is_directory_name(self, name: str) -> bool:
        """Whether ``name`` ends in a separator, as only directories may."""
        return name.endswith(("/", "\\") if self is PathStyle.WINDOWS else "/")


HERE = PathStyle.WINDOWS if os.name == "nt" else PathStyle.POSIX


class LocalReason(enum.StrEnum):
    """Why a command is compiled on the dev box. The value is the name in status and explain."""

    NOT_A_COMPILER = "not_a_compiler"
    LINK = "link"
    PREPROCESS_ONLY = "preprocess_only"
    DEPENDENCIES_ONLY = "dependencies_only"
    INFORMATION = "information"
    STDIN = "stdin"
    STDOUT = "stdout"
    NO_SOURCE = "no_source"
    SEVERAL_SOURCES = "several_sources"
    SOURCE_MISSING = "source_missing"
    OTHER_LANGUAGE = "other_language"
    PROBE = "probe"
    SPECIAL_INPUT = "special_input"
    UNKNOWN_LANGUAGE = "unknown_language"
    PRECOMPILED_HEADER = "precompiled_header"
    MODULES = "modules"
    NATIVE_TARGET = "native_target"
    DEBUG_DATABASE = "debug_database"
    PROFILE_USE = "profile_use"
    RUNS_OTHER_CODE = "runs_other_code"
    ASSEMBLER_INPUT = "assembler_input"
    OUTPUT_SPECIAL = "output_special"
    RESPONSE_FILE = "response_file"
    UNSUPPORTED_OPTION = "unsupported_option"
    NAMES_A_FILE = "names_a_file"
    OTHER_FILES = "other_files"
    FARM_FULL = "farm_full"
    COMPILER_CRASHED = "compiler_crashed"
    NAMES_ITS_PLACE = "names_its_place"
    OUTPUT_NOT_WRITTEN = "output_not_written"
    NO_WORKER = "no_worker"
    NO_TOOLCHAIN = "no_toolchain"
    NO_NAMESPACE = "no_namespace"
    LEASES_LOST = "leases_lost"
    RESULT_REFUSED = "result_refused"
    INPUTS_CHANGED = "inputs_changed"
    INPUT_NOT_MIRRORED = "input_not_mirrored"
    HARD_LINKS = "hard_links"
    UNPROVED_FAILURE = "unproved_failure"
    SYNCER_ERROR = "syncer_error"
    SYNCER_STOPPING = "syncer_stopping"

    @property
    def by_design(self) -> bool:
        """True for an expected reason: the command runs locally and silently."""
        return self not in _FAILURES

    @property
    def is_said(self) -> bool:
        """True for a reason that is no failure but surprises the user: printed once per build."""
        return self is LocalReason.OTHER_FILES


#: ``-x`` languages of assembler sources, read as they are or preprocessed.
ASSEMBLER_LANGUAGES = ("assembler", "assembler-with-cpp")
_FAILURES = frozenset(
    {
        LocalReason.OUTPUT_NOT_WRITTEN,
        LocalReason.NO_WORKER,
        LocalReason.NO_TOOLCHAIN,
        LocalReason.NO_NAMESPACE,
        LocalReason.LEASES_LOST,
        LocalReason.RESULT_REFUSED,
        LocalReason.INPUTS_CHANGED,
        LocalReason.INPUT_NOT_MIRRORED,
        LocalReason.SYNCER_ERROR,
        LocalReason.SYNCER_STOPPING,
    }
)


class Local(msgspec.Struct, frozen=True):
    """A command that is not distributed. ``detail``: the option or file that decided it."""

    reason: LocalReason
    detail: str = ""


class Role(enum.Enum):
    """Kind of an option's value; decides how it is relocated."""

    NONE = "none"  # no value, or one that is no path
    INPUT_FILE = "input_file"
    UNLISTED_FILE = "unlisted_file"  # an input that the compiler lists in no dependency file
    INPUT_DIR = "input_dir"
    OUTPUT_FILE = "output_file"
    PREFIX_MAP = "prefix_map"  # OLD=NEW
    MODULE_MAPPER = "module_mapper"  # gcc: a file that maps module names to compiled modules
    SOURCE = "source"  # a positional argument: the translation unit


class Argument(msgspec.Struct, frozen=True):
    """One option with its value, or one positional argument, as spelled in the command.

    ``option`` is the option's name without value ("" for a positional); ``value`` its value or
    None. ``separate``: ``-I dir``, not ``-Idir``. ``same_as``: the option of which this one is
    another spelling. ``tokens()`` returns the argv words.
    """

    option: str
    value: str | None = None
    separate: bool = False
    role: Role = Role.NONE
    same_as: str = ""

    @property
    def meaning(self) -> str:
        """The spelling under which the rest of the package knows this option."""
        return self.same_as or self.option

    def tokens(self) -> tuple[str, ...]:
        """The argument as argv words, spelled as in the command."""
        if self.value is None:
            return (self.option,)
        if self.separate:
            return (self.option, self.value)
        return (self.option + self.value,)


class Family(enum.StrEnum):
    """Which command-line syntax a driver has, and which conventions its outputs follow."""

    GCC = "gcc"
    CLANG = "clang"
    CL = "cl"  # Microsoft's
    CLANG_CL = "clang-cl"

    @property
    def is_clang(self) -> bool:
        """Whether the compiler is clang, with either command-line syntax."""
        return self in (Family.CLANG, Family.CLANG_CL)

    @property
    def speaks_cl(self) -> bool:
        """Whether the command line has Microsoft's syntax."""
        return self in (Family.CL, Family.CLANG_CL)


class Dependencies(msgspec.Struct, frozen=True):
    """The dependency file that the command itself asks for.

    ``system``: system headers are listed too (-MD); False for -MMD. ``path``: the file, as the
    compiler names it (relative to cwd or absolute).
    """

    system: bool
    path: str


class CompileCommand(msgspec.Struct, frozen=True):
    """One translation unit compiled to one primary output.

    Paths are as spelled in the command (relative ones are relative to ``cwd``), except where a
    field says absolute. ``output`` is the explicit ``-o`` value or the name the driver chooses, ""
    if nothing is written (``-fsyntax-only``).
    """

    family: Family
    compiler: str
    arguments: tuple[Argument, ...]
    cwd: str
    source: str
    language: str
    output: str
    #: Explicit search directories in command order: -I -iquote -isystem -idirafter, --sysroot.
    search_dirs: tuple[str, ...]
    #: Files named by options: -include, -imacros, lists, profiles.
    input_files: tuple[str, ...]
    #: None: the command asks for no dependency file.
    dependencies: Dependencies | None
    #: Absolute directories in which the compiler may write files that belong to the result.
    output_dirs: tuple[str, ...]
    #: Why it is exact only in a sandbox that shows the original paths (-save-temps, ...), for the
    #: user; "": it is exact in any.
    tied_by: str
    #: Those of ``input_files`` that the compiler's dependency file does not name.
    unlisted_files: tuple[str, ...] = ()
    #: Arguments of unknown options whose value might be a file's name.
    guessed: tuple[str, ...] = ()
    #: Further files that the command always writes and whose name is no option's value.
    by_products: tuple[str, ...] = ()
    style: PathStyle = PathStyle.POSIX

    @property
    def module_mapper(self) -> str:
        """The module mapper's file that takes effect; "": none."""
        named = (a.value for a in reversed(self.arguments) if a.role is Role.MODULE_MAPPER)
        return next(named, None) or ""

    @property
    def needs_original_paths(self) -> bool:
        """Whether it is exact only in a sandbox that shows the original paths."""
        return bool(self.tied_by)

    def output_files(self) -> tuple[str, ...]:
        """The files that the command names, or implies, as its outputs; may contain duplicates."""
        others = (
            argument.value
            for argument in self.arguments
            if argument.role is Role.OUTPUT_FILE and argument.meaning not in ("-o", "-MF", "-Fo")
        )
        asked = (self.dependencies.path,) if self.dependencies else ()
        named = (self.output, *asked, *self.by_products, *others)
        return tuple(path for path in named if path)

    def named_outputs(self) -> set[str]:
        """``output_files`` as absolute paths, otherwise spelled as in the command."""
        return {self.absolute(path) for path in self.output_files()}

    def absolute(self, name: str) -> str:
        """The path below "/" of a file that the command names."""
        return self.style.absolute(self.cwd, name)

    def argv(self) -> list[str]:
        """The command line with response files expanded, otherwise unchanged."""
        words = [self.compiler]
        for argument in self.arguments:
            words.extend(argument.tokens())
        return words
