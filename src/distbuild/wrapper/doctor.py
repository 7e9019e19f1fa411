"""The subcommand ``doctor``: checks the set-up from this process to the workers, advises on faults.

The steps run in order; the first failure ends the diagnosis.
"""

import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from distbuild.config import find_home, load_config
from distbuild.credentials import WARN_BEFORE, load_credentials
from distbuild.protocol.errors import DistBuildError, InfrastructureError
from distbuild.wrapper.describe import ago, part, shown, size, versions
from distbuild.wrapper.syncer_client import USAGE, connect

OK, WARN, FAIL = "ok", "warn", "FAIL"
_OTHER_CERTS = (
    "have it join again (dist_build.exe setup --invite), or copy certs/worker from here to it and"
    " restart daemon.py"
)
#: Advice on a failed connection to a worker, by a part of the syncer's error message.
_UNREACHABLE = (
    ("connection refused", "nothing listens there: start daemon.py on it, or correct its port"),
    ("timed out", "is the machine up, and its port open in the firewall?"),
    ("not known", 'there is no such name: correct "hosts" in config.json'),
    ("certificate", _OTHER_CERTS),
    ("401", _OTHER_CERTS),
)
_MAX_NAMED = 10
_LOOK = "look at logs/daemon.log there"


class Finding(msgspec.Struct, frozen=True):
    """One line of the diagnosis; ``level`` is OK, WARN or FAIL."""

    level: str
    text: str


def findings(
    workers: Mapping[str, Mapping[str, Any]], compilers: Sequence[Mapping[str, str]]
) -> Iterator[Finding]:
    """A finding for each worker. Faults are failures only where no worker can be used."""
    if not workers:
        yield Finding(WARN, "none: dist_build.exe setup --invite prints how to add one")
        return
    faults = {host: next(_faults(w, compilers), "") for host, w in workers.items()}
    is_used = {host: _compiles(w) or not faults[host] for host, w in workers.items()}
    level = WARN if any(is_used.values()) else FAIL
    for host, worker in workers.items():
        if fault := faults[host]:
            but = "it compiled a test, but " if _compiles(worker) else ""
            yield Finding(level, f"{host}: {but}{fault}")
        else:
            yield Finding(OK, f"{host}: {_state(worker, compilers)}")
        if warning := _expiry(worker):
            yield Finding(WARN, f"{host}: {warning}")


