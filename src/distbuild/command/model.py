"""Immutable value types of a parsed compile command, built by ``parse``. Knows no option table.

A command is either a ``CompileCommand``, which can be distributed, or ``Local``, which holds the
reason why not.
"""

import enum
import ntpath
import os
import posixpath
from collections.abc import Iterable

import msgspec

from distbuild.system.windows.names import from_windows


class PathStyle(enum.Enum):
    """Path syntax of a system, and of all compilers on it."""

    POSIX = "posix"
    WINDOWS = "windows"

    def absolute(self, cwd: str, name: str) -> str:
        """``name`` resolved in ``cwd``, as a path below "/" (``system.windows.names``)."""
        if self is PathStyle.WINDOWS:
            return from_windows(name, cwd)
        # As posixpath.join, in a third of the time: it is called for each path of each command.
        if name.startswith("/"):
            return name
        return cwd + name if cwd.endswith("/") else f"{cwd}/{name}"

    def base(self, name: str) -> str:
        """The last part of a path."""
        return ntpath.basename(name) if self is PathStyle.WINDOWS else posixpath.basename(name)

    def is_directory_name(self, name: str) -> bool:
        """Whether ``name`` ends in a separator, as only directories may."""
        return name.endswith(("/", "\\") if self is PathStyle.WINDOWS else "/")


HERE = PathStyle.WINDOWS if os.name == "nt" else PathStyle.POSIX


class LocalReason(enum.StrEnum):
    """Why a command is compiled on the dev box. The value is the name in status and explain,
    ``meaning`` the sentence that explains it, ``by_design`` True for an expected reason: the
    command runs locally and silently. Any other is a failure, with a remedy in
    docs/troubleshooting.md."""

    meaning: str
    by_design: bool

    def __new__(cls, name: str, meaning: str = "", by_design: bool = True) -> "LocalReason":
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning, member.by_design = meaning, by_design
        return member

    NOT_A_COMPILER = "not_a_compiler", "the command is not a gcc, clang or cl on this machine"
    COMPILER_SCRIPT = (
        "compiler_script",
        "the compiler is a script: its environment decides which compiler it runs",
    )
    LINK = "link", "linking is done on the dev box; compile with -c to distribute"
    PREPROCESS_ONLY = (
        "preprocess_only",
        "preprocessing (-E, module scans) costs more sent than it saves",
    )
    DEPENDENCIES_ONLY = "dependencies_only", "-M and -MM only list dependencies"
    INFORMATION = "information", "the command only asks the compiler about itself"
    STDIN = "stdin", "the source comes from standard input"
    STDOUT = "stdout", "an output goes to standard output"
    NO_SOURCE = "no_source", "there is no source file in the command"
    SEVERAL_SOURCES = "several_sources", "one command with several sources"
    SOURCE_MISSING = "source_missing", "the source cannot be read; the compiler says so itself"
    OTHER_LANGUAGE = "other_language", "the compiler is one for another language than C and C++"
    PROBE = "probe", "a configure script tries the compiler out, one small file at a time"
    SPECIAL_INPUT = "special_input", "the command names a pipe, a device or a private file"
    UNKNOWN_LANGUAGE = "unknown_language", "the source is in a language that is not distributed"
    PRECOMPILED_HEADER = "precompiled_header", "a precompiled header is made or would be used"
    MODULES = "modules", "its modules are read or written without being named"
    NATIVE_TARGET = "native_target", "the code is for this machine's own processor"
    DEBUG_DATABASE = "debug_database", "debug information goes into a database that compiles share"
    PROFILE_USE = "profile_use", "profile data is read from a place that only the compiler knows"
    RUNS_OTHER_CODE = "runs_other_code", "the compiler would load a plug-in or run another program"
    ASSEMBLER_INPUT = "assembler_input", "the assembler reads or lacks a file that is not mirrored"
    OUTPUT_SPECIAL = (
        "output_special",
        "an output is not a regular writable file in an existing directory",
    )
    RESPONSE_FILE = "response_file", "a response file is too large, nested too deeply, or no file"
    UNSUPPORTED_OPTION = "unsupported_option", "this option is not known to be safe to distribute"
    NAMES_A_FILE = "names_a_file", "an unknown option has a value that may name a file"
    OTHER_FILES = "other_files", "the wrapper sees other files than the syncer (a container?)"
    FARM_FULL = "farm_full", "all workers were busy and a core of the dev box was idle"
    COMPILER_CRASHED = (
        "compiler_crashed",
        "the worker's compiler crashed; the local compiler shows why",
    )
    NAMES_ITS_PLACE = "names_its_place", "the object contains the paths at which it was compiled"
    HARD_LINKS = "hard_links", "two of its headers are one file, which clang includes once"
    UNPROVED_FAILURE = (
        "unproved_failure",
        "the compile failed before it listed the files that it read",
    )
    # Failures:
    OUTPUT_NOT_WRITTEN = "output_not_written", "the outputs could not be written", False
    NO_WORKER = "no_worker", "no worker asks for work; see dist_build.exe status", False
    NO_TOOLCHAIN = (
        "no_toolchain",
        "no worker has exactly this compiler; see dist_build.exe status",
        False,
    )
    NO_NAMESPACE = "no_namespace", "only a worker with bubblewrap gives the same bytes here", False
    WORKERS_FAILING = (
        "workers_failing",
        "the last jobs of all workers that could take it failed; see dist_build.exe status",
        False,
    )
    LEASES_LOST = "leases_lost", "the workers that took the job did not finish it", False
    RESULT_REFUSED = (
        "result_refused",
        "the workers that took the job sent results that cannot be right",
        False,
    )
    INPUTS_CHANGED = "inputs_changed", "its files kept changing while it was compiled", False
    INPUT_NOT_MIRRORED = "input_not_mirrored", "it reads a file that could not be mirrored", False
    SYNCER_ERROR = "syncer_error", "a fault in the syncer; see logs/syncer.log", False
    SYNCER_STOPPING = "syncer_stopping", "the syncer is being stopped", False

    @property
    def is_said(self) -> bool:
        """True for a reason that is no failure but surprises the user: printed once per build."""
        return self is LocalReason.OTHER_FILES


