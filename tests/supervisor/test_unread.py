"""What passes the supervisor unread: smtpd gets one legal answer to each request all the same."""

from __future__ import annotations

import os
import selectors
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenfilter._control import ALIVE, HELLO, Hello
from greenfilter._supervisor.journal import Piece, departures, only, without
from greenfilter._supervisor.lifecycle import State
from greenfilter._supervisor.link import Link
from greenfilter._supervisor.router import Router
from greenfilter.protocol import PHASES, Guard, Stream
from tests.protocol.driver import Driver, report, request
from tests.protocol.legality import Judge
from tests.testing.recordings import lines as recorded

SID, OTHER, TOKEN = b"00000000deadbeef", b"00000000cafebabe", b"0123456789abcdef"
WIRE = [phase.wire for phase in PHASES.values()]
HELLOS = Hello("fake", [("smtp-in", "tx-begin")], WIRE, dict.fromkeys(WIRE, 30.0), {})


NOWHERE = os.open(os.devnull, os.O_RDWR)


class FakeWorker(SimpleNamespace):
    """A worker that echoes all, in this process. Its link is never flushed."""

    def __init__(self, now: float) -> None:
        link = Link(selectors.SelectSelector(), (NOWHERE, NOWHERE), bytes, lambda: None)
        super().__init__(
            link=link, tail=b"", sessions={}, departed=[], mute=None, waits={}, beat=now
        )
        self.hello, self.state = HELLOS, State.SERVING
        self.driver = Driver()
        self.driver.connection._on_control = self.control
        self.read = 0

    def control(self, line: bytes) -> None:
        verb, _, rest = line[len(b"greenfilter|") :].partition(b"|")
        if verb == b"replay":
            self.driver.connection.restore(rest)

    def work(self) -> bytes:
        """Read all that was given, and return the answers."""
        data = b"".join(self.link._out)
        self.link._out.clear()
        self.read += len(data)
        return self.driver.feed(data)

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Smtpd:
    """Says what was recorded, and judges what it is told."""

    def __init__(self) -> None:
        self.judge = Judge()
        self.phases: dict[tuple[bytes, bytes], bytes] = {}
        self.sent: dict[bytes, list[bytes]] = defaultdict(list)
        self.got: dict[bytes, list[bytes]] = defaultdict(list)
        self.accepted = 0

    def says(self, data: bytes) -> bytes:
        self.judge.asks(data)
        for line in data.split(b"\n"):
            parts = line.split(b"|", 7)
            if parts[0] == b"filter" and parts[4] == b"data-line":
                if parts[7] != b".":
                    self.sent[parts[5]].append(parts[7])
            elif parts[0] == b"filter":
                self.phases[parts[5], parts[6]] = parts[4]
        return data

    def hears(self, data: bytes) -> None:
        self.judge.told(data)
        for line in data.split(b"\n"):
            parts = line.split(b"|", 3)
            if parts[0] == b"filter-dataline" and parts[3] != b".":
                self.got[parts[1]].append(parts[3])
            elif parts[0] == b"filter-result" and self.phases[parts[1], parts[2]] == b"commit":
                sent, got = self.sent.pop(parts[1], []), self.got.pop(parts[1], [])
                if parts[3] == b"proceed":
                    assert got == sent, "a message is not whole"
                    self.accepted += 1


