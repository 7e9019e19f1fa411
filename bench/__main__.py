"""``make bench``: what a compile costs with dist_build and with the other tools installed here.

Tables go to stdout, progress to stderr. Whatever is started is stopped and every temporary file
removed at the end, also after an interrupt.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench import (
    cache,
    confinement,
    cost,
    cut_off,
    dispatch,
    first_sync,
    history,
    latency,
    machine,
    memory,
    sandboxes,
    wire,
)
from bench.common import Options, Skipped, interruptible
from bench.report import Result, as_image, as_json, as_markdown, as_text

BENCHMARKS: Mapping[str, Callable[[Options], Result]] = {
    "cost": cost.run,
    "dispatch": dispatch.run,
    "latency": latency.run,
    "first_sync": first_sync.run,
    "wire": wire.run,
    "memory": memory.run,
    "sandboxes": sandboxes.run,
    "confinement": confinement.run,
    "cut_off": cut_off.run,
    "cache": cache.run,
    "history": history.run,
}
INTERRUPTED = 130


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; exits with 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument("--rounds", type=int, help="default: 3, in a quick run 1")
    parser.add_argument("--sandbox", choices=["plain", "auto"], default="plain")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the curves into DIR")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}, expected {', '.join(BENCHMARKS)}")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    return arguments


def run_all(names: Sequence[str], options: Options) -> tuple[dict[str, Result], list[str]]:
    """Results by name, and for what could not be measured a line that says why."""
    results: dict[str, Result] = {}
    problems = []
    for name in names:
        print(f"bench: {name}", file=sys.stderr, flush=True)
        work = options.work / name
        work.mkdir()
        try:
            results[name] = BENCHMARKS[name](replace(options, work=work))
        except (Skipped, AssertionError, RuntimeError, OSError) as error:
            problems.append(f"{name}: {error}")
        except subprocess.SubprocessError as error:
            problems.append(f"{name}: {error}")
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return results, problems


def show(results: Mapping[str, Result], markdown: bool, drawn: bool) -> None:
    facts = machine.describe()
    if markdown:
        print("".join(f"- {name}: {value}\n" for name, value in facts.items()))
    else:
        print("".join(f"{name:10} {value}\n" for name, value in facts.items()))
    for result in results.values():
        for table in result.tables:
            print(as_markdown(table) if markdown else as_text(table), flush=True)
        for plot in result.plots if markdown and drawn else ():
            print(as_image(plot), flush=True)


def forget_settings() -> None:
    """The developer's own settings of these tools are none of the measurement's."""
    for name in list(os.environ):
        if name.startswith(("DIST_BUILD_", "DISTCC_", "CCACHE_", "INCLUDE_SERVER_")):
            del os.environ[name]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    forget_settings()
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    with interruptible(), tempfile.TemporaryDirectory(prefix="dist_build-bench-") as directory:
        options = Options(Path(directory), arguments.quick, rounds, arguments.sandbox)
        results, problems = run_all(arguments.names or list(BENCHMARKS), options)
    show(results, arguments.markdown, arguments.plots is not None)
    if arguments.json:
        document = as_json(machine.describe(), results)
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.plots:
        from bench import plots  # matplotlib is slow to import, and only needed here

        for result in results.values():
            for plot in result.plots:
                print(f"bench: {plots.draw(plot, arguments.plots)}", file=sys.stderr)
    for problem in problems:
        print(f"bench: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
