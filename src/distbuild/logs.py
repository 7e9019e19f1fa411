"""Configures logging: a rotating file per process, and warnings to stderr. Chooses no messages."""

import contextlib
import faulthandler
import logging
import logging.handlers
import os
import signal
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from distbuild.protocol.errors import ConfigError

MAX_LOG_BYTES = 8 * 1024**2
KEPT_LOGS = 3

_FILE_FORMAT = "%(asctime)s %(levelname)s %(process)d %(threadName)s %(name)s: %(message)s"
_STDERR_FORMAT = "%(levelname)s: %(message)s"
#: They report every connection and every file event at debug level.
_CHATTY = ("urllib3", "watchdog", "werkzeug")


def set_up_logging(logs_dir: Path, name: str, *, verbose: bool = False) -> Path:
    """Send the root logger to ``logs_dir/name.log`` and warnings to stderr; returns the file.

    ``verbose`` is the user's ``-v``: everything goes to both. Raises ConfigError if the file cannot
    be written. Handlers of an earlier call are replaced.
    """
    path = logs_dir / f"{name}.log"
    try:
        logs_dir.mkdir(parents=True, exist_ok=True)
        in_file = _InFile(
            path, maxBytes=MAX_LOG_BYTES, backupCount=KEPT_LOGS, encoding="utf-8", errors="replace"
        )
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the log: {error.strerror}") from error
    in_file.setFormatter(logging.Formatter(_FILE_FORMAT))
    on_stderr = logging.StreamHandler(sys.stderr)
    on_stderr.setFormatter(logging.Formatter(f"{name}: {_STDERR_FORMAT}"))
    on_stderr.setLevel(logging.DEBUG if verbose else logging.WARNING)
    _replace_handlers(in_file, on_stderr, _StackDump(logs_dir / f"{name}.stacks"))
    logging.getLogger().setLevel(logging.DEBUG if verbose else logging.INFO)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return path


def announce(text: str) -> None:
    """Print and log one line that says that this process serves, and on which address."""
    line = " ".join(text.splitlines())
    logging.getLogger(__name__).info("%s", line)
    say(line, sys.stdout)


def say(line: str, stream: TextIO | None) -> None:
    """Print a line if possible; there may be no stream, or no reader."""
    if stream is not None:
        encoding = stream.encoding or "utf-8"
        with contextlib.suppress(OSError, ValueError):  # closed, or its reader has gone
            shown = line.encode(encoding, "replace").decode(encoding)
            print(shown, file=stream, flush=True)


class _InFile(logging.handlers.RotatingFileHandler):
    """A rotating log file that survives its own deletion and a full disk: its directory is created
    again, and a line that cannot be written is dropped without a traceback on stderr."""

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _StackDump(logging.NullHandler):
    """On SIGUSR1 the stack of every thread is appended to ``path``; this works in a deadlock too.

    A handler that logs nothing: it is replaced and closed with the others.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = -1
        if sys.platform != "win32":
            with contextlib.suppress(OSError):  # a full disk: no dump then
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._file = os.open(path, flags, 0o600)
                faulthandler.register(signal.SIGUSR1, self._file, all_threads=True)

    def close(self) -> None:
        if self._file >= 0 and sys.platform != "win32":
            faulthandler.unregister(signal.SIGUSR1)
            os.close(self._file)
            self._file = -1
        super().close()


def _replace_handlers(*handlers: logging.Handler) -> None:
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        with contextlib.suppress(OSError):  # its buffered lines cannot be written
            old.close()
    for new in handlers:
        root.addHandler(new)
