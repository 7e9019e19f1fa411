"""The real inotify: every change made before the barrier was told before the barrier returns."""

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distbuild.mirror.file_systems import is_remote
from distbuild.mirror.inotify import InotifyWatcher
from distbuild.mirror.watching import NoWatcher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

ROUNDS = 50
LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")


class Watched:
    """A tree under a watcher that records what it is told."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.outside = base / "outside"
        for directory in (self.root, self.outside):
            directory.mkdir()
        self.told: dict[str, bool] = {}
        self.overflows = 0
        self.watcher = InotifyWatcher(self._changed, self._overflowed)
        assert self.watcher.add(str(self.root))

    def _changed(self, path: str, is_directory: bool) -> None:
        self.told[path] = self.told.get(path, False) or is_directory

    def _overflowed(self) -> None:
        self.overflows += 1

    def heard(self) -> dict[str, bool]:
        """What was told up to now, by path relative to the root; then forgotten."""
        assert self.watcher.barrier()
        told, self.told = self.told, {}
        return {os.path.relpath(path, self.root): kind for path, kind in told.items()}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(Path(os.path.realpath(tmp_path)))
    yield watched
    watched.watcher.stop()


def write(watched: Watched, n: int) -> dict[str, bool]:
    (watched.root / "x.h").write_text(str(n))
    return {"x.h": False}


def write_and_rename(watched: Watched, n: int) -> dict[str, bool]:
    (watched.root / f"new{n}").write_text(str(n))
    (watched.root / f"new{n}").rename(watched.root / "x.h")
    return {f"new{n}": False, "x.h": False}


def rename_into(watched: Watched, n: int) -> dict[str, bool]:
    (watched.outside / "x.h").write_text(str(n))
    (watched.outside / "x.h").rename(watched.root / "x.h")
    return {"x.h": False}


def make_a_directory_and_write(watched: Watched, n: int) -> dict[str, bool]:
    (watched.root / f"d{n}").mkdir()
    (watched.root / f"d{n}" / "x.h").write_text(str(n))
    return {f"d{n}": True}


def remove_and_recreate(watched: Watched, n: int) -> dict[str, bool]:
    directory = watched.root / "again"
    if n:
        shutil.rmtree(directory)
    directory.mkdir()
    assert watched.watcher.add(str(directory))
    (directory / "x.h").write_text(str(n))
    return {"again": True}


def move_a_directory_out(watched: Watched, n: int) -> dict[str, bool]:
    (watched.root / "m").mkdir()
    assert watched.watcher.add(str(watched.root / "m"))
    (watched.root / "m").rename(watched.outside / f"m{n}")
    return {"m": True}


def link(watched: Watched, n: int) -> dict[str, bool]:
    (watched.outside / f"x{n}").write_text(str(n))
    os.link(watched.outside / f"x{n}", watched.root / f"x{n}")
    return {f"x{n}": False}


def switch_a_symlink(watched: Watched, n: int) -> dict[str, bool]:
    os.symlink(str(n), watched.root / "temporary")
    (watched.root / "temporary").rename(watched.root / "link")
    return {"temporary": False, "link": False}


def unlink(watched: Watched, n: int) -> dict[str, bool]:
    (watched.root / "x.h").touch()
    (watched.root / "x.h").unlink()
    return {"x.h": False}


def make_executable(watched: Watched, n: int) -> dict[str, bool]:
    path = watched.root / "tool"
    path.touch()
    path.chmod(0o755 if n % 2 else 0o644)
    return {"tool": False}


WAYS = [
    write,
    write_and_rename,
    rename_into,
    make_a_directory_and_write,
    remove_and_recreate,
    move_a_directory_out,
    link,
    switch_a_symlink,
    unlink,
    make_executable,
]


@pytest.mark.parametrize("way", WAYS)
def test_what_was_done_before_the_barrier_is_told_before_it_returns(
    watched: Watched, way: Callable[[Watched, int], dict[str, bool]]
) -> None:
    for n in range(ROUNDS):
        expected = way(watched, n)
        told = watched.heard()
        assert expected.items() <= told.items(), f"round {n}: {told}"
    assert watched.overflows == 0


def test_one_event_is_told_at_a_time_and_in_order(watched: Watched) -> None:
    """By the reader, or by whoever waits at the barrier: never by both at the same time."""
    told: list[str] = []
    telling = threading.Lock()

    def changed(path: str, is_directory: bool) -> None:
        assert telling.acquire(blocking=False)
        told.append(path)
        telling.release()

    watched.watcher._changed = changed
    files = [str(watched.root / f"{n}.h") for n in range(500)]
    waiting = [threading.Thread(target=_wait_often, args=(watched,)) for _ in range(3)]
    for thread in waiting:
        thread.start()
    for file in files:
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY))
    for thread in waiting:
        thread.join()
    assert watched.watcher.barrier()
    assert list(dict.fromkeys(told)) == files
    assert watched.overflows == 0


def _wait_often(watched: Watched) -> None:
    for _ in range(300):
        watched.watcher.barrier()


def test_barriers_of_many_threads_do_not_disturb_each_other(watched: Watched) -> None:
    lost = []

    def work(number: int) -> None:
        for n in range(30):
            path = watched.root / f"{number}.{n}"
            path.touch()
            if not watched.watcher.barrier() or str(path) not in watched.told:
                lost.append(path)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []


def test_events_in_a_moved_directory_name_its_new_path(watched: Watched) -> None:
    old, new = watched.root / "old", watched.root / "new"
    (old / "deep").mkdir(parents=True)
    for directory in (old, old / "deep"):
        assert watched.watcher.add(str(directory))
    watched.heard()
    old.rename(new)
    assert watched.heard().items() >= {"old": True, "new": True}.items()
    for directory in (new, new / "deep"):
        assert watched.watcher.add(str(directory))
    (new / "x.h").touch()
    (new / "deep/y.h").touch()
    assert watched.heard() == {"new/x.h": False, "new/deep/y.h": False}


def test_a_directory_watched_under_two_names_speaks_for_the_one_that_is_left(
    watched: Watched,
) -> None:
    old, new = watched.root / "old", watched.root / "new"
    old.mkdir()
    assert watched.watcher.add(str(old))
    watched.heard()
    old.rename(new)
    assert watched.watcher.add(str(new))  # before the reader may have seen the move
    watched.heard()
    assert watched.watcher.add(str(new))
    (new / "x.h").touch()
    assert watched.heard() == {"new/x.h": False}


def test_a_removed_directory_can_be_watched_again(watched: Watched) -> None:
    directory = watched.root / "d"
    for _ in range(3):
        directory.mkdir()
        assert watched.watcher.add(str(directory))
        (directory / "x.h").touch()
        assert watched.heard()["d/x.h"] is False
        shutil.rmtree(directory)
        assert watched.heard()["d"] is True


def test_a_watched_directory_itself_tells_of_its_end(watched: Watched) -> None:
    alone = watched.outside / "alone"
    alone.mkdir()
    assert watched.watcher.add(str(alone))
    alone.rename(watched.outside / "moved")
    assert watched.heard() == {"../outside/alone": True}
    (watched.outside / "moved/x.h").touch()
    assert watched.heard() == {}


def test_forgotten_directories_are_silent(watched: Watched) -> None:
    for name in ("a", "a/b", "ab"):
        (watched.root / name).mkdir()
        assert watched.watcher.add(str(watched.root / name))
    watched.heard()
    watched.watcher.forget(str(watched.root / "a"))
    for name in ("a/x.h", "a/b/x.h", "ab/x.h"):
        (watched.root / name).touch()
    assert watched.heard() == {"ab/x.h": False}
    assert watched.watcher.add(str(watched.root / "a"))
    (watched.root / "a/y.h").touch()
    assert watched.heard() == {"a/y.h": False}


def test_names_that_are_no_utf8_are_told_as_they_are(watched: Watched) -> None:
    (watched.root / "caf\udce9.h").touch()
    assert watched.heard() == {"caf\udce9.h": False}


def test_what_is_no_directory_cannot_be_watched(watched: Watched) -> None:
    (watched.root / "file").touch()
    (watched.root / "link").symlink_to(watched.outside)
    added = [watched.watcher.add(str(watched.root / n)) for n in ("file", "link", "none")]
    assert added == [False, False, False]


def test_a_full_kernel_queue_is_noticed(tmp_path: Path) -> None:
    """A callback that blocks lets the kernel's queue run full."""
    try:
        before = LIMIT.read_text(encoding="ascii")
        LIMIT.write_text("16", encoding="ascii")
    except OSError:
        pytest.skip("the limit of the queue cannot be lowered here")
    try:
        watched = Watched(Path(os.path.realpath(tmp_path)))
    finally:
        LIMIT.write_text(before, encoding="ascii")
    go_on = threading.Event()
    watched._changed = lambda path, is_directory: go_on.wait()  # type: ignore[assignment]
    watched.watcher._changed = watched._changed
    try:
        for n in range(200):
            (watched.root / f"{n}.h").touch()
        go_on.set()
        assert watched.watcher.barrier()
        assert watched.overflows > 0
    finally:
        go_on.set()
        watched.watcher.stop()


