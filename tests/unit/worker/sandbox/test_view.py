"""The mounts of a namespace are planned anew when something that they depend on has changed."""

import hashlib
import os
from pathlib import Path

import pytest

from distbuild.command.model import Family, Local
from distbuild.command.parse import parse
from distbuild.compiler.identity import Identity
from distbuild.mirror.manifest import DIRECTORY
from distbuild.protocol.messages import Entry, FileEntry, Job, SymlinkEntry
from distbuild.worker.compilers import InstalledDriver
from distbuild.worker.sandbox.base import SandboxTask
from distbuild.worker.sandbox.output_dirs import LayeredDirectory, PrivateDirectory
from distbuild.worker.sandbox.view import KEEP_S, OURS, SharedView, Views, operations
from distbuild.worker.tree.paths import parents
from tests.unit.worker.devbox import DevBox


class Seen:
    """Tasks in one tree, the mounts that they get, and how often these were planned."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.box = DevBox(directory / "worker")
        self.directory = directory
        self.now = 0.0
        self.views = Views(lambda: self.now)
        self.planned = 0
        self.needs: tuple[str, ...] = ()
        self.driver = "/usr/bin/gcc"
        from distbuild.worker.sandbox import view

        plan = view._plan

        def counted(*arguments):
            self.planned += 1
            return plan(*arguments)

        monkeypatch.setattr(view, "_plan", counted)

    def become(self, *paths: str, roots: tuple[str, ...] = ()) -> None:
        """Mirror these directories."""
        entries: dict[bytes, Entry] = {os.fsencode(path): DIRECTORY for path in paths}
        self.box.roots = {*map(os.fsencode, roots)}
        self.box.become(entries)

    def mounts(self, number: int = 0, out: str = "/proj/build") -> list[bytes]:
        """The options for a task of which ``number`` is the directory; it writes in ``out``."""
        task = self.task(number, out)
        private = PrivateDirectory(os.fsencode(out), task.directory + b"/out0")
        return self.views.arguments(task, [private], task.directory + b"/ours")

    def shared(self, number: int = 0, *out: str) -> SharedView | None:
        """The part of them that tasks share which write in these directories."""
        return self.views.shared(self.task(number, out[0]), list(map(os.fsencode, out)))

    def task(self, number: int, out: str) -> SandboxTask:
        own = os.fsencode(self.directory / f"job{number}")
        os.makedirs(own + b"/ours", exist_ok=True)
        identity = Identity("id", Family.GCC, "1", self.driver, (), (), self.needs)
        command = parse(["gcc", "-c", "a.c"], out, lambda _: None)
        assert not isinstance(command, Local)
        job = Job("l", 0, [b"gcc"], os.fsencode(out), {}, "id")
        driver = InstalledDriver(self.driver, identity)
        return SandboxTask(job, command, driver, self.box.tree, own)


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Seen:
    made = Seen(tmp_path, monkeypatch)
    made.become("/proj", "/proj/build", "/tmp", "/tmp/x", roots=("/proj",))
    return made


def test_tasks_alike_share_a_plan_but_not_their_directories(seen: Seen) -> None:
    first, second = seen.mounts(1), seen.mounts(2)
    assert seen.planned == 1
    one, two = (os.fsencode(seen.directory / name) for name in ("job1", "job2"))
    assert [word.replace(one, two) for word in first] == second
    at = second.index(OURS)
    assert second[at - 2 : at] == [b"--bind", two + b"/ours"]


def test_another_output_directory_has_a_plan_of_its_own(seen: Seen) -> None:
    seen.mounts(1)
    assert b"/proj" in seen.mounts(2, "/proj")
    assert seen.planned == 2


def test_a_change_of_the_tree_makes_a_new_plan(seen: Seen) -> None:
    seen.mounts()
    seen.become("/proj", "/proj/build", "/more", "/tmp", roots=("/proj",))
    assert b"/more" in seen.mounts()


@pytest.mark.parametrize("place", ["/new", "/tmp/new", "/dev/new"])
def test_a_name_that_a_running_job_adds_makes_a_new_plan(seen: Seen, place: str) -> None:
    before = seen.mounts()
    with seen.box.tree.holds.holding([], [os.fsencode(place)]):
        assert any(os.fsencode(place) in word for word in seen.mounts() if word not in before)
    assert seen.mounts() == before


def test_the_roots_alone_make_a_new_plan(seen: Seen) -> None:
    seen.become("/proj", "/proj/build", "/usr", "/usr/include", roots=("/proj",))
    assert b"/usr/include" not in seen.mounts()
    seen.become("/proj", "/proj/build", "/usr", "/usr/include", roots=("/usr/include",))
    assert b"/usr/include" in seen.mounts()


def test_the_workers_own_directories_are_looked_at_again_after_a_while(seen: Seen) -> None:
    seen.mounts()
    seen.now = KEEP_S - 1
    seen.mounts()
    assert seen.planned == 1
    seen.now = KEEP_S
    seen.mounts()
    assert seen.planned == 2


def test_no_plan_is_kept_where_the_compiler_stands_in_a_mirrored_directory(seen: Seen) -> None:
    seen.needs = ("/usr/include/cc1",)
    seen.become("/proj", "/proj/build", "/usr", "/usr/include", roots=("/usr/include",))
    assert seen.mounts() == seen.mounts()
    assert seen.planned == 2


def test_links_and_files_of_the_dev_box_stand_in_lent_directories(seen: Seen) -> None:
    file = FileEntry(hashlib.sha256(b"x").digest(), 1, 0o444, 0)
    entries: dict[bytes, Entry] = {
        b"/proj": DIRECTORY,
        b"/proj/build": DIRECTORY,
        b"/usr": DIRECTORY,
        b"/usr/new.h": file,
        b"/usr/link": SymlinkEntry(b"include"),
        b"/lib": SymlinkEntry(b"elsewhere"),
    }
    seen.box.roots = {b"/proj", b"/usr/new.h", b"/usr/link", b"/lib"}
    seen.box.become(entries, {b"/usr/new.h": b"x"})
    words = seen.mounts()
    assert words[words.index(b"/usr/link") - 2 :][:2] == [b"--symlink", b"include"]
    assert words[words.index(b"/usr/new.h") - 1] == seen.box.tree.ground.real(b"/usr/new.h")
    # The loader of programs is there.
    assert b"elsewhere" not in words


def _many(seen: Seen, directory: str) -> list[bytes]:
    """The options where a hundred single files of one directory are the dev box's."""
    names = [os.fsencode(f"{directory}/dist_build_{number}.h") for number in range(100)]
    file = FileEntry(hashlib.sha256(b"x").digest(), 1, 0o444, 0)
    entries: dict[bytes, Entry] = dict.fromkeys(names, file)
    above = [os.fsencode(path) for path in ("/proj", "/proj/build", directory)]
    entries.update({path: DIRECTORY for one in above for path in (one, *parents(one))})
    seen.box.roots = set(names)
    seen.box.become(entries, dict.fromkeys(names, b"x"))
    return seen.mounts()


