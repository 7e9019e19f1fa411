import os
import subprocess
from pathlib import Path

import pytest

from distbuild.worker.sandbox.mounts import MANY_NAMES, MountPlan
from distbuild.worker.sandbox.namespace import probe
from tests.support.tools import absent, need


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    for name in ("usr/bin", "usr/lib/gcc", "tree/home/me/proj/inc", "tree/usr/include", "out"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "usr/bin/gcc").write_text("")
    (tmp_path / "usr/link").symlink_to("bin")
    return tmp_path


def words(plan: MountPlan, disk: Path) -> list[str]:
    """The options, one string each, with the test's directory called @."""
    text = [os.fsdecode(word).replace(str(disk), "@") for word in plan.arguments()]
    return " ".join(text).replace(" --", "\n--").split("\n")


def at(disk: Path, name: str) -> bytes:
    return os.fsencode(disk / name)


def test_a_mount_point_that_is_there_is_mounted_over(disk: Path) -> None:
    plan = MountPlan()
    plan.bind(b"/usr", at(disk, "usr"))
    plan.bind(b"/usr/lib/gcc", at(disk, "out"), writable=True)
    assert words(plan, disk) == [
        "--ro-bind @/usr /usr",
        "--bind @/out /usr/lib/gcc",
        "--remount-ro /",
    ]


def test_a_missing_mount_point_has_its_parent_rebuilt(disk: Path) -> None:
    plan = MountPlan()
    plan.bind(b"/usr", at(disk, "usr"))
    plan.bind(b"/usr/include", at(disk, "tree/usr/include"))
    assert words(plan, disk) == [
        "--tmpfs /usr",
        "--ro-bind @/usr/bin /usr/bin",
        "--ro-bind @/tree/usr/include /usr/include",
        "--ro-bind @/usr/lib /usr/lib",
        "--symlink bin /usr/link",
        "--remount-ro /usr",
        "--remount-ro /",
    ]


def test_places_are_what_is_shown_and_what_is_mounted_over(disk: Path) -> None:
    plan = MountPlan()
    plan.bind(b"/usr", at(disk, "usr"))
    plan.bind(b"/usr/lib/gcc", at(disk, "out"), writable=True)
    plan.special(b"/tmp", "tmpfs")
    plan.bind(b"/tmp/x", at(disk, "tree"))
    found = [os.fsdecode(path).replace(str(disk), "@") for path in plan.places()]
    assert sorted(found) == ["@/out", "@/tree", "@/usr", "@/usr/lib/gcc"]


def test_directories_above_a_mount_are_made(disk: Path) -> None:
    plan = MountPlan()
    plan.bind(b"/a/b", at(disk, "out"))
    assert words(plan, disk) == [
        "--tmpfs /a",
        "--ro-bind @/out /a/b",
        "--remount-ro /a",
        "--remount-ro /",
    ]


def test_outer_mounts_come_first_and_a_later_one_replaces_what_is_below(disk: Path) -> None:
    plan = MountPlan()
    plan.bind(b"/home", at(disk, "tree/home"))
    plan.bind(b"/home/me/proj", at(disk, "out"), writable=True)
    (disk / "out/inc").mkdir()
    plan.bind(b"/home/me/proj/inc", at(disk, "tree/home/me/proj/inc"))
    assert words(plan, disk) == [
        "--ro-bind @/tree/home /home",
        "--bind @/out /home/me/proj",
        "--ro-bind @/tree/home/me/proj/inc /home/me/proj/inc",
        "--remount-ro /",
    ]


def test_symlinks_above_a_mount_are_followed(disk: Path) -> None:
    plan = MountPlan()
    plan.bind(b"/usr", at(disk, "usr"))
    (disk / "lib").symlink_to("usr/lib")
    plan.show(b"/lib", at(disk, "lib"))
    plan.bind(b"/lib/gcc", at(disk, "out"))
    assert words(plan, disk) == [
        "--symlink usr/lib /lib",
        "--ro-bind @/usr /usr",
        "--ro-bind @/out /usr/lib/gcc",
        "--remount-ro /",
    ]


def test_children_are_shown_in_a_temporary_directory(disk: Path) -> None:
    plan = MountPlan()
    plan.special(b"/tmp", "tmpfs")
    plan.bind_children(b"/tmp", at(disk, "tree"))
    assert words(plan, disk) == [
        "--tmpfs /tmp",
        "--ro-bind-try @/tree/home /tmp/home",
        "--ro-bind-try @/tree/usr /tmp/usr",
        "--remount-ro /",
    ]


