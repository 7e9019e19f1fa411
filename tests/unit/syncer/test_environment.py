"""The dev box's time zone as a rule that needs no zone files."""

import os
import subprocess
from pathlib import Path

import pytest

from distbuild.syncer.environment import UTC, Zone, fixed_zone, local_zone
from tests.support.tools import absent

ZONES = Path("/usr/share/zoneinfo")


@pytest.mark.parametrize(
    "content", [None, b"", b"\n", b"not a zone", b"TZif2 without a footer", b"TZif\xff\n\xff\xff\n"]
)
def test_without_a_usable_zone_file_it_is_utc(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "localtime"
    if content is not None:
        file.write_bytes(content)
    assert local_zone(file) == UTC


@pytest.mark.parametrize("name", ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Etc/UTC"])
def test_the_rule_gives_the_time_that_the_zone_gives(name: str) -> None:
    file = ZONES / name
    if not file.exists():
        absent("this machine has no zone files (tzdata)")

    def date(zone: str) -> str:
        env = {**os.environ, "TZ": zone}
        words = ["date", "-d", "@1780000000", "+%F %T %z"]
        return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout

    assert date(local_zone(file)) == date(name)


@pytest.mark.parametrize(
    ("offset_s", "zone"),
    [(0, "DBZ+00:00"), (7200, "DBZ-02:00"), (-12600, "DBZ+03:30"), (20700, "DBZ-05:45")],
)
def test_a_fixed_zone_is_what_the_clock_shows(offset_s: int, zone: str) -> None:
    assert fixed_zone(offset_s) == zone
    shown = subprocess.run(
        ["date", "+%z"], env={**os.environ, "TZ": zone}, capture_output=True, text=True, check=True
    )
    hours, minutes = divmod(abs(offset_s) // 60, 60)
    assert shown.stdout.strip() == f"{'-' if offset_s < 0 else '+'}{hours:02}{minutes:02}"


def test_another_zone_counts_from_then_on(tmp_path: Path) -> None:
    link = tmp_path / "localtime"
    zone = Zone(link)
    assert zone.now() == UTC
    for name in ("Asia/Tokyo", "Europe/Berlin"):
        file = ZONES / name
        if not file.exists():
            absent("the time zones are not installed")
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        assert zone.now() == local_zone(file) != UTC
