"""Compares what two commands left behind, byte for byte: the local compiler defines truth."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster, Done, run_here, wait_until
from tests.support.tools import absent


def files_below(directory: Path) -> dict[str, bytes]:
    """Every regular file with its content, by relative path."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def left_by(run: Callable[[], Done], directory: Path) -> Done:
    """What a run printed and which files it wrote or changed in a directory, which is put back."""
    before = files_below(directory)
    done = run()
    after = files_below(directory)
    done.files = {name: data for name, data in after.items() if before.get(name) != data}
    for name in after:
        if name not in before:
            (directory / name).unlink()
        elif before[name] != after[name]:
            (directory / name).write_bytes(before[name])
    return done


def assert_same(
    cluster: Cluster, argv: Sequence[str], project: Path, *, cwd: Path | None = None, **env: str
) -> Done:
    """The command leaves in ``project`` through the wrapper what it leaves without it."""
    where = cwd or project
    if "/" not in argv[0] and not shutil.which(argv[0], path=env.get("PATH")):
        absent(f"{argv[0]} is not installed")
    local = left_by(lambda: run_here(argv, where, **env), project)
    ours = left_by(lambda: cluster.run(argv, where, DIST_BUILD_FALLBACK="0", **env), project)
    if b": no_namespace: " in ours.stderr and not shutil.which("bwrap"):
        absent("bwrap is not installed")
    assert ours == local, f"{argv}\n{_told(local)}\n{_told(ours)}\n{cluster.logs()}"
    return local


def outcomes(cluster: Cluster, argv: Sequence[str], project: Path, **env: str) -> tuple[Done, Done]:
    """What the local compiler leaves, and what the wrapper does."""
    local = left_by(lambda: run_here(argv, project, **env), project)
    return local, left_by(lambda: cluster.run(argv, project, **env), project)


def kept(cluster: Cluster) -> dict[str, Any]:
    """The object cache's status, once all results of earlier compiles are kept."""
    wait_until(lambda: cluster.syncer.status()["cache"]["waiting"] == 0, "all results are kept")
    return dict(cluster.syncer.status()["cache"])


def _told(done: Done) -> str:
    """A result in a few lines."""
    files = {name: len(content) for name, content in done.files.items()}
    return f"exit {done.exit_code}, {files}: {(done.stdout + done.stderr)[-500:]!r}"