def _expiry(worker: Mapping[str, Any]) -> str:
    """One line if the worker's certificates expire soon, by its own account; "": they do not."""
    try:
        expires = datetime.fromisoformat(worker["certificates_expire"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        return ""
    left = expires - datetime.now(UTC)
    if left >= WARN_BEFORE:
        return ""
    return f"its certificates expire on {expires:%Y-%m-%d}, in {left.days} days; {_OTHER_CERTS}"


def _compiles(worker: Mapping[str, Any]) -> bool:
    return (worker.get("check") or {}).get("outcome") == "compiled"


def _faults(worker: Mapping[str, Any], compilers: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """The faults that prevent this worker's use, each with its remedy, the first cause first."""
    state, error = worker["state"], shown(worker["error"])
    if state == "down":
        yield f"down: {error}; {_remedy(error)}"
    if state == "not answering":
        yield f"it accepts a connection and does not answer ({_heard(worker)}); {_RESTART}"
    if state == "full" or " 507 " in error:
        yield _full(worker, error)
    if state == "failing":
        why = shown(worker.get("failing_why"))
        yield f"its last jobs failed ({why}), so it gets none for a while; {_LOOK}"
    elif state != "up":
        yield (
            f"it answers, but does not ask this syncer for work ({_heard(worker)}); {_LOOK}:"
            ' "syncer" in its config.json has to lead here, and this port must be open'
        )
    if compilers and not worker["compilers"]:
        yield _another_compiler(worker, compilers)
    check = worker.get("check") or {}
    if check.get("outcome") == "silent" and not _why_untested(worker):
        said = f"it gave no result of a test compile within {check['seconds']:.0f} s"
        yield f"{said} ({_heard(worker)}); {_RESTART}"
    if check.get("outcome") in ("failed", "refused"):
        yield f"a test compile failed: {shown(check['detail'])}; {_LOOK}"
    if error:
        yield f"it takes no changes of headers: {error}; {_LOOK}"


_RESTART = "is the network cut, or its process stopped? Restart daemon.py there"


def _remedy(error: str) -> str:
    return next((remedy for known, remedy in _UNREACHABLE if known in error), _LOOK)


def _full(worker: Mapping[str, Any], error: str) -> str:
    free = part(worker, "store").get("free_bytes")
    left = f"{size(free)} are free" if isinstance(free, int) else error
    return (
        f"its disk is full ({left}), so it takes no jobs; make room there, or set a smaller"
        ' "store_bytes" in its config.json and restart daemon.py'
    )


def _another_compiler(worker: Mapping[str, Any], compilers: Sequence[Mapping[str, str]]) -> str:
    listed = worker.get("toolchains")
    has = [t for t in listed if isinstance(t, dict)] if isinstance(listed, list) else []
    theirs = sorted({shown(toolchain.get("version")) for toolchain in has})[:_MAX_NAMED]
    mine = sorted({compiler["version"] for compiler in compilers})
    differs = " (of another build)" if set(mine) & set(theirs) else ""
    return (
        f"it has none of your compilers: {', '.join(mine)}; it has"
        f" {', '.join(theirs) or 'none at all'}{differs}. Install the same packages on both"
    )


def _why_untested(worker: Mapping[str, Any]) -> str:
    """Why a healthy worker may return no test result soon; "": there is no such reason."""
    if worker.get("left_files"):
        return f"{worker['left_files']} headers are still being sent to it"
    cores, running = worker.get("num_cores"), worker.get("running")
    if isinstance(cores, int) and isinstance(running, int) and 0 < cores <= running:
        return f"all {cores} slots compile"
    return ""


def _state(worker: Mapping[str, Any], compilers: Sequence[Mapping[str, str]]) -> str:
    """The state of a usable worker."""
    check = worker.get("check") or {}
    if _compiles(worker):
        said = f"compiled a test in {check['seconds']:.2f} s"
    else:
        why = _why_untested(worker) or "neither gcc nor clang is on the syncer's PATH"
        said = f"not tested, {why}"
    parts = [said]
    if "num_cores" in worker:
        parts.append(f"{shown(worker['num_cores'])} slots")
    if worker["compilers"]:
        parts.append("has " + versions(worker["compilers"], compilers))
        lacking = [c["path"] for c in compilers if c["path"] not in worker["compilers"]]
        if lacking:
            parts.append("lacks " + versions(lacking, compilers))
    free = part(worker, "store").get("free_bytes")
    if isinstance(free, int):
        parts.append(f"{size(free)} free")
    return ", ".join(parts)


def _heard(worker: Mapping[str, Any]) -> str:
    return (
        f"last answer {ago(worker.get('answered_s'))}, last asked for work {ago(worker['asked_s'])}"
    )


_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
#: A large project with the system's own headers has some 20,000 directories.
_FEW_WATCHES = 65536


def run(words: Sequence[str]) -> int:
    """``doctor``: 0 when everything is in order."""
    if words:
        print("usage: dist_build.exe doctor", file=sys.stderr)
        return USAGE
    asked = _SyncerReport()
    skipped = _NOT_ON_WINDOWS if sys.platform == "win32" else _ONLY_ON_WINDOWS
    for topic, check in _CHECKS:
        if topic in skipped:
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
    """The syncer's report on its workers, requested once."""

    @functools.cached_property
    def answer(self) -> dict[str, Any]:
        """Raises InfrastructureError."""
        answer = json.loads(connect().check())
        if not isinstance(answer, dict):
            raise InfrastructureError("the syncer's answer is no JSON object")
        return answer


def _system(_: _SyncerReport) -> Iterator[Finding]:
    yield Finding(
        WARN,
        "Windows is experimental: no Microsoft compiler was ever run with dist_build;"
        " compare the objects of some compiles with the local compiler's",
    )


def _config(_: _SyncerReport) -> Iterator[Finding]:
    home = find_home()
    load_config(home)
    clone = " (the home is a clone of dist_build)" if home.is_clone else ""
    yield Finding(OK, f"{home.config_path}{clone}")


def _certificates(_: _SyncerReport) -> Iterator[Finding]:
    home = find_home()
    warning = load_credentials(home.certs, "dev").warning()
    yield Finding(WARN, warning) if warning else Finding(OK, str(home.certs / "dev"))


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


#: Checks of limits that Windows does not have.
_NOT_ON_WINDOWS = frozenset({"change notification"})
_ONLY_ON_WINDOWS = frozenset({"system"})

_CHECKS: tuple[tuple[str, Callable[[_SyncerReport], Iterator[Finding]]], ...] = (
    ("system", _system),
    ("configuration", _config),
    ("certificates", _certificates),
    ("change notification", _watches),
    ("syncer", _syncer),
    ("workers", _workers),
)
