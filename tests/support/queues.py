"""What must hold in a job queue between two events."""

from distbuild.farm.jobs import FINAL, State
from distbuild.farm.queue import JobQueue


def inconsistencies(queue: JobQueue) -> list[str]:
    """What does not hold that must hold between events; always empty."""
    found = []
    for number, job in queue._jobs.items():
        if job.number != number or job.state in FINAL:
            found.append(f"{job} is kept under {number}")
        if (number in queue._queued) != (job.state is State.QUEUED):
            found.append(f"{job} and the line disagree")
        if (queue._leases.get(job.lease) == number) != (job.state is State.LEASED):
            found.append(f"{job} and the leases disagree")
    known = queue._jobs.keys()
    if not (set(queue._leases.values()) <= known and queue._queued.keys() <= known):
        found.append("a lease or the line names an answered job")
    return found if list(queue._queued) == sorted(queue._queued) else [*found, "out of order"]
