"""A world of its own for threaded code: seeded chance orders its threads, and time is virtual.

Each thread is a greenlet, so exactly one runs at a time, and another may run only where code takes
a lock, waits, sleeps or sends: there chance decides. ``installed`` gives modules this world's
``threading`` and ``time``. The same seed gives the same run.
"""

import contextlib
import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

#: The chance that another task runs at a point where a thread might be interrupted.
INTERRUPTS = 0.2
#: What each step of a task takes (virtual seconds): time passes, and no two events are at one time.
STEP_S = 0.00001
#: So many steps mean that something runs in circles.
MAX_STEPS = 2_000_000


class Host:
    """A machine: its tasks stop for good when it dies, and for a while when it is frozen."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.frozen_until = 0.0

    def __repr__(self) -> str:
        return f"Host({self.name})"


class SimulatedTask:
    """One thread. ``wait``: the number of its present wait; 0: it is ready or runs."""

    def __init__(self, world: "World", host: Host, run: Callable[[], object], name: str) -> None:
        self.host = host
        self.name = name
        self.is_done = False
        self.wait = 0
        self.is_woken = False
        self.joiners: list[SimulatedTask] = []
        self._world = world
        self._run = run
        self.greenlet = greenlet(self._start, world.hub)

    def __repr__(self) -> str:
        return f"{self.host.name}/{self.name}"

    def _start(self) -> None:
        try:
            self._run()
        except GreenletExit:
            pass
        except BaseException as error:  # noqa: BLE001 - the run ends with it
            self._world.failures.append(error)
        finally:
            self.is_done = True
            for task in self.joiners:
                self._world.wake(task)


class World:
    """The scheduler and its clock."""

    def __init__(self, seed: int | str) -> None:
        self.chance = random.Random(seed)
        self.now = 1_000.0
        self.hub = getcurrent()
        self.failures: list[BaseException] = []
        self.steps = 0
        self._tasks: list[SimulatedTask] = []
        self._ready: list[SimulatedTask] = []
        self._timers: list[tuple[float, int, SimulatedTask | Callable[[], object]]] = []
        self._numbers = itertools.count(1)
        self._current: SimulatedTask | None = None
        self._is_closed = False

    # --- tasks ----------------------------------------------------------------------------------

    def spawn(self, host: Host, run: Callable[[], object], name: str = "task") -> SimulatedTask:
        task = SimulatedTask(self, host, run, name)
        if len(self._tasks) > 2 * len(self._ready) + 200:
            self._tasks = [one for one in self._tasks if not one.is_done]
        self._tasks.append(task)
        self._ready.append(task)
        return task

    @property
    def task(self) -> SimulatedTask:
        """The task that runs."""
        assert self._current is not None, "only tasks may wait"
        return self._current

    def is_over(self) -> bool:
        """Whether the running task's machine is dead: its finally-blocks then do nothing."""
        return self._is_closed or (self._current is not None and not self._current.host.is_alive)

    def pause(self) -> None:
        """A point at which another task may run."""
        if self.is_over():
            raise GreenletExit
        if self._current is None:
            return
        if self.chance.random() < INTERRUPTS:
            self._ready.append(self._current)
            self._switch()

    def suspend(self, until: float | None = None) -> bool:
        """Let others run; True once the task is woken, False if it is not woken until then."""
        if self.is_over():
            raise GreenletExit
        task = self.task
        task.wait = next(self._numbers)
        if until is not None:
            heapq.heappush(self._timers, (until, task.wait, task))
        self._switch()
        return task.is_woken

    def wake(self, task: SimulatedTask) -> None:
        if task.wait:
            task.wait, task.is_woken = 0, True
            self._ready.append(task)

    def sleep(self, seconds: float) -> None:
        self.suspend(self.now + seconds)

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Have the hub call ``act``, which may not wait."""
        heapq.heappush(self._timers, (self.now + seconds, next(self._numbers), act))

    def _switch(self) -> None:
        self.hub.switch()
        if self.is_over():
            raise GreenletExit

    # --- the hub --------------------------------------------------------------------------------

    def run(self, until: Callable[[], bool], limit_s: float) -> None:
        """Run until the condition holds; AssertionError after ``limit_s`` virtual seconds, and what
        a task has raised."""
        ends = self.now + limit_s
        while not until():
            self.steps += 1
            assert self.steps < MAX_STEPS, "no end of steps"
            if self._ready:
                self._run_one()
                if self.failures:
                    raise self.failures[0]
            else:
                assert self._timers, "everything waits for ever"
                self._pass_time()
                assert self.now < ends, f"not within {limit_s:.0f} s"

    def _run_one(self) -> None:
        at = self.chance.randrange(len(self._ready))
        task = self._ready[at]
        self._ready[at] = self._ready[-1]
        self._ready.pop()
        if task.is_done or not task.host.is_alive:
            return
        if task.host.frozen_until > self.now:
            thaw = task.host.frozen_until
            task.wait, woken = next(self._numbers), task.is_woken
            number = task.wait
            self._at(thaw, lambda: self._thaw(task, number, is_woken=woken))
            return
        self.now += STEP_S
        self._current = task
        task.greenlet.switch()
        self._current = None

    def _at(self, when: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (when, next(self._numbers), act))

    def _thaw(self, task: SimulatedTask, number: int, *, is_woken: bool) -> None:
        if task.wait == number:
            task.wait, task.is_woken = 0, is_woken
            self._ready.append(task)

    def _pass_time(self) -> None:
        when, number, what = heapq.heappop(self._timers)
        self.now = max(self.now, when)
        if not isinstance(what, SimulatedTask):
            what()
        elif what.wait == number:
            what.wait, what.is_woken = 0, False
            self._ready.append(what)

    def close(self) -> None:
        """End all tasks; their finally-blocks change nothing any more."""
        self._is_closed = True
        for task in self._tasks:
            if not task.is_done and task.greenlet:
                task.greenlet.throw(GreenletExit)


# --- what modules get in place of threading and time --------------------------------------------


class Lock:
    """Both ``Lock`` and ``RLock``."""

    def __init__(self, world: World, *, reentrant: bool = False) -> None:
        self._world = world
        self._reentrant = reentrant
        self._owner: SimulatedTask | None = None
        self._depth = 0
        self._waiting: list[SimulatedTask] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        world = self._world
        if world.is_over() or world._current is None:
            return True
        world.pause()
        if self._reentrant and self._owner is world.task:
            self._depth += 1
            return True
        while self._owner is not None:
            if not blocking:
                return False
            assert self._owner is not world.task, "a deadlock of one thread"
            self._waiting.append(world.task)
            world.suspend()
        self._owner, self._depth = world.task, 1
        return True

    def release(self) -> None:
        world = self._world
        if world.is_over() or world._current is None:
            return
        assert self._owner is world.task
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
            if self._waiting:
                world.wake(self._waiting.pop(world.chance.randrange(len(self._waiting))))

    def __enter__(self) -> "Lock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Condition:
    def __init__(self, world: World, lock: Lock | None = None) -> None:
        self._world = world
        self._lock = lock or Lock(world, reentrant=True)
        self._waiting: list[SimulatedTask] = []

    def __enter__(self) -> "Condition":
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        world = self._world
        if world.is_over():
            raise GreenletExit
        self._waiting.append(world.task)
        self._lock.release()
        woken = world.suspend(None if timeout is None else world.now + timeout)
        if world.task in self._waiting:
            self._waiting.remove(world.task)
        self._lock.acquire()
        return woken

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        ends = None if timeout is None else self._world.now + timeout
        while not (result := predicate()):
            left = None if ends is None else ends - self._world.now
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        if self._world.is_over():
            return
        for _ in range(min(n, len(self._waiting))):
            self._world.wake(self._waiting.pop(0))

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class Event:
    def __init__(self, world: World) -> None:
        self._world = world
        self._is_set = False
        self._waiting: list[SimulatedTask] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            self._world.wake(task)

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        self._world.pause()
        if not self._is_set:
            self._waiting.append(self._world.task)
            self._world.suspend(None if timeout is None else self._world.now + timeout)
            if self._world.task in self._waiting:
                self._waiting.remove(self._world.task)
        return self._is_set


class Thread:
    def __init__(
        self,
        world: World,
        target: Callable[..., object],
        name: str = "",
        args: Iterable[Any] = (),
        daemon: bool | None = None,
    ) -> None:
        self._world = world
        self._target, self._args = target, tuple(args)
        self.name = name
        self._task: SimulatedTask | None = None

    def start(self) -> None:
        host = self._world.task.host
        self._task = self._world.spawn(host, lambda: self._target(*self._args), self.name)

    def join(self, timeout: float | None = None) -> None:
        assert self._task is not None
        if not self._task.is_done:
            self._task.joiners.append(self._world.task)
            self._world.suspend(None if timeout is None else self._world.now + timeout)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.is_done


class Pool:
    """An executor of ``count`` threads of the host whose task makes it."""

    def __init__(self, world: World, count: int) -> None:
        self._queue: list[Callable[[], object]] = []
        self._changed = Condition(world)
        for number in range(count):
            world.spawn(world.task.host, self._serve, f"pool {number}")

    def submit(self, act: Callable[..., object], *args: Any, **named: Any) -> None:
        with self._changed:
            self._queue.append(lambda: act(*args, **named))
            self._changed.notify()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                act = self._queue.pop(0)
            act()

    def shutdown(self, wait: bool = True) -> None:
        pass


@contextlib.contextmanager
def installed(world: World, modules: Iterable[ModuleType], **more: Any) -> Iterator[None]:
    """While it lasts these modules have the world's ``threading`` and ``time``, and ``more``."""
    threading = SimpleNamespace(
        Lock=lambda: Lock(world),
        RLock=lambda: Lock(world, reentrant=True),
        Condition=lambda lock=None: Condition(world, lock),
        Event=lambda: Event(world),
        Thread=lambda **named: Thread(world, **named),
        local=SimpleNamespace,
    )
    time = SimpleNamespace(
        monotonic=lambda: world.now, time=lambda: world.now + 1e9, sleep=world.sleep
    )
    given = {"threading": threading, "time": time, **more}
    before = [
        (module, name, getattr(module, name))
        for module in modules
        for name in given
        if hasattr(module, name)
    ]
    for module, name, _ in before:
        setattr(module, name, given[name])
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
