"""The ladder: the syncer's answer, or the real compiler, and what is said about it."""

import os
import re
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from distbuild import __version__
from distbuild.protocol.codec import pack
from distbuild.protocol.errors import ConfigError, DistBuildError, InfrastructureError
from distbuild.protocol.messages import ExplainReply, OutputFile, SubmitReply, SubmitRequest
from distbuild.wrapper import main as main_module
from distbuild.wrapper import subcommands
from distbuild.wrapper.local import ADVICE
from distbuild.wrapper.main import (
    NO_FALLBACK,
    OBSTACLE,
    command_words,
    compile_command,
    main,
)
from distbuild.wrapper.syncer_client import USAGE

ARGV = ["gcc", "-c", "x.c"]


class Execed(BaseException):
    """The process would have become another program."""


class FakeConnection:
    """Same methods as ``SyncerConnection``; answers, or fails with, one thing."""

    def __init__(self, answer: SubmitReply | BaseException) -> None:
        self.answer = answer
        self.requests: list[SubmitRequest] = []

    def compile(self, request: SubmitRequest) -> SubmitReply:
        self.requests.append(request)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def is_outdated(self) -> bool:
        return False


class Ladder:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self._monkeypatch = monkeypatch
        self.connection = FakeConnection(DONE)
        monkeypatch.setenv("DIST_BUILD_HOME", str(home))
        self.local: list[list[str]] = []
        monkeypatch.setattr(main_module, "run_locally", self._run_locally)

    def _run_locally(self, argv: list[str], env: dict[str, str]) -> NoReturn:
        self.local.append(argv)
        assert OBSTACLE not in env
        raise Execed

    def climb(self, answer: SubmitReply | BaseException, **env: str) -> int | None:
        """The exit code, or None when the real compiler was run."""
        self.connection = FakeConnection(answer)
        self._monkeypatch.setattr(main_module, "connect", lambda: self.connection)
        try:
            return compile_command(ARGV, {"PATH": "/bin", **env})
        except Execed:
            assert self.local.pop() == ARGV
            return None


@pytest.fixture
def ladder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ladder:
    (tmp_path / "home/state").mkdir(parents=True)
    return Ladder(monkeypatch, tmp_path / "home")


DONE = SubmitReply("done", exit_code=3, stdout=b"out\xff", stderr=b"err\n", worker="w1")
SILENT = SubmitReply("local", reason="link", detail="-o", silent=True)
LOUD = SubmitReply("local", reason="no_worker", detail="")
CHANGED = SubmitReply("local", reason="inputs_changed", detail="a\n b.c")
UNREACHABLE = InfrastructureError("no syncer at https://localhost:5000")
FORBIDDEN = {"DIST_BUILD_FALLBACK": "0"}
VERBOSE = {"DIST_BUILD_VERBOSE": "1"}
PHASES = {"DIST_BUILD_VERBOSE": "2"}


@pytest.mark.parametrize(
    ("answer", "env", "code", "said"),
    [
        (DONE, {}, 3, "err\n"),
        (DONE, FORBIDDEN, 3, "err\n"),
        (DONE, VERBOSE, 3, "dist_build: compiled by w1\nerr\n"),
        (DONE, {"DIST_BUILD_VERBOSE": "3"}, 3, "err\n"),
        (SILENT, PHASES, None, "dist_build: compiled locally: link: -o\n"),
        (SILENT, {}, None, ""),
        (SILENT, FORBIDDEN, None, ""),
        (SILENT, VERBOSE, None, "dist_build: compiled locally: link: -o\n"),
        (LOUD, {}, None, f"dist_build: compiled locally: no_worker{ADVICE}\n"),
        (LOUD, FORBIDDEN, NO_FALLBACK, "dist_build: not compiled: no_worker\n"),
        (CHANGED, {}, None, f"dist_build: compiled locally: inputs_changed: a b.c{ADVICE}\n"),
        (UNREACHABLE, {}, None, f"dist_build: compiled locally: {UNREACHABLE}{ADVICE}\n"),
        (UNREACHABLE, FORBIDDEN, NO_FALLBACK, f"dist_build: not compiled: {UNREACHABLE}\n"),
        (ConfigError("no config"), {}, None, f"dist_build: compiled locally: no config{ADVICE}\n"),
    ],
)
def test_the_ladder(
    ladder: Ladder,
    capfdbinary: pytest.CaptureFixture[bytes],
    answer: SubmitReply | DistBuildError,
    env: dict[str, str],
    code: int | None,
    said: str,
) -> None:
    assert ladder.climb(answer, **env) == code
    captured = capfdbinary.readouterr()
    assert captured.err.decode() == said
    assert captured.out == (b"out\xff" if answer is DONE else b"")


