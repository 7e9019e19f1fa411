"""The demonstration: a syncer and two workers on this machine compile a small project.

Makes throwaway certificates and homes in a temporary directory, builds a C and C++ project through
``dist_build.exe`` three times, eight files at a time, the last time from the object cache. Compares
every file with the local compiler's, shows the times and the status, and stops everything again.
"""

import concurrent.futures
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.cluster import Cluster, Done, run_here, wrapper_command  # noqa: E402

Run = Callable[[Sequence[str], Path], Done]
Files = dict[str, bytes]

UNITS = 24
JOBS = 8
CACHE_BYTES = 100_000_000


def say(text: str) -> None:
    print(f"demo: {text}", flush=True)


def write_project(project: Path) -> list[list[str]]:
    """A project with its own headers, in C and C++; returns the compile commands."""
    include, source, build = project / "include" / "shapes", project / "src", project / "build"
    for directory in (include, source, build):
        directory.mkdir(parents=True)
    (include / "config.h").write_text("#pragma once\n#define SIDES 4\n#define NAME __FILE__\n")
    (include / "area.h").write_text(
        '#pragma once\n#include "config.h"\n'
        "static inline double area(double side) { return side * side * SIDES / 4; }\n"
    )
    (include / "list.hpp").write_text(
        "#pragma once\n#include <algorithm>\n#include <string>\n#include <vector>\n"
        '#include "config.h"\n'
        "template <class T> T largest(std::vector<T> v) {\n"
        "  return v.empty() ? T{} : *std::max_element(v.begin(), v.end());\n}\n"
    )
    commands = []
    for n in range(UNITS):
        cxx = n % 3 == 0 and shutil.which("g++") is not None
        unit = f"unit{n:02d}" + (".cpp" if cxx else ".c")
        (source / unit).write_text(_cxx_unit(n) if cxx else _c_unit(n))
        compiler = "g++" if cxx else "gcc"
        options = ["-O2", "-g", "-Wall", "-Wextra", "-Iinclude", "-MD"]
        commands.append([compiler, *options, "-c", f"src/{unit}", "-o", f"build/{unit}.o"])
    return commands


def _c_unit(n: int) -> str:
    return (
        "#include <math.h>\n#include <stdio.h>\n#include <shapes/area.h>\n"
        f'void show{n}(double side) {{ printf("%s %f\\n", NAME, sqrt(area(side) + {n})); }}\n'
    )


def _cxx_unit(n: int) -> str:
    return (
        "#include <shapes/list.hpp>\n"
        f"std::string name{n}() {{ return largest<std::string>({{NAME, std::to_string({n})}}); }}\n"
    )


def build(run: Run, commands: Sequence[Sequence[str]], project: Path) -> tuple[float, Files]:
    """All commands into an empty directory: seconds, and what they wrote. Ends at a failure."""
    shutil.rmtree(project / "build", ignore_errors=True)
    (project / "build").mkdir()
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for done in pool.map(lambda argv: run(argv, project), commands):
            if done.exit_code != 0:
                sys.exit(done.stderr.decode(errors="replace"))
    seconds = time.monotonic() - started
    return seconds, {path.name: path.read_bytes() for path in (project / "build").iterdir()}


def demonstrate(directory: Path) -> int:
    certs = directory / "certs"
    script = ROOT / "src" / "certs" / "gen_self_signed_certs.sh"
    subprocess.run(["sh", script, certs], check=True, stdout=subprocess.DEVNULL)
    say("certificates and tokens made; starting a syncer and two workers on loopback")
    cluster = Cluster(directory / "homes", certs, dev={"cache_bytes": CACHE_BYTES})
    try:
        cluster.start()
        return compile_and_compare(cluster, directory / "project")
    finally:
        cluster.stop()
        say("syncer and workers stopped")


def compile_and_compare(cluster: Cluster, project: Path) -> int:
    commands = write_project(project)
    say(f"compiling {len(commands)} files with -j{JOBS} through {wrapper_command()[-1]}")
    first, second, cached = (
        functools.partial(cluster.run, DIST_BUILD_BUILD=name, DIST_BUILD_CACHE=cache)
        for name, cache in (("first", "1"), ("second", "0"), ("from the cache", "1"))
    )
    first_s, ours = build(first, commands, project)
    say(f"first build {first_s:.1f} s (headers are mirrored); once more, then the same locally")
    again_s, again = build(second, commands, project)
    local_s, truth = build(run_here, commands, project)
    cached_s, found = build(cached, commands, project)
    say(f"second build {again_s:.1f} s, local compiler alone {local_s:.1f} s")
    say(f"third build, from the object cache, {cached_s:.1f} s")
    say("both workers are this machine, so only the cache gains something here")
    for daemon in cluster.daemons:
        say(f"{daemon.name} on port {daemon.port} compiled {daemon.status()['done']} files")
    local = cluster.jobs()["local"]
    say(f"compiled locally: {sum(local.values())}" + (f" {local}" if local else ""))
    made = (ours, again, found)
    wrong = [n for n in truth.keys() | ours.keys() if any(f.get(n) != truth.get(n) for f in made)]
    say(f"{len(ours)} files (.o and .d) against the local compiler's: {len(wrong)} differ")
    for shown in ("status", "builds"):
        print(cluster.run([shown], project).stdout.decode(), flush=True)
    remote = sum(daemon.status()["done"] for daemon in cluster.daemons)
    hits = cluster.syncer.status()["cache"]["hits"]
    if wrong or local or (remote, hits) != (2 * len(commands), len(commands)):
        print(cluster.logs(), file=sys.stderr)
        say("FAILED")
        return 1
    say("all equal to the local compile")
    return 0


def missing() -> str:
    """What the demonstration needs and this machine lacks; "" if it has all."""
    if not shutil.which("gcc"):
        return "gcc is not installed; run: sudo apt-get install gcc libc6-dev"
    done = subprocess.run(
        ["gcc", "-E", "-include", "math.h", "-x", "c", os.devnull],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        return "gcc finds no <math.h>; run: sudo apt-get install libc6-dev"
    return ""


def main() -> int:
    if lacking := missing():
        say(lacking)
        return 1
    with tempfile.TemporaryDirectory(prefix="dist_build demo ") as directory:
        return demonstrate(Path(directory))


if __name__ == "__main__":
    sys.exit(main())
