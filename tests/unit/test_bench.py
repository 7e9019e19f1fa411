"""The pure parts of the benchmarks: sizes, logs, tables, and the programs in C they rest on."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import peers
from bench.__main__ import BENCHMARKS, parse
from bench.common import Command, LoadGenerator, cpu_of, parse_log
from bench.corpora import select, synthetic
from bench.dispatch import Shape, throughput
from bench.fake import fake_compiler, sleeping_jobs
from bench.headers import make_tree
from bench.proxy import counting
from bench.report import Plot, Table, as_markdown, as_text, shown
from bench.status import counted, generation, synced

TABLE = Table("t", "what it is", ["way", "ms"], [["a|b", 1234.5], ["c", None]], ["a note"])


@pytest.mark.parametrize(
    ("cell", "text"),
    [(None, "-"), (0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234"), (7, "7")],
)
def test_cell_has_three_digits(cell: float | None, text: str) -> None:
    assert shown(cell) == text


def test_table_as_text_is_aligned() -> None:
    assert as_text(TABLE).splitlines() == [
        "t: what it is",
        "  way     ms",
        "  a|b  1,234",
        "  c        -",
        "  a note",
    ]


def test_table_as_markdown_can_be_pasted() -> None:
    assert as_markdown(TABLE) == (
        "### t\n\nWhat it is.\n\n"
        "| way | ms |\n| --- | ---: |\n| a\\|b | 1,234 |\n| c | - |\n\n- A note.\n"
    )


def test_table_without_rows_says_only_why() -> None:
    nothing = Table("t", "nothing to measure with", [""], [])
    assert as_text(nothing) == "t: nothing to measure with\n"
    assert as_markdown(nothing) == "### t\n\nNothing to measure with.\n"


def test_log_of_a_load() -> None:
    load = parse_log("0.0 1.5 0\n0.1 2.0 1\nCPU 0.25 0.5\n")
    assert (load.wall, load.cpu, load.ends, load.failed) == (2.0, 0.75, [1.5, 2.0], 1)


@pytest.mark.parametrize("text", ["", "0.0 1.5 0\n"])
def test_log_of_an_unfinished_load_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="did not finish"):
        parse_log(text)


def test_ideal_time_rounds_up_to_whole_waves() -> None:
    assert Shape(1000, 3.0, 2, 100).ideal == 15.0
    assert Shape(201, 1.0, 2, 100).ideal == 2.0


def test_throughput_counts_ends_in_tenths_of_a_second() -> None:
    assert throughput([0.01, 0.09, 0.25]) == [(0.1, 2.0), (0.2, 0.0), (0.3, 1.0)]


def test_globs_add_and_take_away(tmp_path: Path) -> None:
    for name in ("a.cc", "b.cc", "b_test.cc", "c.h"):
        (tmp_path / name).touch()
    assert select(tmp_path, ["*.cc", "!*_test.cc"]) == ["a.cc", "b.cc"]


@pytest.mark.parametrize("data", [False, True])
def test_made_up_source_has_its_size(data: bool) -> None:
    source = synthetic(8000, 3, data=data)
    assert 8000 <= len(source) < 8200
    assert source == synthetic(8000, 3, data=data)
    assert source != synthetic(8000, 4, data=data)


def test_tree_of_headers_has_its_size(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", 60, 300_000)
    sizes = [path.stat().st_size for path in (tmp_path / "tree").rglob("*.h")]
    assert len(sizes) == 60
    assert sum(sizes) == pytest.approx(300_000, rel=0.15)


def test_workers_are_synced_when_all_have_the_generation() -> None:
    behind = {"w1:1": {"mirrored_generation": 4, "pushes": 2}, "w2:1": {"mirrored_generation": 3}}
    status = {"mirror": {"generation": 4}, "workers": behind}
    assert generation(status) == 4
    assert not synced(status, 2)
    assert synced(status, 1)
    assert (counted(status, "pushes"), counted(status, "absent")) == (2, None)


def test_command_line() -> None:
    arguments = parse(["cost", "--quick", "--rounds", "2", "--plots", "docs"])
    assert (arguments.names, arguments.quick, arguments.rounds) == (["cost"], True, 2)
    assert parse([]).names == []
    for wrong in (["speed"], ["--rounds", "0"]):
        with pytest.raises(SystemExit):
            parse(wrong)


def test_page_names_every_benchmark() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    assert [name for name in BENCHMARKS if f"**{name}.**" not in page] == []


def test_proxy_counts_both_directions() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, counting() as proxy:
        proxy.target = server.getsockname()[1]

        def answer() -> None:
            link, _ = server.accept()
            with link:
                link.sendall(link.recv(100) * 2)

        thread = threading.Thread(target=answer)
        thread.start()
        with socket.create_connection(("127.0.0.1", proxy.port)) as near:
            near.sendall(b"abc")
            answered = b"".join(iter(lambda: near.recv(100), b""))
        thread.join()
        assert (answered, proxy.counted) == (b"abcabc", (3, 6))


@pytest.mark.program  # matplotlib
def test_plot_is_drawn(tmp_path: Path) -> None:
    from bench import plots

    plot = Plot("p", "title", "x", "y", {"a": [(1.0, 2.0), (2.0, 4.0)]}, logarithmic=True)
    data = plots.draw(plot, tmp_path).read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < 100_000


@pytest.mark.compiler
def test_load_runs_all_in_parallel_and_says_which_failed(
    require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    require_tool("gcc")
    # Neither of two ends without the other, so both have to run at the same time.
    os.mkfifo(tmp_path / "fifo")
    both = [Command(tmp_path, ["sh", "-c", words]) for words in ("pwd >fifo", "cat fifo")]
    load = LoadGenerator(tmp_path).run([*both, Command(tmp_path, ["false"])], 2)
    assert len(load.ends) == 3
    assert (load.failed, load.said) == (1, f"{tmp_path}\n")


@pytest.mark.compiler
def test_fake_compiler_sleeps_writes_and_is_identified_as_the_real_one(
    require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    require_tool("gcc")
    fake = fake_compiler(tmp_path / "a" / "fake")
    (job,) = sleeping_jobs(tmp_path / "jobs", 1, 0.3)
    load = LoadGenerator(tmp_path).run([job], 1, {"PATH": f"{fake}:{shutil.which('sh')}"})
    assert (load.failed, load.said) == (0, "")
    assert load.wall >= 0.3
    assert (job.cwd / "j00000.o").stat().st_size > 500
    assert (job.cwd / "j00000.d").read_text() == "j00000.o: j00000.c\n"
    asked = [
        subprocess.run([gcc, "-dumpspecs"], capture_output=True, check=True).stdout
        for gcc in (str(fake / "gcc"), "gcc")
    ]
    assert asked[0] == asked[1]


def test_cpu_of_ended_children_is_counted() -> None:
    with subprocess.Popen(
        ["sh", "-c", 'sh -c "i=0; while [ \\$i -lt 60000 ]; do i=\\$((i+1)); done"; echo; read x'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as popen:
        assert popen.stdout is not None
        popen.stdout.readline()
        assert cpu_of([popen.pid]) > 0.01
        popen.communicate(b"\n")
    assert cpu_of([popen.pid]) == 0.0


@pytest.mark.parametrize(
    ("user", "mode", "is_left_out"),
    [(0, 0o755, True), (0, 0o1777, False), (1000, 0o700, False)],
)
def test_distccd_of_root_needs_a_temporary_directory_for_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, mode: int, is_left_out: bool
) -> None:
    tmp_path.chmod(mode)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    note = peers.missing("distcc", "distccd")
    assert ("TMPDIR" in note and str(tmp_path) in note) is is_left_out
    assert peers.missing("ccache") == ""
