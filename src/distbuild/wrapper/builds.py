"""The subcommands builds, trace and top: what the last builds did, and what happens now."""

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from distbuild.history.builds import Outcome
from distbuild.history.views import slower, summary, trace_events
from distbuild.wrapper.describe import aligned, meaning, shown, size, status_lines
from distbuild.wrapper.syncer_client import USAGE, connect, decoded

Build = Mapping[str, Any]
#: Jobs that are shown of one build, and sources whose times changed between two.
MAX_SHOWN = 20
MAX_DIGITS = 15
_COLUMNS = ("build", "began", "wall", "jobs", *map(str, Outcome), "name")
#: How often ``top`` shows the present state (seconds).
REFRESH_S = 1.0
#: Control sequences of terminals (ECMA-48; the screens are xterm's).
_OTHER_SCREEN, _FIRST_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_TOP_LEFT, _TO_LINE_END, _TO_SCREEN_END = "\x1b[H", "\x1b[K", "\x1b[J"
_USAGE = "usage: dist_build.exe builds [show [N] | compare A B] [--json]"


def run(words: Sequence[str]) -> int:
    """``builds [show [N] | compare A B] [--json]``."""
    wants_json = "--json" in words
    words = [word for word in words if word != "--json"]
    match words:
        case []:
            found = decoded(connect().builds(), list)
            lines = list_lines(found)
        case ["show"] | ["show", _] if (number := _number(words[1:])) is not None:
            found = _build(number)
            found = {**found, **summary(found)}
            lines = show_lines(found)
        case ["compare", *numbers] if len(numbers) == 2 and all(map(_is_number, numbers)):
            found = [_build(int(number)) for number in numbers]
            lines = compare_lines(*found)
        case _:
            print(_USAGE, file=sys.stderr)
            return USAGE
    print(json.dumps(found, indent=1) if wants_json else "\n".join(lines))
    return 0


def trace(words: Sequence[str]) -> int:
    """``trace [N]``: prints a build in the Chrome trace format."""
    number = _number(words)
    if number is None:
        print("usage: dist_build.exe trace [N] > FILE.json", file=sys.stderr)
        return USAGE
    json.dump(trace_events(_build(number)), sys.stdout)
    print()
    return 0


def top(words: Sequence[str]) -> int:
    """``top``: shows the present build and the workers until it is interrupted; once if standard
    output is no terminal."""
    if words:
        print("usage: dist_build.exe top", file=sys.stderr)
        return USAGE
    if not sys.stdout.isatty():
        print("\n".join(_now()))
        return 0
    sys.stdout.write(_OTHER_SCREEN)
    try:
        while True:
            _draw(_now())
            time.sleep(REFRESH_S)
    except KeyboardInterrupt:
        return 0
    finally:
        sys.stdout.write(_FIRST_SCREEN)
        sys.stdout.flush()


def _now() -> list[str]:
    syncer = connect()
    status = decoded(syncer.status(), dict)
    return [*now_lines(decoded(syncer.builds(), list)), "", *status_lines(status)]


def _draw(lines: Sequence[str]) -> None:
    """The lines from the screen's top on, each and all of them cut to its size."""
    columns, rows = shutil.get_terminal_size()
    shown_lines = [line[: columns - 1] + _TO_LINE_END for line in lines[: rows - 1]]
    sys.stdout.write(_TOP_LEFT + "\n".join(shown_lines) + _TO_SCREEN_END)
    sys.stdout.flush()


def now_lines(found: Sequence[Build]) -> list[str]:
    """The builds that go on; else the latest."""
    going = [build for build in found if build["is_open"]] or list(found[:1])
    return list_lines(going)


def _number(words: Sequence[str]) -> int | None:
    """A build's number, 0 for the latest; None: the words are no number."""
    if not words:
        return 0
    return int(words[0]) if len(words) == 1 and _is_number(words[0]) else None


def _is_number(word: str) -> bool:
    return word.isdecimal() and len(word) <= MAX_DIGITS


def _build(number: int) -> dict[str, Any]:
    found: dict[str, Any] = decoded(connect().builds(number), dict)
    return found


