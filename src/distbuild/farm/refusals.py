"""What was refused of each worker's results: a count and the last reason, for the status and the
log. Pure but for the log; has no lock."""

import logging

import msgspec

log = logging.getLogger(__name__)

#: A hostile worker may take another name for each result: the oldest are forgotten.
MAX_WORKERS = 100


class RefusedResults(msgspec.Struct, frozen=True):
    """So many results of the worker that people know by ``label``, and why the last."""

    label: str
    count: int
    why: str


class Refusals:
    """By worker, the one that was refused last at the end."""

    def __init__(self) -> None:
        self._of: dict[str, RefusedResults] = {}

    def note(self, worker: str, label: str, why: str) -> None:
        """A result was refused; the first of a worker is worth a warning."""
        before = self._of.pop(worker, None)
        level = logging.WARNING if before is None else logging.INFO
        log.log(level, "a result of %s was refused: %s", label, why)
        self._of[worker] = RefusedResults(label, before.count + 1 if before else 1, why)
        if len(self._of) > MAX_WORKERS:
            del self._of[next(iter(self._of))]

    def of_all(self) -> dict[str, RefusedResults]:
        """A copy."""
        return dict(self._of)