class World:
    """smtpd, a router, and one worker after another, or several at a time."""

    def __init__(self, workers: int = 1) -> None:
        self.smtpd = Smtpd()
        self.router = Router(self.smtpd.hears)
        self.now = 1000.0
        self.router.clock = lambda: self.now
        self.router.answers.hello = HELLOS
        self.workers = [FakeWorker(self.now) for _ in range(workers)]
        self.publish()

    @property
    def worker(self) -> FakeWorker:
        """The first one."""
        return self.workers[0]

    def publish(self) -> None:
        self.router.trust([*self.workers])  # type: ignore[list-item]
        self.router.sessions.set_homes([*self.workers])  # type: ignore[list-item]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for worker in self.workers:
            worker.beat = self.now

    def say(self, *lines: bytes) -> None:
        self.router.from_smtpd(self.smtpd.says(b"".join(lines)))

    def answer(self, data: bytes, worker: FakeWorker | None = None) -> None:
        self.router.from_worker(worker or self.worker, data)  # type: ignore[arg-type]

    def work(self) -> None:
        """Have every worker answer what it was given."""
        for worker in self.workers:
            self.answer(worker.work(), worker)

    def replace(self, worker: FakeWorker) -> FakeWorker:
        """Have a worker die, and another one come, as the pool does."""
        self.router.catch_up()
        self.router.abandon(worker, worker.read)  # type: ignore[arg-type]
        self.workers[self.workers.index(worker)] = new = FakeWorker(self.now)
        self.publish()
        self.router.ask_again()
        return new

    def unread(self) -> int:
        return len(self.router._journal._pieces)


def pieces() -> list[bytes]:
    """A recorded session with a message, cut where smtpd waits; another client comes and goes."""
    found = [b""]
    for direction, line in recorded("smtpd-7.8.0", "plain"):
        if line.startswith((b"config|", b"register|")):
            continue
        if direction == "<":
            if b"|protocol-server|" not in line:  # nothing depends on them
                found[-1] += line + b"\n"
        elif found[-1]:
            found.append(b"")
    return [
        report("link-connect", b"x", b"pass", b"192.0.2.7:1", b"192.0.2.25:25", sid=SID),
        *[each for piece in found for each in (piece, request("noop", sid=SID, token=TOKEN))],
        *[report("protocol-client", b"x", sid=SID)] * 3,  # it leaves when it has its answer
        report("link-disconnect", sid=SID),
    ]


PIECES = pieces()


def play(cut: int, look: int, deaf: int, workers: int = 1) -> tuple[int, World]:
    """Play the recording; return the bytes that workers have written.

    Args:
        cut: bytes after which the worker that has written the last of them writes no more.
        look: the journal is read after so many pieces each.
        deaf: pieces for which the worker lives on without reading.
        workers: how many there are.
    """
    world, written, dies_at = World(workers), 0, -1
    victim: FakeWorker | None = None
    for number, piece in enumerate(PIECES):
        world.say(piece)
        for worker in world.workers:
            output = worker.work() if worker is not victim else b""
            if victim is None and output and written + len(output) >= cut:
                output, victim, dies_at = output[: cut - written], worker, number + deaf
            written += len(output)
            world.answer(output, worker)
        if victim is not None and number == dies_at:
            new = world.replace(victim)
            output = new.work()
            written += len(output)
            world.answer(output, new)
        if number % look == 0:
            world.router.catch_up()
    world.router.catch_up()
    return written, world


LENGTH = play(1 << 30, 1, 0)[0]


def test_all_passes_while_nobody_dies():
    written, world = play(1 << 30, 1000, 0)
    assert written == LENGTH > 1000
    assert world.smtpd.judge.unanswered() == 0
    assert world.smtpd.accepted == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("deaf", [0, 1])
@pytest.mark.parametrize("look", [1, 3, 1000])
def test_a_worker_may_die_at_every_byte_with_the_journal_in_every_state(look, deaf, workers):
    accepted = set()
    for cut in range(0, LENGTH, 1 + 4 * deaf):
        _, world = play(cut, look, deaf, workers)
        assert world.smtpd.judge.unanswered() == 0, cut
        assert len(world.router.answers.ledger) == 0, cut
        assert list(world.router.answers.guard.owes()) == [], cut
        accepted.add(world.smtpd.accepted)
    assert accepted == {0, 1}


def test_requests_that_a_dead_worker_had_not_read_are_answered_by_the_next_one():
    world = World()
    world.say(request("noop", sid=SID), request("noop", sid=OTHER))
    assert world.worker.work().count(b"proceed") == 2
    world.say(request("noop", sid=b"00000000aaaaaaaa"))
    told: list[bytes] = []
    world.smtpd.hears = told.append  # type: ignore[method-assign]
    world.router.answers.send = told.append
    world.replace(world.worker)
    assert len(told) == 2
    assert all(b"|reject|451 " in answer for answer in told)
    answer = world.worker.work()
    assert answer.startswith(b"filter-result|00000000aaaaaaaa|")


