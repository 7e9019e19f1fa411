"""What a stolen build machine can do to a developer: nothing but refuse to compile."""

from pathlib import Path

import msgspec

from distbuild.protocol.messages import Job, ResultRequest
from tests.support.cluster import Cluster, run_here
from tests.support.hostile_worker import HostileWorker, output

ARGV = ["gcc", "-c", "a.c", "-o", "a.o"]


def local_object(project: Path) -> bytes:
    """What the local compiler makes of it."""
    assert run_here(ARGV, project).exit_code == 0
    made = (project / "a.o").read_bytes()
    (project / "a.o").unlink()
    return made


def test_an_honest_answer_is_taken(syncer: Cluster, evil: HostileWorker, project: Path) -> None:
    expected, before = local_object(project), syncer.jobs()["done"]
    with evil.answering(lambda job, truth: truth):
        done = syncer.run(ARGV, project)
    assert (done.exit_code, done.stderr) == (0, b"")
    assert (project / "a.o").read_bytes() == expected
    assert (syncer.jobs()["done"], evil.taken) == (before + 1, [True])


def test_no_file_is_written_that_the_command_does_not_write(
    syncer: Cluster, evil: HostileWorker, project: Path, tmp_path: Path
) -> None:
    expected = local_object(project)
    victim = tmp_path / ".bashrc"

    def lie(job: Job, truth: ResultRequest) -> ResultRequest:
        outputs = [*truth.outputs, output(str(victim), b"echo evil\n", 0o755)]
        return msgspec.structs.replace(truth, outputs=outputs)

    with evil.answering(lie):
        done = syncer.run(ARGV, project)
    assert not victim.exists()
    assert done.exit_code == 0
    assert (project / "a.o").read_bytes() == expected
    assert b"compiled locally: " in done.stderr
