"""Checks the set-up step by step, from this process outwards, and advises on each fault."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distbuild.config import find_home, load_config
from distbuild.protocol import messages
from distbuild.protocol.errors import DistBuildError, InfrastructureError
from distbuild.tls import load_credentials
from distbuild.wrapper.main import USAGE, connect

_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
#: A large project with the system's own headers has some 20,000 directories.
_FEW_WATCHES = 65536


def run(words: Sequence[str]) -> int:
    """``doctor``: 0 when everything is in order."""
    if words:
        print("usage: dist_build.exe doctor", file=sys.stderr)
        return USAGE
    healthy = True
    for name, check in _CHECKS:
        if sys.platform == "win32" and name in _NOT_ON_WINDOWS:
            continue
        try:
            for said in check():
                print(f"ok    {name}: {said}")
        except _Advice as advice:
            print(f"warn  {name}: {advice}")
        except DistBuildError as error:
            healthy = False
            print(f"FAIL  {name}: {error}")
            break
    return 0 if healthy else 1


class _Advice(Exception):
    """Something that works but could be better."""


def _config() -> Iterator[str]:
    home = find_home()
    load_config(home)
    yield str(home.config_path) + (" (the home is a clone of dist_build)" if home.is_clone else "")


def _certificates() -> Iterator[str]:
    home = find_home()
    load_credentials(home.certs, "dev")
    yield str(home.certs / "dev")


def _watches() -> Iterator[str]:
    try:
        allowed = int(_WATCHES.read_text(encoding="ascii"))
    except (OSError, ValueError):
        raise _Advice("this system has no inotify: directories are listed for each job") from None
    if allowed < _FEW_WATCHES:
        raise _Advice(
            f"only {allowed} directories can be watched; for large projects:"
            " sudo sysctl fs.inotify.max_user_watches=524288"
        )
    yield f"up to {allowed} directories can be watched"


def _syncer() -> Iterator[str]:
    status = _status()
    # Everybody may ask for the status: this shows whether our token is the right one.
    connect().explain(messages.SubmitRequest([b"true"], b"/", {}))
    yield f"version {status['version']}, up {status['uptime_s']:.0f} s"


def _workers() -> Iterator[str]:
    workers = _status()["workers"]
    if not workers:
        raise _Advice('none: name them in "hosts" of config.json')
    down = [f"{host} ({w['error'] or w['state']})" for host, w in workers.items() if not _up(w)]
    if len(down) == len(workers):
        raise InfrastructureError("none is usable: " + "; ".join(down))
    for host, worker in workers.items():
        if _up(worker):
            slots = f", {worker['num_cores']} slots" if "num_cores" in worker else ""
            yield f"{host}{slots}"
    if down:
        raise _Advice("not usable: " + "; ".join(down))


def _up(worker: dict[str, Any]) -> bool:
    return bool(worker["state"] == "up")


def _status() -> dict[str, Any]:
    status: dict[str, Any] = json.loads(connect().status())
    return status


#: Windows has no such limit.
_NOT_ON_WINDOWS = frozenset({"change notification"})

_CHECKS: tuple[tuple[str, Callable[[], Iterator[str]]], ...] = (
    ("configuration", _config),
    ("certificates", _certificates),
    ("change notification", _watches),
    ("syncer", _syncer),
    ("workers", _workers),
)
