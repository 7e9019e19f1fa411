"""A build of lua with two daemons in which one thing breaks: it ends with the local objects.

One row a fault. A seed chooses the moment and what is hit; FAULT_SEEDS="3 4 5" chooses the seeds.
Afterwards nothing may be left: no process, no file of a job, no further file in the project.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from bench.corpora import PROJECTS, Recipe, select
from tests.support.cluster import Cluster, Done, Process, run_here, wait_until
from tests.support.cut_network import Cable
from tests.support.objects import files_below
from tests.support.projects import fetch_or_skip
from tests.support.tools import need

pytestmark = [pytest.mark.compiler, pytest.mark.timeout(600)]
SEEDS = [int(word) for word in os.environ.get("FAULT_SEEDS", "1").split()]
JOBS = 8
LUA: Recipe = PROJECTS["lua"]
#: What a wrapper may say: the build goes on by the local compiler.
SAID = re.compile(r"dist_build: compiled locally: [^\n]*\n")


@dataclass
class Build:
    """A farm and a project; ``chance`` decides what is hit."""

    farm: Cluster
    project: Path
    chance: random.Random
    cables: list[Cable] = field(default_factory=list)
    #: Ends the fault after the build.
    mends: list[Callable[[], object]] = field(default_factory=list)

    def sources(self) -> list[str]:
        return select(self.project, LUA.globs)

    def daemon(self) -> Process:
        return self.chance.choice(self.farm.daemons)

    def some_files(self, *directories: Path) -> list[Path]:
        """Half of the regular files below these directories."""
        found = [
            path
            for directory in directories
            for path in directory.rglob("*")
            if path.is_file() and not path.is_symlink()
        ]
        return self.chance.sample(sorted(found), len(found) // 2)


def objects(source: str) -> tuple[str, str]:
    stem = source.rpartition("/")[2].removesuffix(".c")
    return f"{stem}.o", f"{stem}.d"


def argv(source: str) -> list[str]:
    out, deps = objects(source)
    return [LUA.compiler, *LUA.options, "-MD", "-MF", deps, "-c", source, "-o", out]


# --- the faults ---------------------------------------------------------------------------------


def kill(process: Process) -> None:
    process.kill()


def freeze(build: Build, process: Process) -> None:
    process.signal(signal.SIGSTOP)
    build.mends.append(lambda: process.signal(signal.SIGCONT))


def restart(process: Process, between: Callable[[], object] = lambda: None) -> None:
    process.kill()
    between()
    process.start()


def damage(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    with contextlib.suppress(OSError):  # it has just gone
        path.chmod(0o600)
        content = bytearray(path.read_bytes() or b"\0")
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def kill_a_daemon(build: Build) -> None:
    kill(build.daemon())


def kill_all_daemons(build: Build) -> None:
    for daemon in build.farm.daemons:
        kill(daemon)


def freeze_a_daemon(build: Build) -> None:
    freeze(build, build.daemon())


def freeze_all_daemons(build: Build) -> None:
    for daemon in build.farm.daemons:
        freeze(build, daemon)


def restart_a_daemon(build: Build) -> None:
    restart(build.daemon())


def restart_with_an_empty_store(build: Build) -> None:
    daemon = build.daemon()
    restart(daemon, lambda: shutil.rmtree(daemon.home / "store"))


def restart_with_a_damaged_store(build: Build) -> None:
    daemon = build.daemon()
    restart(daemon, lambda: [*map(damage, build.some_files(daemon.home / "store"))])


def restart_with_a_damaged_state(build: Build) -> None:
    daemon = build.daemon()
    restart(daemon, lambda: [*map(damage, build.some_files(daemon.home / "state"))])


def restart_with_half_of_its_store(build: Build) -> None:
    daemon = build.daemon()
    restart(daemon, lambda: [*map(remove, build.some_files(daemon.home / "store"))])


def lose_half_of_a_tree(build: Build) -> None:
    for path in build.some_files(*build.daemon().home.glob("sandbox/[0-9a-f]*")):
        remove(path)


def kill_the_syncer(build: Build) -> None:
    kill(build.farm.syncer)


def restart_the_syncer(build: Build) -> None:
    restart(build.farm.syncer)


def restart_the_syncer_with_a_damaged_state(build: Build) -> None:
    state = build.farm.syncer.home / "state"
    restart(build.farm.syncer, lambda: [*map(damage, build.some_files(state))])


def stop_the_syncer(build: Build) -> None:
    build.farm.syncer.stop()


def freeze_the_syncer(build: Build) -> None:
    freeze(build, build.farm.syncer)


def freeze_the_syncer_for_a_moment(build: Build) -> None:
    build.farm.syncer.signal(signal.SIGSTOP)
    time.sleep(build.chance.uniform(0.1, 2))
    build.farm.syncer.signal(signal.SIGCONT)


def freeze_everything_for_a_moment(build: Build) -> None:
    """As when a laptop sleeps, and then its workers too."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in build.farm.processes():
            process.signal(number)
        time.sleep(build.chance.uniform(0.1, 2))


def cut_the_network(build: Build) -> None:
    for cable in build.cables:
        cable.cut()