def test_sessions_pass_unread_and_are_known_when_that_is_asked_for():
    world = World()
    for number in range(50):
        sid = b"%016x" % number
        world.say(report("link-identify", b"EHLO", b"x", sid=sid), request("noop", sid=sid))
        world.answer(world.worker.work())
    assert world.unread() == 100
    assert not world.router.sessions.sessions
    world.router.catch_up()
    assert len(world.router.sessions.sessions) == len(world.worker.sessions) == 50
    assert world.unread() == 0
    assert list(world.router.answers.guard.owes()) == []


HOSTILE = {
    "twice in one piece": b"filter-result|SID|TOKEN|proceed\n" * 2,
    "wrong token": b"filter-result|SID|ffffffffffffffff|proceed\n",
    "unknown session": b"filter-result|ffffffffffffffff|TOKEN|proceed\n",
    "token first": b"filter-result|TOKEN|SID|proceed\n",
    "a value": b"filter-result|SID|TOKEN|proceed|x\n",
    "capitals": b"filter-result|SID|TOKEN|PROCEED\n",
    "carriage return": b"filter-result|SID|TOKEN|proceed\r\n",
    "two lines in one": b"filter-result|SID|TOKEN|proceed filter-result|SID|TOKEN|proceed\n",
    "something before": b"x\nfilter-result|SID|TOKEN|proceed\n",
    "early dot": b"filter-dataline|SID|TOKEN|.\n",
    "alive in a line": b"filter-result|SID|TOKEN|reject|550 greenfilter|alive\n",
    "hello": HELLO + b"{}\n",
    "alive": ALIVE * 3,
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_hostile_worker_writes_is_read(name, workers):
    world = World(workers)
    for sid in (SID, OTHER):
        world.say(request("noop", sid=sid, token=TOKEN))
    data = HOSTILE[name].replace(b"SID", SID).replace(b"TOKEN", TOKEN)
    for worker in world.workers * 2:
        world.answer(data, worker)
    world.now += 60
    world.router.expire()
    assert world.smtpd.judge.unanswered() == 0


PROCEED = b"filter-result|%b|%b|proceed\n"


def test_a_worker_answers_only_for_its_own_sessions():
    world = World(2)
    world.say(request("noop", sid=SID, token=TOKEN), request("noop", sid=OTHER, token=TOKEN))
    first, second = world.workers
    assert SID in b"".join(second.link._out)
    world.answer(PROCEED % (SID, TOKEN) + PROCEED % (OTHER, TOKEN), second)
    assert world.smtpd.judge.unanswered() == 1
    world.answer(PROCEED % (SID, TOKEN), first)
    assert world.smtpd.judge.unanswered() == 1
    world.work()
    assert world.smtpd.judge.unanswered() == 0


def test_what_a_silent_worker_would_get_is_read_until_its_sessions_are_at_home():
    world = World(2)
    first, second = world.workers
    world.now += 2
    first.beat = world.now
    world.say(request("noop", sid=SID, token=TOKEN))
    assert SID in b"".join(first.link._out)
    assert second.link.given == 0
    world.pass_time(0)
    world.say(request("noop", sid=OTHER, token=TOKEN))
    world.answer(PROCEED % (SID, TOKEN), second)
    assert world.smtpd.judge.unanswered() == 2
    world.work()
    assert world.smtpd.judge.unanswered() == world.unread() == 0
    world.say(report("link-disconnect", sid=SID))
    world.say(request("noop", sid=SID, token=TOKEN), request("noop", sid=OTHER, token=TOKEN))
    assert world.unread() == 2
    assert SID in b"".join(second.link._out)
    world.work()
    assert world.smtpd.judge.unanswered() == 0


@pytest.mark.parametrize("message", [False, True])
@pytest.mark.parametrize("junk", [b"junk", b"rewrite|x", b"proceed|x", b"reject|no code"])
def test_what_is_not_legal_at_commit_is_not_passed(junk, message):
    world = World()
    if message:
        for line in (b"one", b"."):
            world.say(request("data-line", line, sid=SID, token=TOKEN))
        world.answer(world.worker.work())
    world.say(request("commit", sid=SID, token=TOKEN))
    world.answer(b"filter-result|%b|%b|%b\n" % (SID, TOKEN, junk))
    assert world.smtpd.judge.unanswered() == 0
    assert world.smtpd.accepted == 0


@pytest.mark.parametrize("extra", [b"more\n", b".\n"])
@pytest.mark.parametrize("commit", [False, True])
def test_nothing_of_a_message_passes_after_its_dot(extra, commit):
    world = World()
    for line in (b"one", b"two", b"."):
        world.say(request("data-line", line, sid=SID, token=TOKEN))
    world.answer(world.worker.work())
    if commit:
        world.say(request("commit", sid=SID, token=TOKEN))
    world.answer(b"filter-dataline|%b|%b|%b" % (SID, TOKEN, extra))
    if not commit:
        world.say(request("commit", sid=SID, token=TOKEN))
    world.answer(world.worker.work())
    assert world.smtpd.judge.unanswered() == 0
    assert world.smtpd.accepted == 1


def test_an_answer_to_commit_that_was_decided_otherwise_is_not_passed():
    world = World()
    for line in (b"one", b"two"):
        world.say(request("data-line", line, sid=SID, token=TOKEN))
    # It ends the message early, and would have it accepted.
    world.answer(b"filter-dataline|%b|%b|.\n" % (SID, TOKEN))
    world.say(request("data-line", b".", sid=SID, token=TOKEN))
    world.say(request("commit", sid=SID, token=TOKEN))
    world.answer(b"filter-result|%b|%b|proceed\n" % (SID, TOKEN))
    assert world.smtpd.judge.unanswered() == 0
    assert world.smtpd.accepted == 0


def test_a_request_that_passed_unread_is_answered_by_policy_at_its_deadline():
    world = World()
    world.say(request("noop", sid=SID, token=TOKEN))
    world.now += 29
    world.router.expire()
    assert world.smtpd.judge.unanswered() == 1
    world.now += 1.3
    world.router.expire()
    assert world.smtpd.judge.unanswered() == 0
    # The late answer goes nowhere, and until it has come the session is answered by policy.
    world.say(request("noop", sid=SID, token=TOKEN))
    assert world.smtpd.judge.unanswered() == 0
    world.answer(b"filter-result|%b|%b|proceed\n" % (SID, TOKEN))
    world.say(request("noop", sid=SID, token=TOKEN))
    assert world.unread() == 1
    world.answer(b"filter-result|%b|%b|proceed\n" % (SID, TOKEN))
    assert world.smtpd.judge.unanswered() == 0


def test_a_request_that_was_read_and_its_answer_was_not_is_not_late():
    world = World()
    world.router.expire()  # which also looks for silent sessions, for the first time
    world.say(request("noop", sid=SID, token=TOKEN))
    world.router.catch_up()
    world.pass_time(29.9)
    world.work()
    world.pass_time(0.5)
    world.router.expire()
    assert world.smtpd.judge.unanswered() == 0
    assert world.worker.mute is None


def test_sessions_let_go_while_the_journal_is_read_get_no_second_answer():
    world = World()
    world.router.sessions.max_sessions = 2
    for number in range(10):
        sid = b"%016x" % number
        world.say(request("noop", sid=sid, token=TOKEN))
        if number % 2:
            world.answer(world.worker.work())
    world.router.catch_up()
    world.answer(world.worker.work())
    assert world.smtpd.judge.unanswered() == 0


def test_a_session_let_go_while_the_journal_is_read_is_answered_once_however_often_it_asks():
    world = World()
    world.router.sessions.max_sessions = 1
    world.say(request("noop", sid=SID, token=TOKEN))
    world.say(report("link-connect", *CAME, sid=OTHER))  # one too many
    world.answer(world.worker.work())
    world.say(request("noop", sid=SID, token=TOKEN))
    world.router.catch_up()
    world.answer(world.worker.work())
    assert world.smtpd.judge.unanswered() == 0
    world.say(request("noop", sid=OTHER, token=TOKEN))
    world.answer(world.worker.work())
    world.router.catch_up()
    assert len(world.router.sessions.sessions) == 1
    assert world.smtpd.judge.unanswered() == 0


def test_commit_of_a_message_that_came_while_all_was_read_is_read():
    world = World()
    world.router.trust([])  # a reload, perhaps
    data = [
        request("data-line", value, sid=SID, token=TOKEN) for value in (b"Subject: x", b"", b".")
    ]
    world.say(report("link-connect", *CAME, sid=SID), *data)
    world.replace(world.worker)
    world.say(request("commit", b"", sid=SID, token=TOKEN))
    world.answer(world.worker.work())
    assert world.smtpd.accepted == 0
    assert world.smtpd.judge.unanswered() == 0


def test_what_a_session_is_owed_ends_with_it():
    world = World()
    world.say(report("link-connect", *CAME, sid=SID), request("noop", sid=SID, token=TOKEN))
    world.say(report("link-disconnect", sid=SID))
    assert len(world.router.answers.ledger) == 0
    heard = []
    world.router._send = heard.append
    world.answer(world.worker.work())
    assert heard == []


def test_half_a_line_is_passed_when_it_is_whole():
    world = World()
    line = request("noop", sid=SID, token=TOKEN)
    for at in range(len(line)):
        world.router.from_smtpd(line[at : at + 1])
        assert world.worker.link.given == (len(line) if at == len(line) - 1 else 0)
    world.smtpd.says(line)
    answer = world.worker.work()
    for at in range(len(answer)):
        world.answer(answer[at : at + 1])
    assert world.smtpd.judge.unanswered() == 0
    assert world.unread() == 2


# What two clients may do; each message is sent in pieces that may end anywhere.
CONTENT = st.one_of(
    st.sampled_from(
        [b"", b"..", b"a|.", b"|", b"x" * 2_100, b"x" * 63_901, b"filter|0.7|1|", b"\r"]
    ),
    st.binary(max_size=40).map(lambda line: line.replace(b"\n", b" ").replace(b".", b",")),
)
STEP = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from([SID, OTHER]), st.sampled_from(WIRE[:4])),
    st.tuples(st.just("message"), st.sampled_from([SID, OTHER]), st.lists(CONTENT, max_size=12)),
    st.tuples(st.just("leave"), st.sampled_from([SID, OTHER]), st.none()),
)


