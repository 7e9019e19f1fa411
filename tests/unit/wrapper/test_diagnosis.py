"""Each fault with its remedy, and none where there is none."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from distbuild.wrapper import doctor
from distbuild.wrapper.describe import worker_table
from distbuild.wrapper.doctor import FAIL, OK, WARN, Finding, findings

MINE = [
    {"path": "/usr/bin/gcc", "version": "gcc 12.2.0 x86_64", "identity": "a"},
    {"path": "/usr/bin/clang", "version": "clang 14.0.6 x86_64", "identity": "b"},
]


def worker(**changes: Any) -> dict[str, Any]:
    """One that is well."""
    return {
        "state": "up",
        "error": "",
        "answered_s": 0.2,
        "asked_s": 4.0,
        "compilers": ["/usr/bin/gcc", "/usr/bin/clang"],
        "num_cores": 8,
        "running": 0,
        "left_files": 0,
        "store": {"free_bytes": 5_000_000_000, "is_full": False},
        "toolchains": [{"version": "gcc 12.2.0 x86_64"}, {"version": "clang 14.0.6 x86_64"}],
        "check": {"outcome": "compiled", "seconds": 0.123, "detail": ""},
    } | changes


def checked(outcome: str, detail: str = "") -> dict[str, Any]:
    return {"outcome": outcome, "seconds": 3.0, "detail": detail}


def said(**changes: Any) -> Finding:
    """Of the only worker."""
    [finding] = findings({"w1:8443": worker(**changes)}, MINE)
    assert finding.text.startswith("w1:8443: ")
    return Finding(finding.level, finding.text.removeprefix("w1:8443: "))


def test_a_worker_that_is_well() -> None:
    assert said() == Finding(
        OK, "compiled a test in 0.12 s, 8 slots, has gcc 12.2.0, clang 14.0.6, 5.0 GB free"
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"compilers": ["/usr/bin/gcc"]},
            "compiled a test in 0.12 s, 8 slots, has gcc 12.2.0, lacks clang 14.0.6, 5.0 GB free",
        ),
        (
            {"check": checked("silent"), "running": 8},
            "not tested, all 8 slots compile, 8 slots, has gcc 12.2.0, clang 14.0.6, 5.0 GB free",
        ),
        (
            {"check": checked("silent"), "left_files": 7},
            "not tested, 7 headers are still being sent to it, 8 slots,"
            " has gcc 12.2.0, clang 14.0.6, 5.0 GB free",
        ),
    ],
)
def test_what_is_no_fault(changes: dict[str, Any], text: str) -> None:
    assert said(**changes) == Finding(OK, text)


@pytest.mark.parametrize(("days", "warns"), [(-1, True), (3, True), (29, True), (31, False)])
def test_certificates_of_a_worker_that_expire_soon_are_a_warning(days: int, warns: bool) -> None:
    expires = datetime.now(UTC) + timedelta(days=days, hours=1)
    shown = {"w1": worker(certificates_expire=expires.isoformat())}
    found = [finding for finding in findings(shown, MINE) if finding.level == WARN]
    assert bool(found) is warns
    if warns:
        said = f"w1: its certificates expire on {expires:%Y-%m-%d}, in {days} days; "
        assert found[0].text.startswith(said)


@pytest.mark.parametrize("value", ["", "soon", 7, None, [], "0001-01-01T00:00:00+23:59"])
def test_another_time_of_expiry_is_none(value: object) -> None:
    assert said(certificates_expire=value).level == OK


HEARD = "(last answer 0 s ago, last asked for work 4 s ago)"
RESTART = "is the network cut, or its process stopped? Restart daemon.py there"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"state": "down", "error": "w1:8443: connection refused"},
            "down: w1:8443: connection refused; nothing listens there: start daemon.py on it,"
            " or correct its port",
        ),
        (
            {"state": "down", "error": "w1:8443: timed out", "compilers": [], "check": None},
            "down: w1:8443: timed out; is the machine up, and its port open in the firewall?",
        ),
        (
            {"state": "down", "error": "w1:8443: 401 wrong or missing token"},
            "down: w1:8443: 401 wrong or missing token; have it join again"
            " (dist_build.exe setup --invite), or copy certs/worker from here to it and restart"
            " daemon.py",
        ),
        (
            {"state": "down", "error": "something odd"},
            "down: something odd; look at logs/daemon.log there",
        ),
        (
            {"state": "not answering"},
            f"it accepts a connection and does not answer {HEARD}; {RESTART}",
        ),
        (
            {"state": "full", "store": {"free_bytes": 1_000_000}, "asked_s": None},
            "its disk is full (1.0 MB are free), so it takes no jobs; make room there, or set a"
            ' smaller "store_bytes" in its config.json and restart daemon.py',
        ),
        (
            {"error": "w1:8443: 507 disk: No space left on device", "store": None},
            "its disk is full (w1:8443: 507 disk: No space left on device), so it takes no jobs;"
            ' make room there, or set a smaller "store_bytes" in its config.json and restart'
            " daemon.py",
        ),
        (
            {"state": "not asking for work", "asked_s": None},
            "it answers, but does not ask this syncer for work (last answer 0 s ago, last asked for"
            ' work never); look at logs/daemon.log there: "syncer" in its config.json has to lead'
            " here, and this port must be open",
        ),
        (
            {"state": "failing", "failing_why": "disk: No space left"},
            "its last jobs failed (disk: No space left), so it gets none for a while; look at"
            " logs/daemon.log there",
        ),
        (
            {"compilers": []},
            "it has none of your compilers: clang 14.0.6 x86_64, gcc 12.2.0 x86_64; it has clang"
            " 14.0.6 x86_64, gcc 12.2.0 x86_64 (of another build). Install the same packages on"
            " both",
        ),
        (
            {"compilers": [], "toolchains": []},
            "it has none of your compilers: clang 14.0.6 x86_64, gcc 12.2.0 x86_64; it has none at"
            " all. Install the same packages on both",
        ),
        (
            {"check": checked("silent")},
            f"it gave no result of a test compile within 3 s {HEARD}; {RESTART}",
        ),
        (
            {"check": checked("failed", "leases_lost: w1:8443: disk: I/O error")},
            "a test compile failed: leases_lost: w1:8443: disk: I/O error; look at"
            " logs/daemon.log there",
        ),
        (
            {"error": "w1:8443: 500 odd"},
            "it takes no changes of headers: w1:8443: 500 odd; look at logs/daemon.log there",
        ),
    ],
)
def test_a_fault_has_its_remedy(changes: dict[str, Any], text: str) -> None:
    untested = {"check": None, **changes}
    assert said(**untested) == Finding(FAIL, text)


def test_a_worker_that_compiles_in_spite_of_a_fault_is_of_use() -> None:
    finding = said(state="not answering")
    assert finding.level == WARN
    assert finding.text.startswith("it compiled a test, but it accepts a connection and does not ")


def test_a_fault_is_no_failure_while_another_worker_is_there() -> None:
    down = worker(state="down", error="connection refused", check=None)
    levels = [finding.level for finding in findings({"a": down, "b": worker(), "c": down}, MINE)]
    assert levels == [WARN, OK, WARN]


def test_without_workers_there_is_advice() -> None:
    assert [finding.level for finding in findings({}, MINE)] == [WARN]


def test_a_worker_that_the_configuration_does_not_name_tells_less() -> None:
    seen = {"state": "up", "error": "", "asked_s": 1.0, "compilers": ["/usr/bin/gcc"]}
    tested = {**seen, "check": checked("compiled")}
    assert list(findings({"box:1": tested}, MINE[:1])) == [
        Finding(OK, "box:1: compiled a test in 3.00 s, has gcc 12.2.0")
    ]


@pytest.mark.parametrize("odd", [None, 7, "x", [1], {"free_bytes": "x", "mode": "\x1b[2J"}, {}])
@pytest.mark.parametrize("name", ["store", "sandbox", "toolchains", "num_cores", "running", "done"])
def test_a_worker_that_lies_in_its_status_harms_nobody(name: str, odd: Any) -> None:
    cases: list[dict[str, Any]] = [{}, {"compilers": []}, {"state": "full"}]
    for changes in (*cases, {"check": checked("silent")}):
        lies = {"w1:8443": worker(**{name: odd, **changes})}
        for finding in findings(lies, MINE):
            assert finding.text.isprintable()
        assert all(line.isprintable() for line in worker_table(lies, MINE))


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_windows_is_said_to_be_experimental(
    platform: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(doctor, "_CHECKS", [c for c in doctor._CHECKS if c[0] == "system"])
    assert doctor.run([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("warn  system: Windows is experimental") == (platform == "win32")