def kill_compilers(build: Build) -> None:
    """As the kernel does when memory is short."""
    for daemon in build.farm.daemons:
        assert daemon.popen is not None
        for child in psutil.Process(daemon.popen.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if child.name() == "cc1":
                    child.kill()


FAULTS = [
    kill_a_daemon,
    kill_all_daemons,
    freeze_a_daemon,
    freeze_all_daemons,
    restart_a_daemon,
    restart_with_an_empty_store,
    restart_with_a_damaged_store,
    restart_with_a_damaged_state,
    restart_with_half_of_its_store,
    lose_half_of_a_tree,
    kill_the_syncer,
    restart_the_syncer,
    restart_the_syncer_with_a_damaged_state,
    stop_the_syncer,
    freeze_the_syncer,
    freeze_the_syncer_for_a_moment,
    freeze_everything_for_a_moment,
    cut_the_network,
    kill_compilers,
]


# --- the build ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """lua, and what the local compiler makes of it at the path where each test has it."""
    need(LUA.compiler)
    place = tmp_path_factory.mktemp("lua") / "project"
    source = fetch_or_skip(LUA.package, place.parent / "fetched")
    shutil.copytree(source, place)
    before = files_below(place)
    for name in select(place, LUA.globs):
        assert run_here(argv(name), place).exit_code == 0
    after = files_below(place)
    return place, {name: data for name, data in after.items() if before.get(name) != data}


@pytest.fixture
def farm(tmp_path: Path, certs_dir: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "farm", certs_dir)
    try:
        yield made
    finally:
        for process in made.processes():
            if process.popen is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.signal(signal.SIGCONT)
        made.kill()


def strangers(root: Path) -> list[str]:
    """Processes that know a farm's directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(root) in " ".join(process.cmdline()):
                found.append(" ".join(process.cmdline())[:300])
    return found


def lead_through_cables(build: Build) -> None:
    """Daemons and syncer reach each other by cables that can be cut."""
    syncer, hosts = build.farm.syncer, []
    for daemon in build.farm.daemons:
        to_syncer, to_daemon = Cable(syncer.port), Cable(daemon.port)
        build.cables += [to_syncer, to_daemon]
        hosts.append(f"127.0.0.1:{to_daemon.port}")
        configure(daemon.home, syncer=f"https://127.0.0.1:{to_syncer.port}")
    configure(syncer.home, hosts=hosts)


def configure(home: Path, **changes: object) -> None:
    path = home / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def run_with(build: Build, fault: Callable[[Build], None]) -> list[Done]:
    """Compile everything, and have the fault happen when a random number of compiles has ended."""
    sources = build.sources()
    moment = build.chance.randrange(len(sources) // 2)
    with ThreadPoolExecutor(JOBS) as pool:
        running = [pool.submit(build.farm.run, argv(name), build.project) for name in sources]
        wait_until(lambda: sum(one.done() for one in running) >= moment, "some have ended")
        fault(build)
        return [one.result() for one in running]


@pytest.mark.in_turn("fault", "seed", of=19)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_build_ends_with_the_local_objects(
    farm: Cluster,
    built: tuple[Path, dict[str, bytes]],
    fault: Callable[[Build], None],
    seed: int,
) -> None:
    project, expected = built
    for name in files_below(project).keys() & expected.keys():
        (project / name).unlink()
    before = files_below(project)
    build = Build(farm, project, random.Random(f"{fault.__name__} {seed}"))
    with contextlib.ExitStack() as stack:
        if fault is cut_the_network:
            lead_through_cables(build)
            for cable in build.cables:
                stack.enter_context(cable)
        farm.start()
        done = run_with(build, fault)
        for mend in build.mends:
            mend()
        assert [one.exit_code for one in done] == [0] * len(done), done
        assert [one.stderr for one in done if SAID.sub("", one.stderr.decode())] == []
        after = files_below(project)
        assert {name: after[name] for name in after if before.get(name) != after[name]} == expected
        check_that_it_works_again(build)
        for process in farm.processes():
            if process.popen is not None and process.popen.poll() is None:
                assert process.stop() == 0, process.output()
    wait_until(lambda: not strangers(farm.root), f"no process is left: {strangers(farm.root)}")
    for daemon in farm.daemons:
        jobs = daemon.home / "sandbox" / ".jobs"
        left = [path for path in jobs.rglob("*") if path.is_file()]
        # What was killed with its jobs removes their files when it starts again.
        assert left == [] or daemon.popen is None or daemon.popen.returncode != 0


def check_that_it_works_again(build: Build) -> None:
    """A daemon that runs gets jobs again, unless what it needs is gone for good."""
    alive = [p for p in build.farm.processes() if p.popen is not None and p.popen.poll() is None]
    is_cut = any(cable.is_cut() for cable in build.cables)
    if build.farm.syncer not in alive or len(alive) < 2 or is_cut:
        return
    name = build.sources()[0]

    def is_distributed() -> bool:
        done = build.farm.run(argv(name), build.project, DIST_BUILD_VERBOSE="1")
        assert done.exit_code == 0
        return done.stderr.startswith(b"dist_build: compiled by ")

    wait_until(is_distributed, "a job is compiled by a worker again", pause=0.2)