def traffic(steps: list[tuple[str, bytes, object]]) -> list[bytes]:
    """What smtpd says between two times at which it waits; two clients may be in one."""
    units: list[tuple[bytes, bytes]] = []
    for kind, sid, what in steps:
        if kind == "ask":
            units.append((sid, request(str(what), b"x", sid=sid, token=TOKEN)))
        elif kind == "leave":
            units.append((sid, report("link-disconnect", sid=sid)))
        else:
            lines = [b"Subject: x", b"", *what, b"."]  # type: ignore[misc]
            units.append((sid, b"".join(request("data-line", line, sid=sid) for line in lines)))
            units.append((sid, request("commit", sid=sid, token=TOKEN)))
    found: list[bytes] = []
    there: set[bytes] = set()  # in the last one
    for sid, unit in units:
        if found and sid not in there:
            found[-1] += unit
            there.add(sid)
        else:
            found.append(unit)
            there = {sid}
    return found


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of long messages
@settings(max_examples=150, deadline=None)
@given(
    st.lists(STEP, max_size=12),
    st.lists(st.integers(1, 3_000), min_size=1, max_size=8),
    st.sampled_from([1, 2]),
)
def test_what_passes_unread_is_what_passes_when_it_is_read(steps, sizes, workers):
    told, given_to_workers = [], []
    for unread in (True, False):
        world = World(workers)
        out: list[bytes] = []
        inputs: list[list[bytes]] = [[] for _ in world.workers]
        world.router.answers.send = world.router._send = out.append
        if not unread:
            world.router.trust([])
        for turn, unit in enumerate(traffic(steps)):
            size = sizes[turn % len(sizes)]
            for at in range(0, len(unit), size):
                world.router.from_smtpd(unit[at : at + size])
                for worker, its in zip(world.workers, inputs, strict=True):
                    its += worker.link._out
                    answers = worker.work()
                    for begin in range(0, len(answers), size):
                        world.answer(answers[begin : begin + size], worker)
        world.router.catch_up()
        told.append(b"".join(out))
        given_to_workers.append([b"".join(its) for its in inputs])
        assert len(world.router.answers.ledger) == 0
        assert list(world.router.answers.guard.owes()) == []
    assert told[0] == told[1]
    for unread_way, read_way in zip(*given_to_workers, strict=True):
        assert [*map(without_time, unread_way.split(b"\n"))] == [
            *map(without_time, read_way.split(b"\n"))
        ]


