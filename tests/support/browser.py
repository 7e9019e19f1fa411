"""Chromium under Playwright, and the JavaScript tools that some tests need."""

import contextlib
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.tools import absent, need

#: Of the checks for accessibility; npm has it.
AXE = "axe-core@4.10.3"


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A running browser of the system, or skip."""
    program = need("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def new_page(browser: Any, **settings: Any) -> Any:
    """A page in a context of its own, whose waits are limits for what hangs."""
    page = browser.new_context(**settings).new_page()
    page.set_default_timeout(120_000)
    return page


def watched(page: Any) -> list[str]:
    """A list to which each error of a page is appended: of scripts, the console and requests."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.extend([said.text] if said.type == "error" else []))
    page.on("requestfailed", lambda request: errors.append(f"{request.url}: {request.failure}"))
    return errors


def axe(directory: Path) -> str:
    """The source of axe-core, or skip."""
    npm = need("npm")
    done = subprocess.run(
        [npm, "pack", "--silent", "--pack-destination", str(directory), AXE],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    packed = next(directory.glob("axe-core-*.tgz"), None)
    if done.returncode != 0 or packed is None:
        absent(f"npm has no {AXE}: {done.stderr[:200]}")
    with tarfile.open(str(packed)) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()
