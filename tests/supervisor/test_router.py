"""The router by itself, without processes."""

import os
import selectors
from itertools import cycle
from types import SimpleNamespace

from greenfilter._control import Hello
from greenfilter._supervisor.link import Link
from greenfilter._supervisor.router import Router

SID, OTHER, TOKEN = b"00000000deadbeef", b"00000000cafebabe", b"0123456789abcdef"


def router(out):
    return Router(out.append)


def test_a_phase_that_nobody_knows_does_not_leave_other_requests_without_an_answer():
    out = []
    router(out).from_smtpd(
        b"filter|0.7|1.0|smtp-in|bogus|%b|%b|x\nfilter|0.7|1.0|smtp-in|noop|%b|%b|\n"
        % (SID, TOKEN, OTHER, TOKEN)
    )
    assert out[0] == b"filter-result|%b|%b|proceed\n" % (SID, TOKEN)
    assert out[1].startswith(b"filter-result|%b|%b|reject|451 4.3.0 " % (OTHER, TOKEN))


def test_a_worker_that_answers_for_a_session_that_has_ended_is_not_mute():
    worker = SimpleNamespace(tail=b"", sessions={}, mute=1.0)
    router([]).from_worker(worker, b"filter-result|%b|%b|proceed\n" % (SID, TOKEN))
    assert worker.mute is None


NOOP = b"filter|0.7|1.0|smtp-in|noop|%b|%b|\n"
LINE = b"filter|0.7|1.0|smtp-in|data-line|%b|%b|%b\n"


class World:
    """A router with one worker, and a clock."""

    def __init__(self, **limits):
        link = Link(selectors.SelectSelector(), os.pipe(), lambda data: None, lambda: None)
        self.worker = SimpleNamespace(
            tail=b"", sessions={}, departed=[], mute=None, link=link, waits={}
        )
        self.worker.hello = Hello(
            "fake", [("smtp-in", "tx-begin")], ["noop"], {"noop": 30.0}, {}, **limits
        )
        self.out = []
        self.router = Router(self.out.append)
        self.router.answers.hello = self.worker.hello
        self.router.sessions.homes = [self.worker]
        self.now = 1000.0
        self.router.clock = lambda: self.now
        self.router.expire()

    def pass_time(self, seconds):
        self.now += seconds
        self.router.expire()


def test_as_many_sessions_are_held_as_the_filter_says():
    world = World(max_sessions=3)
    sids = [b"%016x" % number for number in range(5)]
    for sid in sids:
        world.router.from_smtpd(NOOP % (sid, TOKEN))
    assert list(world.router.sessions.sessions) == list(world.worker.sessions) == sids[2:]


def test_a_session_of_which_smtpd_says_nothing_any_more_is_let_go(caplog):
    world = World()
    world.router.from_smtpd(NOOP % (SID, TOKEN) + NOOP % (OTHER, TOKEN))
    for _ in range(10):
        world.pass_time(100)
        world.router.from_smtpd(b"report|0.7|1.0|smtp-in|protocol-client|%b|NOOP\n" % OTHER)
    assert list(world.router.sessions.sessions) == list(world.worker.sessions) == [OTHER]
    assert caplog.text.count("smtpd said nothing of it for long") == 1


def test_a_session_in_whose_transaction_a_message_may_be_coming_is_kept_for_a_day():
    world = World()
    world.router.from_smtpd(b"report|0.7|1.0|smtp-in|tx-begin|%b|0000abcd\n" % SID)
    for _ in range(420):
        world.pass_time(200)
    assert list(world.router.sessions.sessions) == [SID]
    for _ in range(200):
        world.pass_time(200)
    assert not world.router.sessions.sessions


def test_a_session_is_not_let_go_while_its_worker_has_the_whole_message():
    world = World()
    world.router.from_smtpd(LINE % (SID, TOKEN, b"one") + LINE % (SID, TOKEN, b"."))
    world.router.from_smtpd(LINE % (OTHER, TOKEN, b"one"))
    for _ in range(10):
        world.pass_time(100)
    assert list(world.router.sessions.sessions) == [SID]


def test_phases_that_nobody_knows_are_not_remembered():
    world = World()
    for number in range(10):
        world.router.from_smtpd(NOOP.replace(b"noop", b"bogus%d" % number) % (SID, TOKEN))
    world.router.from_smtpd(NOOP % (OTHER, TOKEN))
    assert [hook.wire for hook in world.worker.waits] == ["noop"]


COMMIT = b"filter|0.7|1.0|smtp-in|commit|%b|%b|\n"


def test_a_message_whose_session_is_let_go_is_ended_and_refused():
    world = World(max_sessions=1)
    world.router.from_smtpd(LINE % (SID, TOKEN, b"one") + LINE % (SID, TOKEN, b"."))
    world.router.from_smtpd(NOOP % (OTHER, TOKEN))
    assert b"".join(world.out) == b"filter-dataline|%b|%b|.\n" % (SID, TOKEN)
    world.router.from_smtpd(COMMIT % (SID, TOKEN))
    assert world.out[-1].startswith(b"filter-result|%b|%b|reject|451 " % (SID, TOKEN))


def test_an_error_with_one_session_does_not_reach_the_others(caplog):
    class Waits(dict):
        fails = cycle([True, False])

        def get(self, hook, default=None):
            if next(self.fails):
                raise MemoryError
            return super().get(hook, default)

    world = World()
    world.worker.waits = Waits()
    for _ in range(2):
        world.router.from_smtpd(NOOP % (SID, TOKEN) + NOOP % (OTHER, TOKEN))
    assert world.worker.link._out == [NOOP % (OTHER, TOKEN)] * 2
    assert caplog.text.count("survived an error of its own") == 2
