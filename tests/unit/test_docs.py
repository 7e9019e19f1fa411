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
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
NOTHING = cast("Any", None)  # the apps only keep what they are given until a request comes

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def routes(app: flask.Flask) -> Iterator[str]:
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield f"{method} {rule.rule}"


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next of its level."""
    _, _, rest = text.partition(f"\n## {heading}\n")
    return rest.partition("\n## ")[0]


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub makes of a page's headings."""
    headings = _HEADING.findall(page.read_text())
    return {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("key", Config.__struct_fields__)
def test_config_key_is_documented(key: str) -> None:
    assert f"\n| `{key}` |" in (DOCS / "configuration.md").read_text()


@pytest.mark.parametrize("reason", LocalReason)
def test_local_reason_is_documented(reason: LocalReason) -> None:
    assert f"\n| `{reason}` |" in (ROOT / "README.md").read_text()


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
    text = (DOCS / "protocol.md").read_text() + (ROOT / "README.md").read_text()
    named = re.findall(r"(?:protocol version,|syncer speaks protocol) (\d+)", text)
    assert named == [str(PROTOCOL_VERSION)] * 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, fragment = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


def test_quick_start_is_two_commands() -> None:
    text = section((ROOT / "README.md").read_text(), "Quick start: two commands")
    assert re.findall(r"^    (make .*)$", text, re.MULTILINE) == ["make demo", "make test"]


@pytest.mark.parametrize("name", ["example_dev_config.json", "example_daemon_config.json"])
def test_example_config_loads(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((ROOT / name).read_text())
    assert load_config(Home(tmp_path)) != Config()


def test_drawing_is_well_formed() -> None:
    assert ET.parse(DOCS / "comm.svg").getroot().tag.endswith("svg")
