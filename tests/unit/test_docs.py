"""The documents name everything that the code has, and their links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree as ET

import flask
import pytest

from distbuild.command.model import LocalReason
from distbuild.config import Config, Home, load_config
from distbuild.protocol.messages import PROTOCOL_VERSION
from distbuild.syncer.flask_app import make_app as make_syncer_app
from distbuild.syncer.routes import make_handlers
from distbuild.worker.routes import make_app as make_worker_app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DECISIONS = DOCS / "decisions"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
MAX_README_LINES = 130
#: Of every decision page, in this order.
DECISION_HEADINGS = ["Context", "Decision", "Rejected", "Figure"]
#: Phrases that are not plain technical English; literal uses of the same terms pass.
NOT_PLAIN = re.compile(
    r"""
    \b(?: whoever | whomever | nobody | somebody | anybody | everybody )\b
    | \bof\ ours\b | \bas\ it\ has\ it\b | \bas\ (?:he|they|one)\ ha(?:s|ve)\ it\b
    | \bwithout\ a\ word\b | \blast\ word\b | \bby\ its\ word\b | 's\ word\b
    | \btold\ (?:of|by)\b | \b(?:is|are|was|were|be|been|being)\ told\b
    | \btells?\ (?:of|the\ (?:syncer|worker|daemon|wrapper|launcher|queue))\b
    | \b(?:hold|holds|held|holding)\ (?:\w+\ ){0,2}against\b
    | \b(?:lead|leads|led|leading)\ out\b
    | \b(?:on|in)\ (?:the|its|their)\ way\b | \bunder\ way\b | \bthe\ way\ (?:there|back|here)\b
    | \bworth\ the\ way\b | \bways\ into\b | \bway\ (?:in|out)\b
    | \b(?:has|have|had|no|make|makes|is)\ room\b
    | \bwhat\ (?:waits|comes|stays|stands|goes)\b
    | (?:^|\.\ )What\ (?!is\b|are\b|was\b|were\b|to\b|do\b|does\b|did\b)
    | \bguests\b
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
#: A changelog keeps the sentences of its time.
PLAIN_PAGES = [page for page in PAGES if page.name != "CHANGELOG.md"]
NOTHING = cast("Any", None)  # the apps only keep what they are given until a request comes

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def routes(app: flask.Flask) -> Iterator[str]:
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield f"{method} {rule.rule}"


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next of its level."""
    _, _, rest = text.partition(f"\n## {heading}\n")
    return rest.partition("\n## ")[0]


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub makes of a page's headings."""
    headings = _HEADING.findall(page.read_text())
    return {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("key", Config.__struct_fields__)
def test_config_key_is_documented(key: str) -> None:
    assert f"\n| `{key}` |" in (DOCS / "configuration.md").read_text()


def documented_reasons() -> list[tuple[str, str, str]]:
    """Reason, kind and meaning, of the table's rows."""
    row = re.compile(r"^\| `(\w+)` \| ([a-z ]+) \| (.+?) \|", re.MULTILINE)
    return row.findall((DOCS / "reasons.md").read_text())


def test_documented_reasons_are_those_of_the_code() -> None:
    kinds = {True: "by design", False: "failure"}
    expected = [(str(r), kinds[r.by_design], r.meaning) for r in LocalReason]
    assert sorted(documented_reasons()) == sorted(expected)


@pytest.mark.parametrize("reason", [r for r in LocalReason if not r.by_design])
def test_failure_has_a_remedy(reason: LocalReason) -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    assert f"- `{reason}" in text


@pytest.mark.parametrize(
    ("heading", "app"),
    [
        ("Syncer", make_syncer_app(NOTHING, NOTHING, make_handlers(NOTHING, NOTHING))),
        ("Worker", make_worker_app(NOTHING, NOTHING, NOTHING, NOTHING)),
    ],
    ids=["syncer", "worker"],
)
def test_routes_are_those_of_the_protocol_page(heading: str, app: flask.Flask) -> None:
    text = section((DOCS / "protocol.md").read_text(), heading)
    documented = re.findall(r"^\| `([A-Z]+ /\S+)` \|", text, re.MULTILINE)
    assert sorted(documented) == sorted(routes(app))


def test_the_documents_know_the_protocols_version() -> None:
    text = (DOCS / "protocol.md").read_text() + (DOCS / "troubleshooting.md").read_text()
    named = re.findall(r"(?:protocol version,|syncer speaks protocol) (\d+)", text)
    assert named == [str(PROTOCOL_VERSION)] * 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, fragment = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


@pytest.mark.parametrize("page", PLAIN_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_is_written_in_plain_words(page: Path) -> None:
    # A phrase may be broken over two lines.
    text = re.sub(r"(?<=\S)\n(?=\w)", " ", page.read_text())
    assert [match[0] for match in NOT_PLAIN.finditer(text)] == []


def linked_from(page: Path) -> set[Path]:
    """The files of the repository to which a page links."""
    links = (link.partition("#")[0] for link in _LINK.findall(page.read_text()))
    return {(page.parent / link).resolve() for link in links if link and ":" not in link}


def test_readme_is_short_and_links_to_every_page() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= MAX_README_LINES
    pages = {page for page in PAGES if page.parent != DECISIONS} - {readme}
    assert {*pages, DECISIONS / "README.md"} <= linked_from(readme)


def test_index_links_to_every_decision() -> None:
    pages = set(DECISIONS.glob("[0-9][0-9][0-9]-*.md"))
    assert pages == set(DECISIONS.glob("*.md")) - {DECISIONS / "README.md"}
    assert pages <= linked_from(DECISIONS / "README.md")
    numbers = sorted(page.name[:3] for page in pages)
    assert numbers == [f"{number:03}" for number in range(1, len(pages) + 1)]


@pytest.mark.parametrize("page", sorted(DECISIONS.glob("[0-9]*.md")), ids=lambda page: page.stem)
def test_decision_has_all_parts(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {page.name[:3]} ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == DECISION_HEADINGS


def test_quick_start_is_two_commands() -> None:
    text = section((ROOT / "README.md").read_text(), "Quick start: two commands")
    assert re.findall(r"^    (make .*)$", text, re.MULTILINE) == ["make demo", "make test"]


@pytest.mark.parametrize("name", ["example_dev_config.json", "example_daemon_config.json"])
def test_example_config_loads(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((ROOT / name).read_text())
    assert load_config(Home(tmp_path)) != Config()


def test_drawing_is_well_formed() -> None:
    assert ET.parse(DOCS / "comm.svg").getroot().tag.endswith("svg")