@pytest.mark.parametrize("directory", ["/usr/dist_build_none/deep", "/usr/include/linux"])
def test_one_mount_shows_many_files_of_a_directory(seen: Seen, directory: str) -> None:
    words = _many(seen, directory)
    outer = os.path.dirname(directory) if "none" in directory else directory
    real = seen.box.tree.ground.real(os.fsencode(outer))
    assert words[words.index(os.fsencode(outer)) - 2 :][:2] == [b"--ro-bind", real]
    assert not any(b"dist_build_7.h" in word for word in words)


@pytest.mark.parametrize("directory", ["/usr/bin", "/usr/lib/gcc"])
def test_no_mount_hides_what_a_compiler_may_miss(seen: Seen, directory: str) -> None:
    seen.needs = ("/usr/lib/gcc/x/cc1",)
    words = _many(seen, directory)
    assert os.fsencode(f"{directory}/dist_build_7.h") in words
    assert seen.box.tree.ground.real(os.fsencode(directory)) not in words


# --- prepared for many jobs ---------------------------------------------------------------------


def test_jobs_in_any_directory_share_a_view(seen: Seen) -> None:
    seen.become("/proj", "/proj/build", "/proj/other", "/tmp", roots=("/proj",))
    first = seen.shared(1, "/proj/build")
    assert first is not None
    assert seen.shared(2, "/proj/other", "/proj/build") == first
    assert not any(b"job1" in word for word in first.words)
    before = seen.box.tree.revision()
    seen.become("/proj", "/proj/build", "/proj/new", "/tmp", roots=("/proj",))
    assert seen.box.tree.revision() != before
    assert seen.shared(3, "/proj/build") == first  # only what is in /proj has changed


