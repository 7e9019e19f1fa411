"""What a compile command is, as immutable values. Knows no option by name; parse builds these.

A command is either a ``CompileCommand``, which can be distributed, or ``Local``, which says why
not.
"""

import enum
import ntpath
import os
import posixpath

import msgspec

from distbuild.system.windows.paths import from_windows


class PathStyle(enum.Enum):
    """Of a system, and so of all compilers on it."""

    POSIX = "posix"
    WINDOWS = "windows"

    def absolute(self, cwd: str, name: str) -> str:
        """Where ``name`` is for a process in ``cwd``, as a path below "/" (``windows_paths``)."""
        if self is PathStyle.WINDOWS:
            return from_windows(name, cwd)
        return posixpath.join(cwd, name)

    def base(self, name: str) -> str:
        """The last part of a path."""
        return ntpath.basename(name) if self is PathStyle.WINDOWS else posixpath.basename(name)

    def is_directory_name(self, name: str) -> bool:
        """Whether a name ends as only that of a directory does."""
        return name.endswith(("/", "\\") if self is PathStyle.WINDOWS else "/")


HERE = PathStyle.WINDOWS if os.name == "nt" else PathStyle.POSIX


class LocalReason(enum.StrEnum):
    """Why a command is compiled on the dev box. The value is its name in status and explain."""

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
        """True when nothing went wrong: such a command runs locally without a word."""
        return self not in _FAILURES

    @property
    def is_said(self) -> bool:
        """True for what is no failure, but not what the user expects: said once a build."""
        return self is LocalReason.OTHER_FILES


#: ``-x`` of what the assembler reads as it stands, or preprocessed.
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
    """This command is not distributed. ``detail`` names the option or file that decided it."""

    reason: LocalReason
    detail: str = ""


class Role(enum.Enum):
    """What the value of an option is; decides how it is relocated."""

    NONE = "none"  # the option has no value, or one that is no path
    INPUT_FILE = "input_file"
    UNLISTED_FILE = "unlisted_file"  # an input that the compiler lists in no dependency file
    INPUT_DIR = "input_dir"
    OUTPUT_FILE = "output_file"
    PREFIX_MAP = "prefix_map"  # OLD=NEW
    SOURCE = "source"  # a positional argument: the translation unit


class Argument(msgspec.Struct, frozen=True):
    """One option with its value, or one positional argument, that remembers how it was spelled.

    ``option`` is the option's name without value ("" for a positional); ``value`` its value or
    None. ``separate`` tells ``-I dir`` from ``-Idir``. ``same_as``: the option of which this one
    is another spelling. ``tokens()`` gives back the argv words.
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
        """The argument as words of a command line, spelled as it came."""
        if self.value is None:
            return (self.option,)
        if self.separate:
            return (self.option, self.value)
        return (self.option + self.value,)


class Family(enum.StrEnum):
    """Which command-line language a driver speaks, and which quirks its outputs have."""

    GCC = "gcc"
    CLANG = "clang"
    CL = "cl"  # Microsoft's
    CLANG_CL = "clang-cl"

    @property
    def is_clang(self) -> bool:
        """Whether clang is what compiles, whatever the command line's language."""
        return self in (Family.CLANG, Family.CLANG_CL)

    @property
    def speaks_cl(self) -> bool:
        """Whether the command line is Microsoft's language."""
        return self in (Family.CL, Family.CLANG_CL)


class Dependencies(msgspec.Struct, frozen=True):
    """What the command itself says about dependency files.

    ``system``: system headers are listed too (-MD); False for -MMD. ``path``: where the file is
    written, as the compiler would name it (relative to cwd or absolute).
    """

    system: bool
    path: str


class CompileCommand(msgspec.Struct, frozen=True):
    """One translation unit compiled to one primary output.

    Paths are as spelled in the command (relative ones are relative to ``cwd``), except where a
    field says absolute. ``output`` is the explicit ``-o`` value or the name the driver chooses, ""
    where nothing is written (``-fsyntax-only``).
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
    #: Only exact in a sandbox that shows the original paths (-save-temps, -gsplit-dwarf, ...).
    needs_original_paths: bool
    #: Those of ``input_files`` that the compiler's dependency file does not name.
    unlisted_files: tuple[str, ...] = ()
    #: Words of unknown options with a value, which might be a file's name.
    guessed: tuple[str, ...] = ()
    #: Other files that it is sure to write, where no option has just their name.
    by_products: tuple[str, ...] = ()
    style: PathStyle = PathStyle.POSIX

    def output_files(self) -> tuple[str, ...]:
        """The files that the command names, or implies, as its outputs; one may be named twice."""
        others = (
            argument.value
            for argument in self.arguments
            if argument.role is Role.OUTPUT_FILE and argument.meaning not in ("-o", "-MF", "-Fo")
        )
        asked = (self.dependencies.path,) if self.dependencies else ()
        named = (self.output, *asked, *self.by_products, *others)
        return tuple(path for path in named if path)

    def named_outputs(self) -> set[str]:
        """The same as absolute paths, spelled as in the command."""
        return {self.absolute(path) for path in self.output_files()}

    def absolute(self, name: str) -> str:
        """The path, below "/", of a file that the command names."""
        return self.style.absolute(self.cwd, name)

    def argv(self) -> list[str]:
        """The command line with response files expanded, otherwise as it came."""
        words = [self.compiler]
        for argument in self.arguments:
            words.extend(argument.tokens())
        return words