@pytest.mark.parametrize(
    ("times", "said"),
    [("", ""), ("queued 1.5, on the worker 2.0", "queued 1.5, on the worker 2.0, ")],
)
def test_the_phases_are_printed_with_the_wrappers_total(
    ladder: Ladder, capfdbinary: pytest.CaptureFixture[bytes], times: str, said: str
) -> None:
    assert ladder.climb(msgspec.structs.replace(DONE, times=times), **PHASES) == 3
    line = re.escape(f"dist_build: compiled by w1: {said}total ") + r"\d+\.\d ms\nerr\n"
    assert re.fullmatch(line, capfdbinary.readouterr().err.decode())
    assert ladder.connection.requests[0].timed


@pytest.mark.parametrize("env", [{}, VERBOSE])
def test_phases_are_measured_only_for_those_who_ask(ladder: Ladder, env: dict[str, str]) -> None:
    ladder.climb(DONE, **env)
    assert not ladder.connection.requests[0].timed


def test_a_build_says_each_reason_once(
    ladder: Ladder, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    other_files = SubmitReply("local", reason="other_files", silent=True)
    for answer in (LOUD, CHANGED, LOUD, UNREACHABLE, other_files, CHANGED, other_files, LOUD):
        assert ladder.climb(answer) is None
    said = capfdbinary.readouterr().err.decode().splitlines()
    reasons = ("no_worker", "inputs_changed: a b.c", str(UNREACHABLE), "other_files")
    assert said == [f"dist_build: compiled locally: {reason}{ADVICE}" for reason in reasons]
    assert ladder.climb(LOUD, **VERBOSE) is None
    assert ladder.climb(LOUD, **FORBIDDEN) == NO_FALLBACK
    said = capfdbinary.readouterr().err.decode().splitlines()
    assert said == [f"dist_build: {how}: no_worker" for how in ("compiled locally", "not compiled")]


def test_a_syncer_that_the_launcher_found_silent_is_not_asked(
    ladder: Ladder, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert ladder.climb(DONE, **{OBSTACLE: "it sleeps"}) is None
    assert ladder.climb(DONE, **{OBSTACLE: "it sleeps", **FORBIDDEN}) == NO_FALLBACK
    assert ladder.connection.requests == []
    said = capfdbinary.readouterr().err.decode().splitlines()
    forbidden = "dist_build: not compiled: it sleeps"
    assert said == [f"dist_build: compiled locally: it sleeps{ADVICE}", forbidden]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the build, and the present one."""
    where = Path(os.path.realpath(tmp_path))
    monkeypatch.chdir(where)
    return where


@pytest.mark.parametrize(
    "name", [".bashrc", "x.c", "../x.o", "sub/x.o", "sub/../x.o", "/etc/x.o", "x.o\0", "", "y.o"]
)
@pytest.mark.parametrize("is_removed", [False, True])
def test_a_syncer_that_would_write_something_else_is_not_followed(
    ladder: Ladder, build: Path, name: str, *, is_removed: bool
) -> None:
    (build / "sub").mkdir()
    (build / "x.c").write_text("mine\n")
    path = os.fsencode(name if name.startswith("/") else f"{build}/{name}")
    outputs, removed = (
        ([], [path]) if is_removed else ([OutputFile(path, 0o644, pack(b"evil"))], [])
    )
    assert ladder.climb(SubmitReply("done", outputs=outputs, removed=removed)) is None
    assert (build / "x.c").read_text() == "mine\n"
    assert sorted({*os.listdir(build)} - {"home"}) == ["sub", "x.c"]


def test_outputs_are_written_before_anything_is_said(ladder: Ladder, build: Path) -> None:
    file = OutputFile(os.fsencode(build / "x.o"), 0o644, pack(b"object"))
    assert ladder.climb(SubmitReply("done", outputs=[file])) == 0
    assert (build / "x.o").read_bytes() == b"object"


def test_outputs_that_cannot_be_written_lead_to_the_real_compiler(
    ladder: Ladder, build: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (build / "x.o").mkdir()
    file = OutputFile(os.fsencode(build / "x.o"), 0o644, pack(b"object"))
    assert ladder.climb(SubmitReply("done", stdout=b"out", outputs=[file])) is None
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_a_working_directory_that_is_gone_leads_to_the_real_compiler(
    ladder: Ladder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert ladder.climb(DONE) is None


def test_without_a_syncer_a_link_is_local_without_a_word(
    ladder: Ladder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = FakeConnection(InfrastructureError("no syncer"))
    monkeypatch.setattr(main_module, "connect", lambda: connection)
    with pytest.raises(Execed):
        compile_command(["gcc", "x.o", "-o", "x"], {"DIST_BUILD_FALLBACK": "0"})
    assert capsys.readouterr().err == ""


def test_called_back_by_a_wrapper_it_goes_on_behind_it_without_a_word(
    ladder: Ladder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ladder.climb(DONE, DIST_BUILD_SKIP="/opt/bin/gcc", **FORBIDDEN, **VERBOSE) is None
    assert capsys.readouterr() == ("", "")


def test_what_a_wrapper_of_another_name_runs_is_handed_over(ladder: Ladder) -> None:
    assert ladder.climb(DONE, DIST_BUILD_SKIP="/usr/bin/ccache:/opt/gcc/cc") == 3


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["/opt/dist/dist_build.exe", "gcc", "-c"], ["gcc", "-c"]),
        (["dist_build.exe", "/opt/dist/dist_build.exe", "gcc", "-c"], ["gcc", "-c"]),
        (["src/dist_build.py"], []),
        (["dist_build_client", "status"], ["status"]),
        (["gcc", "-c"], ["gcc", "-c"]),
        (["/links/x86_64-linux-gnu-g++", "-h"], ["x86_64-linux-gnu-g++", "-h"]),
    ],
)
def test_a_link_called_as_a_compiler_stands_for_it(argv: list[str], words: list[str]) -> None:
    assert command_words(argv) == words


@pytest.mark.parametrize(
    ("words", "code"),
    [([], USAGE), (["status", "x"], USAGE), (["install", "x"], USAGE), (["-V"], USAGE)]
    + [([word, "x"], USAGE) for word in ("clean", "doctor", "version", "help", "--version", "-h")]
    + [(["explain"], USAGE), (["explain", "--"], USAGE)],
)
def test_wrong_words_are_answered_with_the_usage(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    assert "usage: dist_build.exe" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_that_was_asked_for_names_every_subcommand(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for known in ("status", "install", "clean", "doctor", "explain", "cache", "version", "help"):
        assert f"dist_build.exe {known} " in said.out


@pytest.mark.parametrize("word", ["--version", "version"])
def test_the_version_is_one_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    assert capsys.readouterr() == (f"dist_build {__version__}\n", "")


def test_a_subcommand_without_a_set_up_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIST_BUILD_HOME", str(tmp_path / "none"))
    assert main(["status"]) == USAGE
    said = capsys.readouterr().err
    assert said.startswith("dist_build: ")
    assert said.count("\n") == 1


class FakeExplainer:
    """A connection to a syncer that gives this answer."""

    def __init__(self, answer: ExplainReply) -> None:
        self._answer = answer

    def explain(self, request: SubmitRequest) -> ExplainReply:
        self.asked = request
        return self._answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ExplainReply(), "distributed\n"),
        (ExplainReply("stdin"), "local: stdin\n  the source comes from standard input\n"),
        (ExplainReply("of_a_newer_syncer", "x"), "local: of_a_newer_syncer (x)\n"),
    ],
)
def test_explain_prints_what_the_syncer_says(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: ExplainReply,
    said: str,
) -> None:
    monkeypatch.setattr(subcommands, "connect", lambda: FakeExplainer(answer))
    assert subcommands.explain(["--", *ARGV]) == (subcommands.LOCAL if answer.reason else 0)
    assert capsys.readouterr().out == said


def test_explain_takes_a_command_as_the_build_prints_it(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = FakeExplainer(ExplainReply())
    monkeypatch.setattr(subcommands, "connect", lambda: explainer)
    assert subcommands.explain(["--", "/opt/dist/dist_build.exe", *ARGV]) == 0
    assert explainer.asked.argv == [word.encode() for word in ARGV]
