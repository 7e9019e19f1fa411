"""Checks the set-up step by step, from this process outwards, and advises on each fault."""

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distbuild.config import find_home, load_config
from distbuild.credentials import load_credentials
from distbuild.protocol.errors import DistBuildError, InfrastructureError
from distbuild.wrapper.diagnosis import FAIL, OK, WARN, Finding, findings
from distbuild.wrapper.main import USAGE, connect

_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
#: A large project with the system's own headers has some 20,000 directories.
_FEW_WATCHES = 65536


def run(words: Sequence[str]) -> int:
    """``doctor``: 0 when everything is in order."""
    if words:
        print("usage: dist_build.exe doctor", file=sys.stderr)
        return USAGE
    asked = _SyncerReport()
    for topic, check in _CHECKS:
        if sys.platform == "win32" and topic in _NOT_ON_WINDOWS:
            continue
        has_failed = False
        try:
            for finding in check(asked):
                print(f"{finding.level:5} {topic}: {finding.text}")
                has_failed |= finding.level == FAIL
        except DistBuildError as error:
            print(f"{FAIL:5} {topic}: {error}")
            has_failed = True
        if has_failed:
            return 1
    return 0


class _SyncerReport:
    """What the syncer said when it was asked to check its workers; it is asked once."""

    @functools.cached_property
    def answer(self) -> dict[str, Any]:
        """Raises InfrastructureError."""
        answer = json.loads(connect().check())
        if not isinstance(answer, dict):
            raise InfrastructureError("the syncer's answer is no JSON object")
        return answer


def _config(_: _SyncerReport) -> Iterator[Finding]:
    home = find_home()
    load_config(home)
    clone = " (the home is a clone of dist_build)" if home.is_clone else ""
    yield Finding(OK, f"{home.config_path}{clone}")


def _certificates(_: _SyncerReport) -> Iterator[Finding]:
    home = find_home()
    load_credentials(home.certs, "dev")
    yield Finding(OK, str(home.certs / "dev"))


def _watches(_: _SyncerReport) -> Iterator[Finding]:
    try:
        allowed = int(_WATCHES.read_text(encoding="ascii"))
    except (OSError, ValueError):
        yield Finding(WARN, "this system has no inotify: directories are listed for each job")
        return
    if allowed < _FEW_WATCHES:
        yield Finding(
            WARN,
            f"only {allowed} directories can be watched; for large projects:"
            " sudo sysctl fs.inotify.max_user_watches=524288",
        )
    else:
        yield Finding(OK, f"up to {allowed} directories can be watched")


def _syncer(asked: _SyncerReport) -> Iterator[Finding]:
    answer = asked.answer
    yield Finding(OK, f"version {answer['version']}, up {answer['uptime_s']:.0f} s")


def _workers(asked: _SyncerReport) -> Iterator[Finding]:
    yield from findings(asked.answer["workers"], asked.answer["compilers"])


#: Windows has no such limit.
_NOT_ON_WINDOWS = frozenset({"change notification"})

_CHECKS: tuple[tuple[str, Callable[[_SyncerReport], Iterator[Finding]]], ...] = (
    ("configuration", _config),
    ("certificates", _certificates),
    ("change notification", _watches),
    ("syncer", _syncer),
    ("workers", _workers),
)
