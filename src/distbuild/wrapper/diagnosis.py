"""What is wrong with each worker, and what to do about it. Pure: of what the syncer tells of them.

The first thing that keeps a worker from being used is said, and not what follows from it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from distbuild.wrapper.describe import ago, part, shown, size, versions

OK, WARN, FAIL = "ok", "warn", "FAIL"
#: What a connection's failure means, by what the syncer says of it.
_UNREACHABLE = (
    ("connection refused", "nothing listens there: start daemon.py on it, or correct its port"),
    ("timed out", "is the machine up, and its port open in the firewall?"),
    ("not known", 'there is no such name: correct "hosts" in config.json'),
    ("certificate", "copy certs/worker from here to it, and restart daemon.py"),
    ("401", "copy certs/worker from here to it, and restart daemon.py"),
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
    """A line for each worker. Faults are failures only where no worker compiles."""
    if not workers:
        yield Finding(WARN, 'none: name them in "hosts" of config.json')
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


def _compiles(worker: Mapping[str, Any]) -> bool:
    return (worker.get("check") or {}).get("outcome") == "compiled"


def _faults(worker: Mapping[str, Any], compilers: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """What keeps this worker from being used, each with its remedy, the first cause first."""
    state, error = worker["state"], shown(worker["error"])
    if state == "down":
        yield f"down: {error}; {_remedy(error)}"
    if state == "not answering":
        yield f"it accepts a connection and does not answer ({_heard(worker)}); {_RESTART}"
    if state == "full" or " 507 " in error:
        yield _full(worker, error)
    if state != "up":
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
    told = [t for t in listed if isinstance(t, dict)] if isinstance(listed, list) else []
    theirs = sorted({shown(compiler.get("version")) for compiler in told})[:_MAX_NAMED]
    mine = sorted({compiler["version"] for compiler in compilers})
    differs = " (of another build)" if set(mine) & set(theirs) else ""
    return (
        f"it has none of your compilers: {', '.join(mine)}; it has"
        f" {', '.join(theirs) or 'none at all'}{differs}. Install the same packages on both"
    )


def _why_untested(worker: Mapping[str, Any]) -> str:
    """Why a worker that is well may give no result of a test soon; "": there is no such reason."""
    if worker.get("left_files"):
        return f"{worker['left_files']} headers are still being sent to it"
    cores, running = worker.get("num_cores"), worker.get("running")
    if isinstance(cores, int) and isinstance(running, int) and 0 < cores <= running:
        return f"all {cores} slots compile"
    return ""


def _state(worker: Mapping[str, Any], compilers: Sequence[Mapping[str, str]]) -> str:
    """What a worker that can be used is like."""
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
