from typing import Any

import pytest

from distbuild.command.model import LocalReason
from distbuild.wrapper.describe import meaning, size, status_lines, versions


def test_every_reason_has_a_meaning_of_its_own() -> None:
    meanings = [meaning(reason) for reason in LocalReason]
    assert all(meanings)
    assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (5_000_000_000_000, "5000.0 GB"),
    ],
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert size(count) == text


def document(**changes: Any) -> dict[str, Any]:
    return {
        "version": "1.0",
        "uptime_s": 61.4,
        "jobs": {
            "queued": 1,
            "running": 2,
            "done": 3,
            "failed": 4,
            "cancelled": 5,
            "retried": 6,
            "local": {"link": 7, "of_a_newer_syncer": 1},
        },
        "mirror": {"generation": 8, "files": 9, "bytes": 10_000, "roots": ["/a"]},
        "workers": {},
    } | changes


def test_a_status_is_a_table() -> None:
    assert status_lines(document()) == [
        "dist_build 1.0, up 61 s",
        "jobs    queued 1  running 2  done 3  failed 4  cancelled 5  retried 6",
        f"  local      7  link: {meaning(LocalReason.LINK)}",
        "  local      1  of_a_newer_syncer: ",
        "mirror  generation 8  9 files  10.0 kB  1 roots",
        "workers",
        "  none; dist_build.exe setup --invite prints how to add one",
    ]


COMPILERS = [
    {"path": "/usr/bin/gcc", "version": "gcc 12.2.0 x86_64-linux-gnu", "identity": "a"},
    {"path": "/usr/bin/g++", "version": "gcc 12.2.0 x86_64-linux-gnu", "identity": "a"},
    {"path": "/usr/bin/clang", "version": "clang 14.0.6 x86_64-pc-linux-gnu", "identity": "b"},
    {"path": "/opt/gcc", "version": "odd", "identity": "c"},
]


def test_workers_stand_in_columns() -> None:
    workers = {
        "w1:8443": {
            "state": "up",
            "num_cores": 4,
            "running": 1,
            "done": 10,
            "sandbox": None,
            "answered_s": 61.4,
            "asked_s": 0.3,
            "compilers": ["/usr/bin/gcc", "/usr/bin/clang", "/usr/bin/g++"],
            "store": {"free_bytes": 2_000_000_000},
        },
        "w2:8443": {"state": "up", "asked_s": 0.0, "compilers": []},
        "longer:8443": {"state": "down", "error": "connection refused", "asked_s": None},
    }
    assert status_lines(document(workers=workers, compilers=COMPILERS))[-4:] == [
        "  host         state  heard    slots  running  done  free    sandbox  compilers",
        "  w1:8443      up     0 s ago  4      1        10    2.0 GB           gcc and g++ 12.2.0,"
        " clang 14.0.6",
        "  w2:8443      up     0 s ago                                         none of yours",
        "  longer:8443  down   never                                                              "
        "               connection refused",
    ]


def test_without_compilers_of_ones_own_none_are_missed() -> None:
    workers = {"w1:8443": {"state": "up", "asked_s": 0.0, "compilers": []}}
    assert status_lines(document(workers=workers))[-1] == "  w1:8443  up     0 s ago"


def test_compilers_are_named_by_version() -> None:
    assert versions([], COMPILERS) == ""
    assert versions(["/usr/bin/g++", "/opt/gcc"], COMPILERS) == "g++ 12.2.0, gcc"
