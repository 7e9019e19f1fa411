"""Bytes that one compile moves between dev box and worker, beside distcc's."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import zstandard

from bench import peers
from bench.common import Command, LoadGenerator, Options, farm, median, ours
from bench.corpora import commands_of
from bench.peers import Way
from bench.proxy import CountingProxy, counting
from bench.report import Cell, Result, Table
from bench.status import asking, synced
from tests.support.cluster import wrapper_command

PROJECT = "re2"
PARALLEL = 2
Traffic = tuple[float, float]


def run(options: Options) -> Result:
    commands = commands_of(PROJECT, options.work)[: options.size(10**6, 4)]
    load = LoadGenerator(options.work)
    traffic = {"dist_build": _ours(options, load, commands)}
    if not peers.missing("distcc", "distccd"):
        for name, suffix in (("distcc", ""), ("distcc, lzo", ",lzo")):
            traffic[name] = _distcc(options, load, commands, name, suffix)
    return Result([_table(options, commands, traffic)])


def _measured(
    options: Options,
    load: LoadGenerator,
    way: Way,
    commands: Sequence[Command],
    link: CountingProxy,
) -> Traffic:
    """Bytes (to the worker, from it) a file; medians of rounds. RuntimeError if a compile fails."""
    rounds: list[Traffic] = []
    for number in range(1 + options.rounds):
        before = link.counted
        done = load.run([c.behind(way.prefix) for c in commands], PARALLEL, way.env)
        if done.failed:
            raise RuntimeError(f"{way.name}: {done.failed} compiles failed\n{done.said}")
        out, back = (b - a for a, b in zip(before, link.counted, strict=True))
        if number:
            rounds.append((out / len(commands), back / len(commands)))
    return median([r[0] for r in rounds]), median([r[1] for r in rounds])


def _ours(options: Options, load: LoadGenerator, commands: Sequence[Command]) -> Traffic:
    """The daemon's connections to the syncer: leases with sources one way, results the other."""
    with counting() as link:
        daemon = {"syncer": f"https://127.0.0.1:{link.port}"}
        with farm(options.work, [daemon]) as cluster:
            link.target = cluster.syncer.port
            cluster.start()
            way = Way("dist_build", wrapper_command(), ours(cluster))
            load.run([c.behind(way.prefix) for c in commands], PARALLEL, way.env)
            with asking(cluster.syncer) as status:
                status.wait_for(lambda s: synced(s, 1), "the headers are mirrored")
            # The daemon is the one that connects, so what it receives goes to the worker.
            back, out = _measured(options, load, way, commands, link)
            return out, back


def _distcc(
    options: Options, load: LoadGenerator, commands: Sequence[Command], name: str, suffix: str
) -> Traffic:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(peers.distccd(4))
        link = stack.enter_context(counting())
        link.target = port
        way = peers.distcc(options.work, f"127.0.0.1:{link.port}{suffix}", name)
        return _measured(options, load, way, commands, link)


def _table(options: Options, commands: Sequence[Command], traffic: dict[str, Traffic]) -> Table:
    lzo = traffic.get("distcc, lzo")
    rows: list[list[Cell]] = []
    for name, (out, back) in traffic.items():
        ratio = (out + back) / sum(lzo) if lzo else None
        rows.append([name, out / 1000, back / 1000, (out + back) / 1000, ratio])
    objects = [Path(c.words[-1]).read_bytes() for c in commands]
    packed = sum(len(zstandard.compress(data, 3)) for data in objects) / len(objects)
    plain = sum(map(len, objects)) / len(objects)
    for name, size in (("objects alone", plain), ("objects alone, zstd level 3", packed)):
        rows.append([name, 0.0, size / 1000, size / 1000, size / sum(lzo) if lzo else None])
    return Table(
        f"wire: {PROJECT} -O2 -g",
        f"kB for each of {len(commands)} files through a proxy that counts TCP's payload, TLS and"
        " waiting included; headers are on the worker already, as after a first build",
        ["way", "to the worker kB", "from it kB", "together kB", "x distcc, lzo"],
        rows,
        [note for note in (peers.missing("distcc", "distccd"),) if note],
    )
