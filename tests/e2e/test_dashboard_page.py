"""The dashboard's page under Chromium, fed by scripted events at a fixed time, without a syncer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distbuild.syncer.browser_access import HEADERS
from distbuild.syncer.dashboard import PAGE_FILES
from tests.support.browser import axe, chromium, new_page, watched

pytestmark = pytest.mark.program
URL = "http://127.0.0.1:9/d/"
BEGAN = 1_700_000_000.0
NOW = BEGAN + 60
HOSTILE = '<img src=x onerror="document.title=1">'
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
#: In place of the browser's own: ``send`` delivers an event as the syncer would.
STREAM = """
window.EventSource = class {
  constructor() {
    window.send = (event) => this.onmessage({ data: JSON.stringify(event) });
    setTimeout(() => { this.onopen(); window.isOpen = true; });
  }
};
"""


def job(number: int, **more: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "row": number,
        "source": f"/src/file{number}.c",
        "outcome": "compiled",
        "reason": "",
        "worker": f"build{number % 2}:8443",
        "exit_code": 0,
        "began": BEGAN + number,
        "took_s": 3.0,
        "phases": {"understood": 0.01, "prepared": 0.01, "queued": 0.5, "on the worker": 2.0},
        "ran_s": 1.5,
        "rounds": 1,
    }
    return usual | more


def worker(**more: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "state": "up",
        "error": "",
        "num_cores": 4,
        "running": 2,
        "load": 1.5,
        "free_memory_bytes": 8_000_000_000,
        "clock_off_s": 0.0,
        "mirrored_generation": 7,
        "compilers": ["/usr/bin/gcc"],
    }
    return usual | more


JOBS = [
    *(job(n) for n in range(20)),
    job(
        20, outcome="hit", worker="object cache", phases={"understood": 0.01}, took_s=0.02, ran_s=0
    ),
    job(21, outcome="local", reason="link", worker="", phases={}, ran_s=0),
    job(22, outcome="failed", exit_code=1, source=f"/src/{HOSTILE}.c"),
    job(23, rounds=2),
    job(24, outcome="cancelled", worker="", phases={}, ran_s=0),
]
OUTCOMES = {"compiled": 21, "hit": 1, "local": 1, "failed": 1, "cancelled": 1}
BUILD = {
    "number": 7,
    "name": HOSTILE,
    "began": BEGAN,
    "wall_s": 27.0,
    "is_open": True,
    "slots": 8,
    "jobs": len(JOBS),
    "outcomes": OUTCOMES,
    "reasons": {"link": 1},
    "expected": 50,
}
STATUS = {
    "version": "1",
    "jobs": {"queued": 3, "running": 4},
    "local": {"slots": 2, "running": 0, "waiting": 0},
    "compilers": [{"path": "/usr/bin/gcc", "version": "gcc 12.2.0", "identity": "x"}],
    "received_bytes": 0,
    "mirror": {"generation": 9, "sent_bytes": 0},
    "workers": {
        "build0:8443": worker(),
        "build1:8443": worker(clock_off_s=-7.0, error=HOSTILE),
    },
}
BEGUN = {
    "101": {"build": 7, "began": BEGAN + 50, "source": "/src/long.c", "worker": "build0:8443"}
    | {"ended": "queued", "is_local": False},
    "102": {"build": 7, "began": BEGAN + 55, "source": "", "worker": "", "ended": ""}
    | {"is_local": True},
}
EVENT = {
    "build": BUILD,
    "status": STATUS,
    "trouble": f"41 jobs were local: {HOSTILE}",
    "jobs": JOBS,
    "begun": BEGUN,
    "now": NOW,
}
REPORT = BUILD | {
    "ran_s": 31.5,
    "parallelism": 1.2,
    "most_at_once": 3,
    "limit": HOSTILE,
    "meanings": {"link": "linking is done on the dev box"},
    "slowest": [JOBS[0] | {"usual_s": 0.5}],
    "failures": [JOBS[22] | {"messages": f"error: {HOSTILE}"}],
}
WHOLE_JOB = JOBS[0] | {
    "command": "gcc -c file0.c",
    "cwd": "/src dir",
    "detail": "",
    "inputs": 65,
    "cpu_s": 1.75,
    "memory_bytes": 83_400_000,
    "missed": "new",
    "messages": "",
    "usual_s": 0.5,
}
EARLIER = BUILD | {"number": 6, "is_open": False, "name": "earlier"}
CHANGED = [["/src/file0.c", 1.0, 1.5], [f"/src/{HOSTILE}.c", 2.0, 1.0]]
DOCUMENTS = {
    "builds": [BUILD, EARLIER],
    "builds/7": REPORT,
    "builds/6": REPORT | EARLIER,
    "builds/6/jobs": JOBS[:2],
    "jobs/0": WHOLE_JOB,
    "compare/6/7": {"before": EARLIER, "now": BUILD, "changed": CHANGED},
}


def answer(route: Any) -> None:
    """What the syncer would serve."""
    name = route.request.url.removeprefix(URL) or "index.html"
    if name in DOCUMENTS:
        route.fulfill(body=json.dumps(DOCUMENTS[name]), content_type="application/json")
    elif (PAGE_FILES / name).is_file():
        kind = TYPES[Path(name).suffix]
        route.fulfill(path=PAGE_FILES / name, content_type=kind, headers=HEADERS)
    else:
        route.fulfill(status=404, body="no such document")


@pytest.fixture
def browser() -> Iterator[Any]:
    """One for each test: it starts processes whenever it likes, and none may be left of a test."""
    with chromium() as running:
        yield running


def opened(browser: Any, event: Any = EVENT, **settings: Any) -> Any:
    """A page that has got an event; the clock stands still."""
    page = new_page(browser, **{"viewport": {"width": 1280, "height": 900}, **settings})
    page.clock.set_fixed_time(NOW)
    page.route("**/*", answer)
    page.add_init_script(STREAM)
    page.goto(URL)
    page.wait_for_selector("#connection.open")
    send(page, event)
    return page


def send(page: Any, event: Any) -> None:
    page.evaluate("(event) => { window.send(event); }", event)
    drawn(page)


def drawn(page: Any) -> None:
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def text(page: Any, selector: str) -> str:
    return str(page.locator(selector).inner_text())


def rows(page: Any, table: str) -> list[list[str]]:
    return [row.locator("td").all_inner_texts() for row in page.locator(f"#{table} tbody tr").all()]


def test_the_numbers_are_those_of_the_events(browser: Any) -> None:
    page = opened(browser)
    names = ("elapsed", "running", "queue", "commands", "hits", "local", "failed")
    shown = [text(page, f"#{name}") for name in names]
    assert shown == ["1:00 min", "4 / 8", "3", "25", "4.0 %", "4.0 %", "1"]
    assert text(page, "#estimate") == "≈ 1:00 min"
    assert text(page, "#title").startswith("Build 7 ")
    workers = rows(page, "workers")
    assert [row[0] for row in workers] == ["build0:8443", "build1:8443"]
    assert workers[0][2:7] == ["2 / 4", "1.5", "8.0 GB", "2", "right"]
    assert workers[0][7:] == ["gcc 12.2.0", "10", "1500", "\u00d7 1.00"]
    assert workers[1][6] == "-7 s"
    send(page, {"over": [101, 102], "jobs": [job(25)], "now": NOW})
    assert text(page, "#commands") == "26"
    page.wait_for_selector("#report:has-text('25 commands in 27.0 s')")
    assert rows(page, "reasons") == [["link", "1", "linking is done on the dev box"]]
    assert rows(page, "slowest")[0][:4] == ["file0.c", "1.50 s", "0.50 s", "+1.00 s"]
    assert [row[1] for row in rows(page, "builds")] == ["Build 7", "Build 6"]


def test_texts_of_commands_and_workers_stay_texts(browser: Any) -> None:
    page = opened(browser)
    errors = watched(page)
    send(page, {"over": [101, 102], "now": NOW})
    page.wait_for_selector("#failures pre:has-text('error: <img')")
    page.locator("#builds input").nth(0).check()
    page.locator("#builds input").nth(1).check()
    page.locator("#compare").click()
    page.wait_for_selector("#comparison td:has-text('onerror')")
    for selector in ("#trouble", "#title", "#report", "#workers", "#failures", "#comparison"):
        assert HOSTILE in text(page, selector), selector
    assert page.locator("img").count() == 0
    assert page.title() == "dist_build"
    assert errors == []


def test_the_next_build_begins_empty(browser: Any) -> None:
    page = opened(browser)
    empty = {"jobs": 0, "outcomes": {}, "reasons": {}, "wall_s": 0.0, "expected": 0}
    send(page, {"build": BUILD | empty | {"number": 8, "began": NOW}, "now": NOW})
    assert text(page, "#commands") == "0"
    assert text(page, "#title").startswith("Build 8 ")


def test_an_earlier_build_is_opened_and_left(browser: Any) -> None:
    page = opened(browser)
    page.locator("#builds button", has_text="Build 6").click()
    page.wait_for_selector("#title:has-text('Build 6 earlier')")
    drawn(page)
    assert (text(page, "#commands"), text(page, "#running")) == ("2", "≤ 3 / 8")
    page.locator("#live").click()
    page.wait_for_selector("#title:has-text('Build 7')")
    drawn(page)
    assert text(page, "#commands") == "25"


def test_the_keyboard_alone_chooses_zooms_and_folds(browser: Any) -> None:
    page = opened(browser)
    page.locator("#gantt").focus()
    page.keyboard.press("n")
    page.wait_for_selector("#job:has-text('file0.c')")
    assert text(page, "#explain") == ("cd '/src dir' && dist_build.exe explain -- gcc -c file0.c")
    assert "65 files" in text(page, "#job")
    assert "1.75 s of processor time, 83.4 MB of memory at the most" in text(page, "#job")
    assert page.locator("#all").get_attribute("aria-pressed") == "true"
    page.keyboard.press("+")
    assert page.locator("#all").get_attribute("aria-pressed") == "false"
    page.keyboard.press("f")
    assert page.locator("#follow").get_attribute("aria-pressed") == "true"
    page.keyboard.press("a")
    assert page.locator("#all").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "false"


def test_a_click_shows_the_job_and_a_drag_zooms(browser: Any) -> None:
    page = opened(browser, {**EVENT, "jobs": [job(0, took_s=40.0, ran_s=30.0, phases=LONG)]})
    page.locator("#gantt").scroll_into_view_if_needed()
    box = page.locator("#gantt-canvas").bounding_box()
    x, y = box["x"] + box["width"] / 3, box["y"] + 45
    page.mouse.click(x, y)
    page.wait_for_selector("#job:has-text('gcc -c file0.c')")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 200, y, steps=4)
    page.mouse.up()
    assert page.locator("#all").get_attribute("aria-pressed") == "false"
    page.mouse.dblclick(x, box["y"] + 8)
    assert page.locator("#all").get_attribute("aria-pressed") == "true"


LONG = {"queued": 1.0, "on the worker": 31.0}
LOOKS = [(1280, "light"), (1280, "dark"), (390, "dark"), (390, "light")]


@pytest.mark.in_turn("width")
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_page_fits_and_is_accessible(
    browser: Any, width: int, scheme: str, tmp_path: Path
) -> None:
    source = axe(tmp_path)
    page = opened(browser, viewport={"width": width, "height": 844}, color_scheme=scheme)
    send(page, {"over": [101, 102], "now": NOW})
    page.locator("#slowest button").first.click()
    page.wait_for_selector("#explain")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.evaluate(source)
    found = page.evaluate("axe.run()")["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []


SLOTS, MANY = 1000, 20_000
#: A frame may take as long as so many times as many plain rectangles.
DEAR = 20
DRAWING = """
async (count) => {
  const { Gantt } = await import("./gantt.js");
  const { layout } = await import("./layout.js");
  const jobs = Array.from({ length: count }, (_, i) => ({
    source: `/src/file${i}.c`, outcome: ["compiled", "hit", "local", "failed"][i % 4 ? 0 : i % 3],
    worker: `build${i % 50}:8443`, began: Math.floor(i / 1000) * 3, took_s: 2.5, ran_s: 2,
    rounds: 1, reason: "", phases: { "on the worker": 2.4 } }));
  const slots = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`build${i}:8443`, 20]));
  const root = document.getElementById("gantt");
  root.replaceWith(root.cloneNode(true));
  const gantt = new Gantt(document.getElementById("gantt"), () => {}, () => {});
  const timed = (draw) => {
    const times = Array.from({ length: 15 }, () => {
      const began = performance.now();
      draw();
      gantt.canvas.getContext("2d").getImageData(0, 0, 1, 1);
      return performance.now() - began;
    });
    return times.sort((a, b) => a - b)[7];
  };
  const laid = timed(() => layout(jobs, [], 100, slots));
  gantt.show(layout(jobs, [], 100, slots), 0, 63);
  gantt.folded = new Set(gantt.groups.map((group) => group.place));
  gantt.place();
  const folded = timed(() => gantt.draw());
  gantt.folded.clear();
  gantt.place();
  const unfolded = timed(() => gantt.draw());
  const context = gantt.canvas.getContext("2d");
  const plain = timed(() => {
    for (let i = 0; i < count; i++) context.fillRect(i % 1000, (i * 7) % 380, 3, 10);
  });
  return { laid, folded, unfolded, plain };
}
"""


def test_a_thousand_slots_are_drawn_about_as_fast_as_their_rectangles(
    browser: Any, record_property: Any
) -> None:
    page = opened(browser)
    took = page.evaluate(DRAWING, MANY)
    record_property("milliseconds", took)
    print(took)
    assert max(took["folded"], took["unfolded"], took["laid"]) <= DEAR * max(took["plain"], 1)


UPDATES = """
(count) => {
  for (let i = 0; i < count; i++) {
    const job = { build: 7, began: event.began, source: "/src/x.c", worker: "build0:8443" };
    const begun = { [i]: { ...job, ended: "queued", is_local: false } };
    window.send({ begun, over: [i - 1], status: window.status_, now: NOW + i / 2 });
  }
}
""".replace("event.began", str(BEGAN)).replace("NOW", str(NOW))


def test_the_heap_is_flat_over_ten_thousand_updates(browser: Any) -> None:
    page = opened(browser)
    protocol = page.context.new_cdp_session(page)
    page.evaluate("(found) => { window.status_ = found; }", STATUS)

    def used(updates: int) -> float:
        page.evaluate(UPDATES, updates)
        drawn(page)
        protocol.send("HeapProfiler.collectGarbage")
        return float(protocol.send("Runtime.getHeapUsage")["usedSize"])

    before, after = used(2000), used(10_000)
    assert after < 1.25 * before
