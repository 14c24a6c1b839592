"""The router by itself, without processes."""

from types import SimpleNamespace

from greenfilter._supervisor._router import Router

SID, OTHER, TOKEN = b"00000000deadbeef", b"00000000cafebabe", b"0123456789abcdef"


def router(out):
    return Router(out.append, lambda session: None, lambda worker, hello: None, lambda worker: None)


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
