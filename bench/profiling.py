"""``make profile``: the functions in which the syncer uses the processor under load.

A farm on loopback runs jobs whose compiler only sleeps, as in ``bench.dispatch``; meanwhile
``programs/sampled.py`` samples the syncer. Only processor time counts, never waiting.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common import LoadGenerator, Skipped, farm, interruptible, local_jobs, ours, with_path
from bench.fake import fake_compiler, sleeping_jobs
from bench.report import Cell, Table, as_text
from tests.support.cluster import SRC, wrapper_command

SAMPLED = Path(__file__).resolve().parent / "programs" / "sampled.py"
SLOTS = 16
SECONDS = 0.02
ROWS = 40


def measure(work: Path, jobs: int, rows: int) -> Table:
    """Run ``jobs`` commands on a farm; RuntimeError if a job is not compiled by the worker."""
    fake = fake_compiler(work / "fake")
    load = LoadGenerator(work)
    commands = sleeping_jobs(work / "jobs", jobs, SECONDS)
    samples = work / "samples.json"
    with farm(work, [{"num_cores": SLOTS, "sandbox": "plain"}], path_first=fake) as cluster:
        cluster.syncer.script = str(SAMPLED)
        program = SRC / "syncer.py"
        cluster.syncer.prefix += [f"SAMPLED_PROGRAM={program}", f"SAMPLED_OUT={samples}"]
        cluster.start()
        words = [command.behind(wrapper_command()) for command in commands]
        done = load.run(words, SLOTS, {**with_path(fake), **ours(cluster)})
        if done.failed or local_jobs(cluster):
            raise RuntimeError(f"not all was compiled by the worker\n{done.said}")
        cluster.syncer.stop()
    sampled = json.loads(samples.read_text(encoding="utf-8"))
    return as_table(sampled, jobs, rows)


def as_table(sampled: Mapping[str, Any], jobs: int, rows: int) -> Table:
    """The functions with the most own time first; ``sampled`` as ``sampled.py`` writes it.

    The time that could not be charged to a function is distributed over all, by their shares.
    """
    total_ms, charged_ms = sampled["total_ms"], sampled["charged_ms"]
    ordered = sorted(sampled["functions"].items(), key=lambda item: -item[1][0])[:rows]
    us_a_job = 1000 * total_ms / (charged_ms or 1) / jobs
    cells: list[Sequence[Cell]] = [
        [name, us_a_job * own, 100 * own / (charged_ms or 1), us_a_job * whole]
        for name, (own, whole) in ordered
    ]
    return Table(
        f"profile: {jobs:,} jobs, -j{SLOTS}",
        f"processor time of the syncer by function, start included; {total_ms / jobs:.2f} ms a job"
        " in all",
        ["function", "own us/job", "own %", "with calls us/job"],
        cells,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.profiling", description=__doc__)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=ROWS, help="functions to show")
    options = parser.parse_args()
    with interruptible(), tempfile.TemporaryDirectory(prefix="dist_build-profile-") as directory:
        try:
            print(as_text(measure(Path(directory), options.jobs, options.rows)))
        except (Skipped, RuntimeError, OSError) as error:
            print(f"profile: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
