"""``setup.start_syncer``: which of several compiles that find no syncer starts one."""

import json
import os
import time
from pathlib import Path

from distbuild.config import Home
from distbuild.system.process import hold
from distbuild.wrapper.setup import STARTING_S, start_syncer


def made(path: Path) -> Home:
    home = Home(path)
    home.state.mkdir(parents=True)
    home.autostart.write_text(json.dumps(["sh", "-c", f"echo x >> {path}/started"]))
    return home


def test_a_syncer_that_another_compile_starts_at_this_moment_is_awaited(tmp_path: Path) -> None:
    home = made(tmp_path)
    with hold(home.state / "autostart.lock"):  # its mark comes next
        assert start_syncer(home)
    assert not (tmp_path / "started").exists()


def test_a_syncer_that_runs_and_does_not_serve_is_not_awaited(tmp_path: Path) -> None:
    home = made(tmp_path)
    mark = home.state / "autostart"
    mark.touch()
    long_ago = time.time() - 1000 * STARTING_S
    os.utime(mark, (long_ago, long_ago))
    with hold(home.state / "autostart.lock"):
        assert not start_syncer(home)
    assert not (tmp_path / "started").exists()
