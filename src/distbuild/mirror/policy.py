"""Which names are mirrored with their content, which by name alone, and which not at all.

A matter of cost only: a compile that asks for a withheld or ignored file gets it, since the syncer
then adds it by name and runs the job again. Pure.
"""

import enum
import posixpath
import re

from distbuild.system.paths import WINDOWS
from distbuild.system.windows.names import fold

#: Larger files stay on the dev box until a compile asks for one.
DEFAULT_MAX_FILE_BYTES = 16 * 1024 * 1024
#: No system opens a longer path.
MAX_PATH_BYTES = 32_000 if WINDOWS else 4096


class Handling(enum.Enum):
    """What becomes of a regular file in a mirrored directory."""

    MIRROR = "mirror"
    WITHHOLD = "withhold"  # the name is mirrored, so that __has_include sees it
    IGNORE = "ignore"  # a by-product of builds: its coming and going is no change


_WITHHELD_SUFFIXES = frozenset(
    ".c .cc .cp .cxx .cpp .c++ .cppm .ixx .m .mm .s .sx .f .f77 .f90 .f95 .f03 .for .go .rs .d.ts"
    " .java .py .pl .sh .bat .js .ts .css .cmake .ninja .mk .am .ac .m4 .po .mo .md .rst .txt .adoc"
    " .json .yaml .yml .toml .xml .html .log .csv .png .jpg .jpeg .gif .svg .ico .pdf .ps .zip .gz"
    " .xz .bz2 .zst .tar .tgz .whl .jar .class .db .sqlite .bin .dat .img .iso .patch .diff .orig"
    " .rej .bak .gch .pch .pcm".split()
)
_IGNORED_SUFFIXES = frozenset(
    ".o .lo .loT .obj .a .la .lib .so .dylib .dll .exe .pdb .ilk .d .dwo .dwp .cmd .gcda .gcno .su"
    " .ci .pyc .pyo .idb .iobj .ipdb .sbr .tlog .swp .swo .swx .tmp .po~ .Po .Plo .Tpo".split()
)
_IGNORED_PREFIXES = (".ninja_", ".#", ".nfs", ".dist_build.")
_CLOSED_DIRECTORIES = frozenset({".git", ".hg", ".svn", "__pycache__", "node_modules", ".cache"})
#: Where people keep keys and passwords.
_SECRET_DIRECTORIES = frozenset(
    ".ssh .gnupg .pki .aws .azure .kube .docker .password-store .mozilla .thunderbird keyrings"
    " gcloud".split()
)
#: In CMakeFiles: CMake's Makefiles have an empty file put there for each compile.
_PROGRESS = "Progress"
#: By this object clang recognises a gcc whose C++ headers it takes: it has to be seen, not read.
GCC_MARK = "crtbegin.o"

#: First bytes of files that are no text to include although their name would allow it.
_BINARY_MAGIC = (b"\x7fELF", b"!<arch>\n", b"MZ\x90", b"\xcf\xfa\xed\xfe", b"\x1f\x8b\x08")

#: Directories that are far larger than any set of headers: only their own files are mirrored,
#: and a directory below them when a compile turns out to need it.
_BROAD_DIRECTORIES = frozenset(
    "/ /bin /boot /dev /etc /home /lib /lib64 /media /mnt /opt /proc /root /run /sbin /srv /sys"
    " /tmp /usr /usr/bin /usr/lib /usr/lib64 /usr/local /usr/local/lib /usr/sbin /usr/share"
    " /usr/src /var /var/lib /var/tmp /Users".split()
)


#: The same on Windows, below any drive, folded.
_BROAD_ON_DRIVES = frozenset(
    "PROGRAM FILES|PROGRAM FILES (X86)|PROGRAMDATA|USERS|WINDOWS|WINDOWS/SYSTEM32".split("|")
)
_DRIVE = re.compile(r"/(?:[A-Z]|UNC(?:/[^/]+){0,2})(?:/(?P<rest>.*))?\Z", re.DOTALL)


def handling(name: str) -> Handling:
    """By the file's name alone; case of the suffix counts (``.C`` is a source as ``.c`` is)."""
    if name.startswith(_IGNORED_PREFIXES) or name.endswith("~") or ".so." in name:
        return Handling.IGNORE
    if name == GCC_MARK:
        return Handling.WITHHOLD
    suffix = posixpath.splitext(name)[1]
    if suffix in _IGNORED_SUFFIXES:
        return Handling.IGNORE
    if suffix.lower() in _WITHHELD_SUFFIXES:
        return Handling.WITHHOLD
    return Handling.MIRROR


def is_closed(directory: str) -> bool:
    """Whether no include directive reaches the inside of a directory; its own name is mirrored."""
    above, _, name = directory.rpartition("/")
    return name in _CLOSED_DIRECTORIES or (
        name == _PROGRESS and posixpath.basename(above) == "CMakeFiles"
    )


def is_secret(path: str, home: str) -> bool:
    """Whether a path is where people keep what is nobody else's: keys, passwords, and what stands
    directly in the ``home`` and begins with a dot."""
    if not _SECRET_DIRECTORIES.isdisjoint(path.split("/")):
        return True
    above, _, name = path.rpartition("/")
    return bool(home) and above == home and name.startswith(".")


def is_unusual(operand: str) -> bool:
    """Whether an include operand names what a mirrored directory does not hold by itself."""
    *directories, name = operand.split("/")
    closed = _CLOSED_DIRECTORIES | {_PROGRESS}
    return handling(name) is Handling.IGNORE or not closed.isdisjoint(directories)


def is_pseudo_fs(path: str) -> bool:
    """Whether a path is in what the kernel makes up: never mirrored, whatever leads there."""
    if path == "/dev/shm" or path.startswith("/dev/shm/"):  # noqa: S108 - a place like any other
        return False
    return path.startswith(("/proc/", "/sys/", "/dev/")) or path in ("/proc", "/sys", "/dev")


def is_binary(head: bytes) -> bool:
    """Whether these first bytes are those of an executable, an archive or the like."""
    return head.startswith(_BINARY_MAGIC)


def is_broad(directory: str, home: str, *, windows: bool = WINDOWS) -> bool:
    """Whether a directory is too wide to mirror as a whole: the user's ``home`` or above, too."""
    if windows:
        directory, home = fold(directory), fold(home)
        found = _DRIVE.match(directory)
        if found and (not found["rest"] or found["rest"] in _BROAD_ON_DRIVES):
            return True
    if directory in _BROAD_DIRECTORIES:
        return True
    return bool(home) and f"{home}/".startswith(directory.rstrip("/") + "/")
