"""Builds by CMake and Ninja, with and without the wrapper, and what became of their compiles."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.support.cluster import Cluster, run_here, wrapper_command
from tests.support.objects import files_below

#: What CMake and its users do besides compiling: try the compiler out, scan, link.
BESIDE = ("probe", "information", "preprocess_only", "link")
#: What is compared of a build.
COMPARED = (".o", ".ddi", ".gcm", ".pcm", ".pch", ".gch")


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def outcomes(cluster: Cluster, run: Callable[[], object]) -> dict[str, int]:
    """How many compiles of what ``run`` does were distributed ("done"), and local by reason."""
    before = cluster.jobs()
    run()
    after = cluster.jobs()
    new = {n: c - before["local"].get(n, 0) for n, c in after["local"].items()}
    new["done"] = after["done"] - before["done"]
    return {name: count for name, count in new.items() if count}


def configure(cluster: Cluster, root: Path, compiler: str, *, wrapped: bool) -> None:
    words = ["cmake", "-G", "Ninja", "-S", ".", "-B", "build", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    words.append(f"-DCMAKE_CXX_COMPILER={compiler}")
    launcher = ";".join(wrapper_command()) if wrapped else ""
    words.append(f"-DCMAKE_CXX_COMPILER_LAUNCHER={launcher}")
    done = run_here(words, root, **cluster.environment())
    assert done.exit_code == 0, done


def built(cluster: Cluster, root: Path, compiler: str, *, wrapped: bool) -> dict[str, bytes]:
    """The files that the compiler and the scanner leave in a build from nothing."""
    shutil.rmtree(root / "build", ignore_errors=True)
    configure(cluster, root, compiler, wrapped=wrapped)
    return brought_up_to_date(cluster, root)


def brought_up_to_date(cluster: Cluster, root: Path) -> dict[str, bytes]:
    """The same files after a build of what is not up to date."""
    done = run_here(["ninja", "-C", "build", "-v"], root, **cluster.environment())
    assert done.exit_code == 0, done.stdout.decode() + cluster.logs()
    files = files_below(root / "build")
    return {n: data for n, data in files.items() if n.endswith(COMPARED)}