def list_lines(found: Sequence[Build]) -> list[str]:
    """A line for each build, the latest first."""
    if not found:
        return ['no builds are recorded (none ever is with "history_bytes": 0 in config.json)']
    return aligned([_COLUMNS, *map(_row, found)])


def _row(build: Build) -> list[str]:
    counts = build["outcomes"]
    wall = f"{build['wall_s']:.1f} s" + (", goes on" if build["is_open"] else "")
    return [
        str(build["number"]),
        _when(build),
        wall,
        str(build["jobs"]),
        *(str(counts.get(outcome, 0)) for outcome in Outcome),
        shown(build["name"]),
    ]


def _when(build: Build) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(build["began"]))


def show_lines(build: Build) -> list[str]:
    """One build with its ``summary``."""
    jobs, counts = build["jobs_of_it"], build["outcomes"]
    told = ", ".join(f"{name} {counts[name]}" for name in Outcome if counts.get(name))
    lines = [
        f"build {build['number']}{' ' + shown(build['name']) if build['name'] else ''},"
        f" {_when(build)}, {build['wall_s']:.1f} s{', goes on' if build['is_open'] else ''}",
        f"  {build['jobs']} {'command' if build['jobs'] == 1 else 'commands'}: {told}",
        f"  on workers {build['ran_s']:.1f} s of compiling, {build['parallelism']:.1f} at a time,"
        f" at most {build['most_at_once']} of {build['slots']} slots",
    ]
    if build["cpu_s"]:
        most = build["most_memory_bytes"]
        lines.append(
            f"  compilers used {build['cpu_s']:.1f} s of processor time"
            + (f", the largest {size(most)} of memory" if most else "")
        )
    if build["limit"]:
        lines.append(f"  limited by {shown(build['limit'])}")
    for reason, count in sorted(build["reasons"].items(), key=lambda item: -item[1]):
        lines.append(f"  local {count}  {shown(reason)}: {meaning(reason)}")
    failed = [job for job in jobs if job["outcome"] == Outcome.FAILED]
    lines += [
        f"  failed, exit code {job['exit_code']}: {shown(job['source'])}"
        for job in failed[:MAX_SHOWN]
    ]
    return lines + _slowest(jobs)


def _slowest(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    slowest = sorted(jobs, key=lambda job: -job["ran_s"])[:MAX_SHOWN]
    rows = [
        [
            f"{job['ran_s']:.2f} s",
            _usual(job),
            f"{job['cpu_s']:.2f} s",
            size(job["memory_bytes"]) if job["memory_bytes"] else "",
            shown(job["worker"]),
            shown(job["source"]),
        ]
        for job in slowest
        if job["ran_s"]
    ]
    if not rows:
        return []
    table = aligned([["ran", "usually", "CPU", "memory", "worker", "the slowest"], *rows])
    return ["", *("  " + line for line in table)]


def _usual(job: Mapping[str, Any]) -> str:
    return f"{job['usual_s']:.2f} s" if "usual_s" in job else ""


def compare_lines(before: Build, now: Build) -> list[str]:
    """Two builds beside each other, and the sources whose times differ most."""
    rows = [
        ["", f"build {before['number']}", f"build {now['number']}"],
        ["began", _when(before), _when(now)],
        ["wall", f"{before['wall_s']:.1f} s", f"{now['wall_s']:.1f} s"],
        ["commands", str(before["jobs"]), str(now["jobs"])],
    ]
    for outcome in Outcome:
        counts = [build["outcomes"].get(outcome, 0) for build in (before, now)]
        if any(counts):
            rows.append([outcome, *map(str, counts)])
    lines = aligned(rows)
    changed = slower(before["jobs_of_it"], now["jobs_of_it"])[:MAX_SHOWN]
    if changed:
        table = [
            [f"{then:.2f} s", f"{after:.2f} s", f"{after - then:+.2f} s", shown(source)]
            for source, then, after in changed
        ]
        lines += ["", *aligned([["before", "now", "change", "source"], *table])]
    return lines