def test_a_shown_file_is_one_by_which_a_view_holds(seen: Seen) -> None:
    view = seen.shared(1, "/proj/build")
    assert view is not None
    assert {b"/usr", seen.box.tree.ground.real(b"/proj")} <= {*view.places}


def test_a_directory_of_the_workers_shows_the_trees_entries_to_be_written_in(seen: Seen) -> None:
    seen.become("/proj", "/usr", "/usr/include", "/usr/include/out", "/tmp", roots=("/proj",))
    view = seen.shared(1, "/usr/include/out")
    assert view is not None
    real = seen.box.tree.ground.real(b"/usr/include/out")
    at = view.words.index(b"/usr/include/out")
    assert view.words[at - 2 : at] == (b"--ro-bind", real)


def test_a_compiler_in_a_directory_that_is_written_in_needs_a_namespace_of_its_own(
    seen: Seen, tmp_path: Path
) -> None:
    for name in ("bin", "lib"):
        (tmp_path / "kit" / name).mkdir(parents=True)
    seen.driver = str(tmp_path / "kit/bin/gcc")
    out = str(tmp_path / "kit")
    seen.become("/proj", *map(os.fsdecode, parents(os.fsencode(out))), out, roots=("/proj",))
    assert seen.shared(1, out) is None
    seen.needs = ("/usr/include/cc1",)
    seen.become("/proj", "/usr", "/usr/include", roots=("/usr/include",))
    assert seen.shared(1, "/proj") is None


@pytest.mark.parametrize("out", ["/usr", "/etc", "/dev"])
def test_no_job_writes_in_the_workers_directories(seen: Seen, out: str) -> None:
    with pytest.raises(ValueError, match="is the worker's"):
        seen.shared(1, out)


def test_operations_make_a_jobs_own_directories(seen: Seen) -> None:
    seen.become("/proj", "/proj/build", "/proj/build/sub", "/tmp", "/tmp/x", roots=("/proj",))
    task = seen.task(7, "/proj/build")
    private = PrivateDirectory(b"/proj/build", task.directory + b"/out0")
    private.directories.append(b"sub")
    jobs = b"/.dist_build.jobs"
    others = ((b"cc", True, None), (b"kit", False, b"/opt/kit"))
    view = SharedView((), (), others)
    tmp = [b"tmpfs /.dist_build.tmp", b"directory /.dist_build.tmp/x"]
    tmp += [b"bind /tmp/x /.dist_build.tmp/x", b"directory /.dist_build.tmp/cc"]
    tmp += [b"bind /tmp/cc /.dist_build.tmp/cc", b"link /opt/kit /.dist_build.tmp/kit"]
    tmp += [b"move /.dist_build.tmp /tmp"]
    rest = [b"bind %s/job7/ours /.dist_build" % jobs, b"detach " + jobs]
    assert b" ".join(operations(task, [private], view)) == b" ".join(
        [
            b"proc /proc",
            *tmp,
            b"bind /proj/build/sub %s/job7/out0/sub" % jobs,
            b"bind %s/job7/out0 /proj/build" % jobs,
            *rest,
        ]
    )
    layered = LayeredDirectory(b"/tmp", task.directory + b"/out1")
    assert b" ".join(operations(task, [layered], view)) == b" ".join(
        [b"proc /proc", b"overlay /tmp %s/job7/out1" % jobs, *rest]
    )