def test_an_error_while_telling_counts_as_an_overflow(watched: Watched) -> None:
    def fail(path: str, is_directory: bool) -> None:
        raise OSError(path)

    watched.watcher._changed = fail
    (watched.root / "x.h").touch()
    assert watched.watcher.barrier()
    assert watched.overflows > 0


def test_without_notification_nothing_is_watched_and_nothing_waited_for() -> None:
    watcher = NoWatcher()
    assert not watcher.add("/")
    watcher.forget("/")
    assert watcher.barrier()
    watcher.stop()


def test_a_local_directory_is_not_remote(tmp_path: Path) -> None:
    assert [is_remote(d) for d in (str(tmp_path), "/nowhere")] == [False, False]


def test_what_changes_in_the_root_directory_has_one_slash(watched: Watched) -> None:
    assert watched.watcher.add("/")
    number = watched.watcher._watched["/"][0]
    watched.watcher._emit(number, watched.watcher._bits.IN_CREATE, b"new")
    assert watched.told == {"/new": False}
    watched.watcher.forget("/")
    assert watched.watcher._watched == {}


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_a_directory_that_goes_while_it_comes_to_be_watched_is_watched_once_it_is_back(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    above, directory = watched.root / "a", watched.root / "a" / "s"
    directory.mkdir(parents=True)
    assert watched.watcher.add(str(above))
    reader = watched.watcher._fd
    add_callback = reader.add_callback

    def interrupted(*arguments: object) -> object:
        wd = add_callback(*arguments)  # type: ignore[arg-type]
        if how == "renamed":
            above.rename(watched.root / "b")
        else:
            shutil.rmtree(above)
        # Whoever waits at a barrier meanwhile has the events told, unless it has to wait for this.
        teller = threading.Thread(target=watched.watcher.barrier)
        teller.start()
        teller.join(0.3)
        return wd

    monkeypatch.setattr(reader, "add_callback", interrupted)
    watched.watcher.add(str(directory))
    monkeypatch.undo()
    watched.heard()
    directory.mkdir(parents=True)
    for again in (above, directory):
        assert watched.watcher.add(str(again))
    watched.heard()
    (directory / "x.h").write_text("")
    assert "a/s/x.h" in watched.heard()