#: ``-x`` languages of assembler sources, read as they are or preprocessed.
ASSEMBLER_LANGUAGES = ("assembler", "assembler-with-cpp")
#: clang's ``-x`` language of a module's interface.
MODULE_INTERFACE = "c++-module"


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

    @property
    def is_ast(self) -> bool:
        """Whether an UNLISTED_FILE is a precompiled header or module; -Xclang passes no other."""
        return self.meaning in ("-include-pch", "-Xclang", "-fmodule-file=")

    def tokens(self) -> tuple[str, ...]:
        """The argument as argv words, spelled as in the command."""
        if self.value is None:
            return (self.option,)
        if self.separate:
            return (self.option, self.value)
        return (self.option + self.value,)


def names_header_language(arguments: Iterable[Argument]) -> bool:
    """Whether a command of one source makes a precompiled header, if it is distributed."""
    return any(a.meaning == "-x" and (a.value or "").endswith("-header") for a in arguments)


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
    #: gcc: the directory from which its compiled modules are named; "": its mapper maps none, or
    #: was not read (``named_modules``).
    module_root: str = ""
    style: PathStyle = PathStyle.POSIX

    @property
    def module_mapper(self) -> str:
        """The module mapper's file that takes effect; "": none."""
        named = [a.value for a in self.arguments if a.role is Role.MODULE_MAPPER]
        return (named[-1] if named else None) or ""

    @property
    def uses_modules(self) -> bool:
        """Whether it compiles a module, or may read compiled ones: it may open these and their
        sources, which no dependency file lists."""
        if self.module_root or self.language == MODULE_INTERFACE:
            return True
        return any(a.meaning == "-fmodule-file=" for a in self.arguments)

    @property
    def ast_files(self) -> tuple[str, ...]:
        """clang: the precompiled headers and modules that the command names as inputs."""
        found = (a.value for a in self.arguments if a.role is Role.UNLISTED_FILE and a.is_ast)
        return tuple(filter(None, found))

    @property
    def makes_ast(self) -> bool:
        """Whether an output is a precompiled header or module."""
        return self.language == MODULE_INTERFACE or names_header_language(self.arguments)

    @property
    def needs_original_paths(self) -> bool:
        """Whether it is exact only in a sandbox that shows the original paths."""
        return bool(self.tied_by)

    def output_files(self) -> tuple[str, ...]:
        """The files that the command names, or implies, as its outputs; may contain duplicates."""
        others = [
            argument.value
            for argument in self.arguments
            if argument.role is Role.OUTPUT_FILE and argument.meaning not in ("-o", "-MF", "-Fo")
        ]
        asked = (self.dependencies.path,) if self.dependencies else ()
        return tuple(filter(None, (self.output, *asked, *self.by_products, *others)))

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
