"""Windows' answers about files, taken apart on every system."""

import stat
import struct

from hypothesis import given
from hypothesis import strategies as st

from distbuild.system.windows.status import FileFacts, entries

YEAR_2020 = 132_223_104_000_000_000
NAMES = st.text(st.characters(blacklist_categories=()), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)


def packed(found: dict[str, FileFacts]) -> bytes:
    """FILE_ID_BOTH_DIR_INFO of each, at multiples of eight."""
    data = b""
    for index, (name, facts) in enumerate(found.items()):
        text = name.encode("utf-16-le", "surrogatepass")
        fixed = struct.pack(
            "<II6qIIIbx24s2xQ",
            *(0, 7, 1, facts.accessed, facts.written, facts.changed, facts.size, 4096),
            *(facts.attributes, len(text), facts.tag, 0, b"", facts.number),
        )
        length = -(-(len(fixed) + len(text)) // 8) * 8
        step = 0 if index == len(found) - 1 else length
        data += (struct.pack("<I", step) + fixed[4:] + text).ljust(length, b"\0")
    return data


def facts(number: int, attributes: int = 0x20, tag: int = 0) -> FileFacts:
    return FileFacts(attributes, tag, number * 3, YEAR_2020, YEAR_2020 + 10, YEAR_2020 + 20, number)


@given(st.lists(NAMES, min_size=1, unique=True))
def test_a_listing_is_read_as_it_was_written(names: list[str]) -> None:
    found = {name: facts(number) for number, name in enumerate(names)}
    assert dict(entries(packed({".": facts(0), "..": facts(0), **found}))) == found


def test_a_tag_counts_only_for_what_is_a_link() -> None:
    found = {"plain": facts(1, tag=5), "link": facts(2, attributes=0x420, tag=0xA000000C)}
    assert [known.tag for _, known in entries(packed(found))] == [0, 0xA000000C]


def test_a_status_has_the_last_change_and_not_the_creation() -> None:
    status = facts(9).status()
    assert stat.S_ISREG(status.st_mode)
    assert (status.st_size, status.st_ino) == (27, 9)
    assert status.st_mtime_ns == 1_577_836_800_000_001_000
    assert status.st_ctime_ns == 1_577_836_800_000_002_000
    assert status.st_mtime == 1_577_836_800


def test_directories_and_links_are_told_apart() -> None:
    assert stat.S_ISDIR(facts(1, 0x10).status().st_mode)
    assert stat.S_ISLNK(facts(1, 0x410, 0xA000000C).status().st_mode)
    assert stat.S_ISDIR(facts(1, 0x410, 0xA0000003).status().st_mode)
