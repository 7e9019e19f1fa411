"""Runs a Python program, and writes at its end where its threads used the processor.

    SAMPLED_PROGRAM=program.py SAMPLED_OUT=samples.json sampled.py [ARGUMENT ...]

A thread looks at the stacks of all others every millisecond, and charges to each the processor
time that Linux counted for its thread since. Stacks that wait are skipped: their threads worked
elsewhere. The samples are JSON: ``total_ms``, the processor time of all; ``charged_ms``, the
part that was charged to stacks; ``functions``: name -> [own ms, ms with all that it called].
"""

import json
import os
import runpy
import sys
import threading
import time
from collections import defaultdict
from types import FrameType

PERIOD_S = 0.001
#: With Python's 5 ms the sampler would see only stacks that just gave up the interpreter's lock.
SWITCH_S = 0.00005
WAITS = {
    "http.poller:Events.wait",
    "http.run:_End.wait",
    "watchdog.observers.inotify_c:InotifyFD._check_inotify_fd",
}


class Sampler:
    """Samples from ``start`` to ``stop``; knows nothing of the program."""

    def __init__(self) -> None:
        self.charged_ms = 0.0
        self.functions: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._used: dict[int, int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        own = threading.get_ident()
        while not self._stopping.wait(PERIOD_S):
            frames = sys._current_frames()
            for thread in threading.enumerate():
                if thread.ident in frames and thread.ident != own and thread.native_id:
                    self._charge(frames[thread.ident], self._new_ms(thread.native_id))

    def _new_ms(self, native_id: int) -> float:
        """The processor time of a thread since the last call (ms)."""
        try:
            with open(f"/proc/self/task/{native_id}/schedstat", "rb") as stat:
                used = int(stat.read().split()[0])
        except FileNotFoundError:  # it has just ended
            return 0.0
        before, self._used[native_id] = self._used.get(native_id, 0), used
        return max(0, used - before) / 1e6  # an id may be used again

    def _charge(self, frame: FrameType, spent_ms: float) -> None:
        if not spent_ms or _is_waiting(frame):
            return
        self.charged_ms += spent_ms
        seen = set()
        at: FrameType | None = frame
        while at is not None:
            name = _name(at)
            if at is frame:
                self.functions[name][0] += spent_ms
            if name not in seen:  # a recursive function counts once
                seen.add(name)
                self.functions[name][1] += spent_ms
            at = at.f_back


def _name(frame: FrameType) -> str:
    module = str(frame.f_globals.get("__name__", "?")).removeprefix("distbuild.")
    return f"{module}:{frame.f_code.co_qualname}"


def _is_waiting(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") == "threading" or _name(frame) in WAITS


def main() -> None:
    out, program = os.environ.pop("SAMPLED_OUT"), os.environ.pop("SAMPLED_PROGRAM")
    sys.path.insert(0, os.path.dirname(program))
    sys.setswitchinterval(SWITCH_S)
    sampler = Sampler()
    sampler.start()
    try:
        runpy.run_path(program, run_name="__main__")
    finally:
        sampler.stop()
        samples = {
            "total_ms": 1000 * time.process_time(),
            "charged_ms": sampler.charged_ms,
            "functions": sampler.functions,
        }
        with open(out, "w", encoding="utf-8") as file:
            json.dump(samples, file)


if __name__ == "__main__":
    main()
