"""requirements.lock has what requirements.txt asks for, and nothing unverified."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
#: Each package's own line, and the lines of its digests.
LOCKED = re.findall(r"^(\S+==[^\\\n]+?) \\\n((?:    --hash=\S+(?: \\)?\n)+)", LOCK, re.MULTILINE)
VERSIONS = {
    canonicalize_name(locked.name): str(locked.specifier).removeprefix("==")
    for locked in (Requirement(line) for line, _ in LOCKED)
}


def wanted() -> list[str]:
    return (ROOT / "requirements.txt").read_text(encoding="utf-8").split()


@pytest.mark.parametrize("line", wanted())
def test_every_requirement_is_locked_to_a_version_that_it_allows(line: str) -> None:
    requirement = Requirement(line)
    version = VERSIONS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=True)


def test_an_installed_package_needs_the_same_but_for_what_builds_the_executable() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [line for line in wanted() if not line.startswith("pyinstaller")]
    assert project["dependencies"] == needed


def test_every_package_has_digests() -> None:
    assert len(LOCKED) == len(re.findall(r"^[^#\s].*", LOCK, re.MULTILINE))
    for line, hashes in LOCKED:
        assert re.fullmatch(r"(?:\s*--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", hashes), line


def test_it_names_no_host_and_no_file() -> None:
    lines = re.sub(r"^ *#.*", "", LOCK, flags=re.MULTILINE)
    assert not re.search(r"://|\s-[a-z]\b|--(?!hash=)| @ |file:", lines)
    assert "://" not in LOCK
