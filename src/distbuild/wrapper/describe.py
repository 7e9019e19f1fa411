"""Words and tables for people. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from distbuild.command.model import LocalReason

_MEANINGS: Mapping[LocalReason, str] = {
    LocalReason.NOT_A_COMPILER: "the command is no gcc, clang or cl that is found here",
    LocalReason.LINK: "linking is done on the dev box; compile with -c to distribute",
    LocalReason.PREPROCESS_ONLY: "-E writes preprocessed text, which is not worth the way",
    LocalReason.DEPENDENCIES_ONLY: "-M and -MM only list dependencies",
    LocalReason.INFORMATION: "the compiler is only asked about itself",
    LocalReason.STDIN: "the source comes from standard input",
    LocalReason.STDOUT: "an output goes to standard output",
    LocalReason.NO_SOURCE: "there is no source file in the command",
    LocalReason.SEVERAL_SOURCES: "one command with several sources",
    LocalReason.SOURCE_MISSING: "the source cannot be read; the compiler says so itself",
    LocalReason.OTHER_LANGUAGE: "the compiler is one for another language than C and C++",
    LocalReason.PROBE: "a configure script tries the compiler out, one small file at a time",
    LocalReason.SPECIAL_INPUT: "a file that is named is no regular one, or the compiler's alone",
    LocalReason.UNKNOWN_LANGUAGE: "the source's language is none that is distributed",
    LocalReason.PRECOMPILED_HEADER: "a precompiled header is made or would be used",
    LocalReason.MODULES: "modules read and write files that are not mirrored",
    LocalReason.NATIVE_TARGET: "the code is for this machine's own processor",
    LocalReason.DEBUG_DATABASE: "debug information goes into a database that compiles share",
    LocalReason.PROFILE_USE: "profile data is read from where only the compiler knows",
    LocalReason.RUNS_OTHER_CODE: "the compiler would load a plug-in or run another program",
    LocalReason.ASSEMBLER_INPUT: "the assembler reads or lacks a file that is not mirrored",
    LocalReason.OUTPUT_SPECIAL: "an output is no ordinary writable file in an existing directory",
    LocalReason.RESPONSE_FILE: "a response file is too large, nested too deeply, or no file",
    LocalReason.UNSUPPORTED_OPTION: "this option is not known to be safe to distribute",
    LocalReason.NAMES_A_FILE: "an option that is not known has a value that may name a file",
    LocalReason.OTHER_FILES: "the wrapper sees other files than the syncer (a container?)",
    LocalReason.FARM_FULL: "all workers were busy and a core of the dev box was idle",
    LocalReason.COMPILER_CRASHED: "the worker's compiler crashed; only the local one can tell why",
    LocalReason.HARD_LINKS: "two of its headers are one file, which clang includes once",
    LocalReason.UNPROVED_FAILURE: "it failed before it could tell what it had read",
    LocalReason.NAMES_ITS_PLACE: "the object tells by which paths it was compiled",
    LocalReason.OUTPUT_NOT_WRITTEN: "the outputs could not be written",
    LocalReason.NO_WORKER: "no worker asks for work; see dist_build.exe status",
    LocalReason.NO_TOOLCHAIN: "no worker has exactly this compiler; see dist_build.exe status",
    LocalReason.NO_NAMESPACE: "only a worker with bubblewrap gives the same bytes here",
    LocalReason.LEASES_LOST: "the workers that took the job did not finish it",
    LocalReason.INPUTS_CHANGED: "its files kept changing while it was compiled",
    LocalReason.INPUT_NOT_MIRRORED: "it reads a file that could not be mirrored",
    LocalReason.SYNCER_ERROR: "a fault in the syncer; see logs/syncer.log",
    LocalReason.SYNCER_STOPPING: "the syncer is being stopped",
}


def meaning(reason: str) -> str:
    """One sentence on a reason; "" for one that only a newer syncer knows."""
    try:
        return _MEANINGS[LocalReason(reason)]
    except ValueError:
        return ""


def size(count: int) -> str:
    """Bytes in the largest unit that keeps the number above one."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """The syncer's status as lines of a table."""
    jobs, mirror = status["jobs"], status["mirror"]
    names = ("queued", "running", "done", "failed", "cancelled", "retried")
    lines = [
        f"dist_build {status['version']}, up {status['uptime_s']:.0f} s",
        "jobs    " + "  ".join(f"{name} {jobs[name]}" for name in names),
    ]
    for reason, count in jobs["local"].items():
        lines.append(f"  local {count:6d}  {reason}: {meaning(reason)}")
    lines.append(
        f"mirror  generation {mirror['generation']}  {mirror['files']} files"
        f"  {size(mirror['bytes'])}  {len(mirror['roots'])} roots"
    )
    lines.extend(f"  polled  {root}" for root in mirror.get("polled", ()))
    return [*lines, "workers", *_worker_table(status["workers"])]


def _worker_table(workers: Mapping[str, Any]) -> list[str]:
    if not workers:
        return ['  none: "hosts" in config.json is empty and no worker has asked for work']
    rows = [("host", "state", "slots", "running", "done", "sandbox", "")]
    for host, worker in workers.items():
        rows.append(
            (
                host,
                str(worker.get("state", "")),
                str(worker.get("num_cores", "")),
                str(worker.get("running", "")),
                str(worker.get("done", "")),
                str((worker.get("sandbox") or {}).get("mode", "")),
                str(worker.get("error", "")),
            )
        )
    return ["  " + line for line in _aligned(rows)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
