"""Who may read the dashboard, and what its documents say."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask.testing import FlaskClient

from distbuild.history.store import History
from distbuild.http.response import Response
from distbuild.http.site import Call
from distbuild.syncer.browser_access import LINK_S, MAX_KNOWN, Access
from distbuild.syncer.dashboard import PAGE_FILES, make_dashboard, make_stream
from distbuild.syncer.routes import RequestRefused
from tests.unit.history.test_store import Clock, add

HOST = "127.0.0.1:5001"


class Site:
    """The dashboard's app over a history in memory's place."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.history = History(path, 10**9, lambda: 4, self.clock)
        self.access = Access(5001, self.clock)
        service = SimpleNamespace(
            history=self.history,
            builds=lambda: self.history.builds(9),
            build=self.history.build,
        )
        self.app = make_dashboard(cast("Any", service), self.access)

    def browser(self) -> FlaskClient:
        return self.app.test_client()

    def get(self, browser: FlaskClient, path: str, host: str = HOST, method: str = "GET") -> Any:
        headers, url = {"Host": host}, f"http://{host}"
        return browser.open(path, method=method, headers=headers, base_url=url, buffered=True)

    def opened(self) -> FlaskClient:
        """A browser that has followed a link."""
        browser = self.browser()
        assert self.get(browser, self.link()).status_code == 200
        return browser

    def link(self) -> str:
        return self.access.link().removeprefix(f"http://{HOST}")

    def document(self, path: str) -> Any:
        answer = self.get(self.opened(), self.access.path + path)
        assert answer.status_code == 200
        return answer.json


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "history.sqlite")
    yield made
    made.history.stop()


def test_a_link_gives_a_browser_a_cookie_that_no_script_and_no_other_path_gets(site: Site) -> None:
    browser = site.browser()
    answer = site.get(browser, site.link())
    cookie = answer.headers["Set-Cookie"]
    assert "; HttpOnly" in cookie
    assert "; SameSite=Strict" in cookie
    assert f"; Path={site.access.path}" in cookie
    assert site.get(browser, site.access.path).status_code == 200
    assert site.get(browser, "/").status_code == 403, "the cookie is not for this path"


def test_a_link_is_valid_once_and_for_a_short_time(site: Site) -> None:
    used, old = site.link(), site.link()
    assert site.get(site.browser(), used).status_code == 200
    site.clock.now += LINK_S
    for link in (used, old, f"{site.access.path}open", f"{site.access.path}open?token="):
        answer = site.get(site.browser(), link)
        assert answer.status_code == 403
        assert answer.text.endswith("run: dist_build.exe dashboard\n")
        assert "Set-Cookie" not in answer.headers


def test_a_session_does_not_end_with_its_link(site: Site) -> None:
    browser = site.opened()
    site.clock.now += 100 * LINK_S
    assert site.get(browser, site.access.path).status_code == 200


def test_the_oldest_links_and_browsers_are_forgotten(site: Site) -> None:
    first_link, first = site.link(), site.opened()
    for _ in range(MAX_KNOWN):
        site.opened()
    assert site.get(first, site.access.path).status_code == 403
    for _ in range(MAX_KNOWN):
        site.link()
    assert site.get(site.browser(), first_link).status_code == 403


@pytest.mark.parametrize("name", ["", "main.js", "uPlot.js", "builds", "events", "no such", "../x"])
def test_without_a_cookie_nothing_is_shown(site: Site, name: str) -> None:
    answer = site.get(site.browser(), site.access.path + name)
    assert answer.status_code == 403
    assert len(answer.text.splitlines()) == 1
    assert "run: dist_build.exe dashboard" in answer.text