def without_time(line: bytes) -> list[bytes]:
    parts = line.split(b"|")
    return parts[:2] + parts[3:]


@given(st.booleans(), st.lists(CONTENT | st.sampled_from([b".", b"a\0b"]), min_size=1, max_size=9))
def test_lines_that_may_pass_as_they_are_are_written_just_so_by_the_guard(old, lines):
    guard = Guard()
    line = request("data-line", b"", sid=SID, version="0.6" if old else "0.7").rstrip()
    streams = [Stream(Driver().connection.make_session(SID, True), TOKEN, line) for _ in range(2)]
    data = b"".join(streams[0].head + each + b"\n" for each in lines)
    if guard.may_pass(streams[0], data):
        assert guard.data(streams[1], lines) == data
        assert not streams[1].damaged
    elif not any(each.endswith(b"|.") or b"\0" in each or each == b"." for each in lines):
        assert guard.data(streams[1], lines) != data


CAME = (b"x", b"pass", b"192.0.2.7:1", b"192.0.2.25:25")


def test_sessions_that_came_and_went_between_two_looks_are_not_looked_at():
    world = World()
    sids = [b"%016x" % number for number in range(20)]
    for sid in sids:
        world.say(report("link-connect", *CAME, sid=sid), request("noop", sid=sid))
    world.answer(world.worker.work())
    world.say(*[report("link-disconnect", sid=sid) for sid in sids[:-1]])
    world.router.catch_up()
    assert list(world.router.sessions.sessions) == sids[-1:]
    assert world.worker.departed == []
    # A handler of one of them still runs, and ends the worker.
    world.router.recall({sids[3]})
    ((departed, call),) = world.worker.departed
    assert (departed.sid, call) == (sids[3], None)
    assert str(departed.state().src) == "192.0.2.7"


def test_lines_that_make_no_sense_are_left_in_what_is_read():
    sid = b"%016x" % 7
    lines = [report("link-connect", *CAME, sid=sid), b"nonsense\n", request("noop", sid=SID)]
    lines += [request("noop", sid=sid), b"\n", report("link-disconnect", sid=sid)]
    worker: Any = None
    pieces = [Piece(1.0, worker, b"".join(lines), 5, [])]
    pieces += [Piece(2.0, worker, b"", 0, [SID + b"|x", sid + b"|x"])]
    assert departures(b"".join(lines))[0] == {sid}
    read = [b"nonsense\n" + lines[2] + b"\n", [SID + b"|x"]]
    assert [piece.lines or piece.answered for piece in without(pieces, {sid})] == read
    left = [lines[0] + lines[3] + lines[5], [sid + b"|x"]]
    assert [piece.lines or piece.answered for piece in only(pieces, {sid})] == left
