"""The worker processes: how they come into their places, and how they go."""

from __future__ import annotations

import selectors
import time
from typing import TYPE_CHECKING

from .. import _control
from .._control import Hello
from .._process.log import logger
from .blame import blame, suspects
from .code import Code, Generations
from .lifecycle import Event, State
from .options import Options
from .place import Place
from .process import WorkerProcess

if TYPE_CHECKING:
    from .._process.stderr import Sink
    from .router import Router

# To end by itself: finish callbacks, run the delete hooks.
_LEAVE_SECONDS = 3.0
# From the end of its socket to that of the process.
_REAP_SECONDS = 0.1


class Pool:
    """All workers of a supervisor.

    Args:
        options: how to run them.
        selector: of the loop.
        router: passes their lines on.
        sink: gets what the workers log.

    Attributes:
        workers: all that serve sessions or are about to, with their places.
        ending: those that may still run, but serve no session.
        places: one for each of the ``--workers``.
        ward: the place of the worker in quarantine.
        exit_code: what to end with, if the filter cannot be loaded at the start; else None.
    """

    def __init__(
        self, options: Options, selector: selectors.BaseSelector, router: Router, sink: Sink
    ) -> None:
        self.workers: dict[WorkerProcess, Place] = {}
        self.ending: list[WorkerProcess] = []
        self.places = [Place() for _ in range(options.workers)]
        self.ward = Place()
        self.exit_code: int | None = None
        self._options = options
        self._selector = selector
        self._router = router
        self._sink = sink
        self._codes = Generations()
        self._registered: Hello | None = None
        self._config = b""
        self._reload_is_due = False

    @property
    def has_loaded(self) -> bool:
        """Whether a worker has ever loaded the filter."""
        return self._registered is not None

    def start(self) -> None:
        """Start the first worker; the others follow when it has loaded the filter."""
        self.places[0].current = self._spawn(self.places[0])
        self.settle()

    def configure(self, config: bytes) -> None:
        """Tell the workers, and each that comes, what smtpd said of itself."""
        self._config = config
        for worker in self.workers:
            worker.link.send_first(config)

    def listen(self) -> None:
        """Handle what the workers have said to the supervisor itself."""
        said = self._router.said
        while said:
            worker, line = said.pop(0)
            # Before smtpd has said all, it would not survive the registration.
            if line.startswith(_control.HELLO) and self._router.sessions.configured:
                try:
                    hello = _control.parse_hello(line)
                except ValueError as error:
                    self._router.answers.once.warn("hello", f"worker {worker.pid}: {error}")
                else:
                    self.on_hello(worker, hello)
            elif line + b"\n" == _control.WORN_OUT and worker in self.workers:
                self.relieve(worker, "has no threads left that do not hang")

    def settle(self) -> None:
        """Tell the router which workers are there now."""
        homes = [place.current for place in self.places]
        there = [worker for worker in homes if worker is not None]
        serve = all(worker.state is State.SERVING for worker in self.workers)
        well = serve and len(there) == len(homes) == len(self.workers)
        self._router.trust(there if well else [])
        self._router.sessions.set_homes(homes)

    # They come

    def fill(self, now: float) -> None:
        """Start workers in the places that are empty, if it is time."""
        for place in self.places if self.has_loaded else self.places[:1]:
            if place.current is None and now >= place.next_start:
                place.current = self._spawn(place)
        ward = self.ward
        wanted = self._router.quarantine.is_wanted() and self.has_loaded
        if wanted and ward.current is None and now >= ward.next_start:
            ward.current = self._spawn(ward)
        self.settle()

    def _spawn(self, place: Place, code: Code | None = None) -> WorkerProcess | None:
        now = self._router.clock()
        try:
            worker = WorkerProcess(
                self._selector,
                self._options.for_worker(),
                code or self._codes.current,
                now,
                self._router.from_worker,
                self.lose,
                self._sink,
            )
        except (OSError, MemoryError) as error:
            delay = place.failed(now, 0.0)
            logger.critical("cannot start a worker: %s; next try in %g s", error, delay)
            return None
        self.workers[worker] = place
        if code is None:
            self._codes.current.tell_changes()
        if self._config:
            worker.link.send_first(self._config)
        return worker

    def on_hello(self, worker: WorkerProcess, hello: Hello) -> None:
        """Take up a worker that has loaded its filter."""
        place = self.workers.get(worker)
        if place is None or worker.state is not State.LOADING:
            return
        if self._registered is not None and (problem := _missing(self._registered, hello)):
            text = f"new code needs what was not registered with smtpd ({problem}); restart smtpd"
            if place.coming is worker:
                self._refuse(place, text)
            else:
                self.lose(worker, text)
            return
        worker.serve(hello, self._router.clock())
        if self._registered is None:
            self._begin(hello)
        elif place is self.ward:
            self._router.quarantine.open(worker)
        elif place.coming is not worker:
            self._router.answers.hello = hello
        elif place.replaces_alone:
            self._promote(place)
        else:
            self._go_on_with_reload()
        self.settle()

    def _begin(self, hello: Hello) -> None:
        """Register with smtpd what the first worker has loaded, and start the others."""
        self._registered = hello
        self._codes.current.seal()
        self._router.answers.register(hello)
        for place in self.places:
            place.current = place.current or self._spawn(place)
        if self._reload_is_due:
            self.reload()

    # New code

    def reload(self) -> None:
        """Start workers with the present code; when all have loaded, new sessions go to them."""
        if self._registered is None:
            logger.warning("reload: the filter is still being loaded; again after that")
            self._reload_is_due = True
            return
        logger.info("reload: starting workers with the present code")
        self._forgive()
        self._give_up_coming()
        self._codes.begin_reload()
        self._start_coming(self.places[:1])  # the others, when it has loaded: all run the same
        self.settle()

    def _start_coming(self, places: list[Place]) -> None:
        """Start workers with the new code."""
        for place in places:
            place.coming = self._spawn(place, self._codes.coming)
            if place.coming is None:
                self._refuse(place, "not all workers could be started")
                break

    def _go_on_with_reload(self) -> None:
        """Start the other workers with the new code, or have all of them take over."""
        coming = [place.coming for place in self.places]
        if all(worker is not None and worker.state is State.SERVING for worker in coming):
            for place in self.places:
                self._promote(place)
            self._codes.adopt()
            self._forgive()
            logger.info("reload: new sessions go to the new code")
        else:
            self._codes.seal_coming()
            self._start_coming([place for place in self.places if place.coming is None])

    def _forgive(self) -> None:
        """Forget what has ended workers: the code is another."""
        self._router.poison.clear()
        self._router.quarantine.retire()

    def _refuse(self, place: Place, reason: str) -> None:
        """Keep the old code."""
        if place.replaces_alone:
            delay = place.failed(self._router.clock(), 0.0)
            logger.error("not replaced: %s; next try in %g s", reason, delay)
        else:
            logger.error("reload: %s; the old code goes on", reason)
        self._give_up_coming()

    def _give_up_coming(self) -> None:
        for place in self.places:
            worker, place.coming = place.coming, None
            place.replaces_alone = False
            if worker is not None:
                self.let_go(worker)
        self._codes.give_up()

    def _promote(self, place: Place) -> None:
        """Give new sessions to the worker that has come, and let the old one finish its own."""
        old, place.current, place.coming = place.current, place.coming, None
        place.replaces_alone = False
        if place.current is not None and place.current.hello is not None:
            self._router.answers.hello = place.current.hello
        if old is not None and old.state is State.LOADING:
            self.lose(old, "another one has loaded first")
        elif old is not None:
            old.move_on(Event.RETIRE)
            old.leave_by = self._router.clock() + self._options.drain_seconds

    def relieve(self, worker: WorkerProcess, reason: str) -> None:
        """Start another worker in the place of one that lives, unless that is being done."""
        place = self.workers[worker]
        if place is self.ward:
            self._router.quarantine.retire()
        elif (
            place.current is worker
            and place.coming is None
            and self._router.clock() >= place.next_start
            and worker.state is State.SERVING
        ):
            logger.warning("worker %d %s: replaced", worker.pid, reason)
            place.coming = self._spawn(place)
            place.replaces_alone = place.coming is not None
            self.settle()

    # They go

    def lose(self, worker: WorkerProcess, reason: str = "", *, blamed: bool = False) -> None:
        """Answer what a worker owed that has ended or is to, and put another in its place.

        Args:
            worker: which.
            reason: why it is ended here; empty if it ended by itself.
            blamed: one of its requests may be the reason; if it ended by itself, it may be.
        """
        place = self.workers.pop(worker, None)
        if place is None:
            return
        sessions = len(worker.sessions)
        try:
            self._take_leave(worker, place, blamed or not reason)
        finally:  # whatever goes wrong with this one, there is to be a next one
            self._refill(worker, place, reason or worker.end(), sessions)
            self.settle()
            self._router.ask_again()

    def _take_leave(self, worker: WorkerProcess, place: Place, blamed: bool) -> None:
        """Answer what a worker that is to end at once owes, and find out what has ended it."""
        router = self._router
        try:
            self._stop(worker)
            found = suspects(worker) if blamed and place is not self.ward else []
        finally:
            router.abandon(worker, worker.bytes_read())
            router.flush()
        if worker is router.quarantine.worker:
            router.quarantine.lose(blamed)
        blame(router.poison, worker, found)
        router.look_at_reports()

    def _stop(self, worker: WorkerProcess) -> None:
        """End a worker at once. What it has written counts; nothing is written after that."""
        worker.kill()
        worker.link.read_all()
        worker.link.close()
        if not worker.wait(_REAP_SECONDS):
            self.ending.append(worker)
        worker.move_on(Event.END)
        self._router.catch_up()
        self._router.recall({sid for sid, _ in worker.marked()})

    def _refill(self, worker: WorkerProcess, place: Place, reason: str, sessions: int) -> None:
        """Fill the place of a worker that has ended."""
        now = self._router.clock()
        if self._registered is None:
            self._give_up_start(worker, reason)
        elif worker is place.coming:
            self._refuse(place, f"new code did not load ({reason})")
        elif place is self.ward:
            place.current = None
            place.failed(now, now - worker.loaded)
            logger.error("worker %d, in quarantine, ended (%s)", worker.pid, reason)
        elif worker is place.current:
            self._replace(worker, place, reason, sessions)
        else:
            logger.error("old worker %d ended (%s), %d sessions", worker.pid, reason, sessions)

    def _replace(self, worker: WorkerProcess, place: Place, reason: str, sessions: int) -> None:
        now = self._router.clock()
        place.current = None
        delay = place.failed(now, now - worker.loaded if worker.hello else 0.0)
        if worker.hello is not None:
            logger.error(
                "worker %d ended (%s), %d sessions; the next one starts in %g s",
                *(worker.pid, reason, sessions, delay),
            )
        else:
            logger.critical(
                "worker %d did not load the filter (%s); every request is answered by policy "
                "until one does; next try in %g s",
                *(worker.pid, reason, delay),
            )
        if not delay:
            place.current = self._spawn(place)

    def _give_up_start(self, worker: WorkerProcess, reason: str) -> None:
        code = worker.exit_code() or 0
        if code != 2:  # else it has said what is wrong
            logger.critical("%s did not load: %s", self._options.target, reason)
        self.exit_code = code if code > 0 else 2

    def let_go(self, worker: WorkerProcess) -> None:
        """Let a worker end by itself, with its callbacks finished and its delete hooks run."""
        self._router.catch_up()
        self.workers.pop(worker, None)
        worker.link.flush()
        self._router.abandon(worker)
        worker.link.close()
        if worker.state is State.LOADING:
            worker.kill()  # nothing to finish; many reloads in a row are not to pile up
        worker.move_on(Event.END)
        worker.kill_at = self._router.clock() + _LEAVE_SECONDS
        self.ending.append(worker)

    def end_ward(self) -> None:
        """End the worker in quarantine, where it is done."""
        worker = self.ward.current
        if worker is not None:
            self.ward.current = self._router.quarantine.worker = None
            self.let_go(worker)

    def reap(self, now: float) -> None:
        """Reap those that are to end by themselves, and end those that do not."""
        for worker in list(self.ending):
            if worker.exit_code() is not None:
                worker.move_on(Event.GONE)
                self.ending.remove(worker)
            elif now > worker.kill_at:
                worker.kill()

    def close(self, seconds: float) -> None:
        """End them all: they get this long to end by themselves."""
        end = time.monotonic() + seconds
        workers = [*self.workers, *self.ending]
        self.workers.clear()
        for worker in workers:
            worker.link.close()
        for worker in workers:
            if not worker.wait(max(0.01, end - time.monotonic())):
                worker.kill()
        for worker in workers:
            worker.wait(_REAP_SECONDS)


def _missing(first: Hello, hello: Hello) -> str:
    """Name what new code needs that was not registered with smtpd."""
    missing = [phase for phase in hello.phases if phase not in first.phases]
    missing += [
        f"report {event} of {subsystem}"
        for subsystem, event in hello.reports
        if (subsystem, event) not in first.reports
    ]
    return ", ".join(missing)