@pytest.mark.parametrize("host", ["evil.example:5001", "127.0.0.1", "localhost:5002", "[::1]:5001"])
def test_another_name_of_this_machine_is_refused(site: Site, host: str) -> None:
    cookie = {"cookie": f"dist_build={site.access.exchange(site.link().partition('=')[2])}"}
    site.access.check({"host": "localhost:5001", **cookie})
    with pytest.raises(RequestRefused):
        site.access.check({"host": host, **cookie})
    link = site.link()
    assert site.get(site.browser(), link, host).status_code == 403
    assert site.get(site.browser(), link).status_code == 200, "the link was not used up"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_only_get_is_answered(site: Site, method: str) -> None:
    assert site.get(site.opened(), site.access.path, method=method).status_code == 405


def test_each_response_forbids_other_origins_and_copies(site: Site) -> None:
    browser = site.opened()
    for path in (site.access.path, f"{site.access.path}builds", "/no such", site.link()):
        headers = site.get(browser, path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"


def test_the_page_has_nothing_inline_and_nothing_of_another_origin() -> None:
    page = (PAGE_FILES / "index.html").read_text()
    assert "://" not in page
    assert "style=" not in page
    assert page.count("<script") == page.count("<script ") == 2
    for script in PAGE_FILES.glob("[a-t]*.js"):
        assert "innerHTML" not in script.read_text()


def test_the_stream_is_as_closed_as_the_page(site: Site) -> None:
    def stream() -> Any:
        yield Response({}, b"live", is_stream=True)

    [(path, handle)] = make_stream(site.access, stream).items()
    assert path == f"{site.access.path}events"
    cookie = site.access.exchange(site.link().partition("=")[2])
    known = {"host": HOST, "cookie": f"a=b; dist_build={cookie}"}
    assert next(handle(Call(None, b"", headers=known))) == Response({}, b"live", is_stream=True)
    for headers in ({"host": HOST}, {"host": "x", "cookie": known["cookie"]}):
        [answer] = list(handle(Call(None, b"", headers=headers)))
        assert isinstance(answer, Response)
        assert answer.status == "403 Forbidden"


def test_a_report_has_what_a_page_shows_of_a_build(site: Site) -> None:
    failed: dict[str, Any] = {
        "outcome": "failed",
        "exit_code": 1,
        "messages": b"x.c:1:1: error: no",
        "ran_s": 0.0,
    }
    local: dict[str, Any] = {
        "outcome": "local",
        "reason": "link",
        "worker": "",
        "ran_s": 0.0,
        "phases": {},
    }
    add(site.history, site.clock)
    add(site.history, site.clock, **failed)
    add(site.history, site.clock, **local)
    report = site.document("builds/1")
    assert (report["jobs"], report["slots"], report["ran_s"]) == (3, 4, 1.0)
    assert "jobs_of_it" not in report
    assert [job["source"] for job in report["slowest"]] == ["/p/a b.c"]
    assert [job["messages"] for job in report["failures"]] == ["x.c:1:1: error: no"]
    assert report["meanings"]["link"].startswith("linking is done on the dev box")
    assert [build["number"] for build in site.document("builds")] == [1]
    jobs = site.document("builds/1/jobs")
    assert [job["outcome"] for job in jobs] == ["compiled", "failed", "local"]
    assert site.document(f"jobs/{jobs[0]['row']}")["command"] == "gcc -c 'a b.c'"


def test_two_builds_are_compared(site: Site) -> None:
    for name, ran_s in (("a", 1.0), ("b", 1.5)):
        add(site.history, site.clock, name=name, ran_s=ran_s)
    found = site.document("compare/1/2")
    assert (found["before"]["number"], found["now"]["number"]) == (1, 2)
    assert found["changed"] == [["/p/a b.c", 1.0, 1.5]]


@pytest.mark.parametrize("path", ["builds/7", "jobs/7", "compare/7/8", "x.js", "..%2fdashboard.py"])
def test_what_is_not_there_is_one_line(site: Site, path: str) -> None:
    answer = site.get(site.opened(), site.access.path + path)
    assert answer.status_code == 404
    assert len(answer.text.splitlines()) == 1