def test_a_crowded_directory_is_rebuilt_with_links(disk: Path) -> None:
    for number in range(MANY_NAMES):
        (disk / f"usr/lib/lib{number}.so").write_text("")
    plan = MountPlan()
    plan.bind(b"/usr", at(disk, "usr"))
    plan.bind(b"/usr/lib/glib/include", at(disk, "out"))
    found = words(plan, disk)
    assert "--ro-bind @/usr/lib/gcc /usr/lib/gcc" in found
    assert "--symlink /.dist_build.under1/lib7.so /usr/lib/lib7.so" in found
    assert "--ro-bind @/usr/lib /.dist_build.under1" in found


def test_what_is_there_is_known(disk: Path) -> None:
    plan = MountPlan()
    plan.bind(b"/usr", at(disk, "usr"))
    assert plan.has(b"/usr/link/gcc")
    assert not plan.has(b"/usr/include")


def test_a_writable_directory_has_its_mount_points_already(disk: Path) -> None:
    plan = MountPlan()
    plan.bind(b"/w", at(disk, "out"), writable=True)
    with pytest.raises(ValueError, match="no mount point"):
        plan.bind(b"/w/missing", at(disk, "usr"))


def test_links_in_a_circle_are_refused(disk: Path) -> None:
    (disk / "loop").symlink_to("/loop/x")
    plan = MountPlan()
    plan.show(b"/loop", at(disk, "loop"))
    with pytest.raises(ValueError, match="too many symlinks"):
        plan.bind(b"/loop/y", at(disk, "out"))


def test_a_symlink_in_place_of_a_file_has_the_directory_rebuilt(disk: Path) -> None:
    (disk / "tree/gcc").symlink_to("other")
    plan = MountPlan()
    plan.bind(b"/usr", at(disk, "usr"))
    plan.show(b"/usr/bin/gcc", at(disk, "tree/gcc"))
    assert words(plan, disk) == [
        "--ro-bind @/usr /usr",
        "--tmpfs /usr/bin",
        "--symlink other /usr/bin/gcc",
        "--remount-ro /usr/bin",
        "--remount-ro /",
    ]


def test_what_is_shown_is_known(disk: Path) -> None:
    plan = MountPlan()
    plan.bind(b"/usr", at(disk, "usr"))
    plan.bind(b"/usr/lib", at(disk, "out"))
    assert plan.is_shown(b"/usr/bin/gcc", at(disk, "usr/bin/gcc"))
    assert plan.is_shown(b"/usr/link", at(disk, "usr/link"))
    assert not plan.is_shown(b"/usr/lib/gcc", at(disk, "usr/lib/gcc"))
    assert not plan.is_shown(b"/none", at(disk, "out"))


def test_a_step_up_behind_a_link_leaves_the_link_s_target(disk: Path) -> None:
    (disk / "short").symlink_to("usr/lib/gcc")
    plan = MountPlan()
    plan.bind(b"/usr", at(disk, "usr"))
    plan.show(b"/short", at(disk, "short"))
    plan.bind(b"/short/../new", at(disk, "out"))
    assert plan.is_shown(b"/usr/lib/new", at(disk, "out"))
    assert plan.has(b"/missing/../usr/./bin//gcc")
    assert plan.has(b"/short/")


def test_the_last_name_of_a_mount_point_is_not_followed(disk: Path) -> None:
    plan = MountPlan()
    plan.bind(b"/usr", at(disk, "usr"))
    plan.bind(b"/usr/link", at(disk, "out"))
    assert plan.is_shown(b"/usr/link", at(disk, "out"))
    assert plan.is_shown(b"/usr/bin", at(disk, "usr/bin"))


def test_a_child_that_is_gone_when_the_sandbox_is_made_is_left_out(disk: Path) -> None:
    """The mirror of a busy /tmp loses files all the time."""
    bwrap = need("bwrap")
    if hindered := probe(bwrap):
        absent(hindered)
    (disk / "tree/cc1.s").write_text("")
    plan = MountPlan()
    plan.bind(b"/usr", b"/usr")
    for name in (b"/lib", b"/lib64", b"/bin"):
        if os.path.exists(name):
            plan.show(name, name)
    plan.special(b"/tmp", "tmpfs")
    plan.bind_children(b"/tmp", at(disk, "tree"))
    options = plan.arguments()
    (disk / "tree/cc1.s").unlink()
    listed = subprocess.run(
        [bwrap, "--unshare-user", *options, "ls", "/tmp"], capture_output=True, check=False
    )
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, b"home\nusr\n", b"")
