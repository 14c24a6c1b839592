"""What the journal knows of sessions that nobody has looked at."""

from greenfilter._supervisor.journal import departures

ONE, TWO = b"097e63a500000001", b"097e63a500000002"
HEAD = b"report|0.7|1576146008.006099|smtp-in|"


def came(sid):
    return HEAD + b"link-connect|" + sid + b"|localhost|pass|127.0.0.1:33174|127.0.0.1:25\n"


def went(sid):
    return HEAD + b"link-disconnect|" + sid + b"\n"


def said(sid, identity):
    return HEAD + b"link-identify|" + sid + b"|EHLO|" + identity + b"\n"


def departed(*pieces):
    return departures(b"".join(pieces))


def test_a_session_that_came_and_went_is_in_both():
    assert departed(came(ONE), went(ONE)) == ({ONE}, {ONE})


def test_a_session_that_came_before_has_ended_only():
    assert departed(came(ONE) + went(TWO), b"") == (set(), {TWO})


def test_an_id_that_has_begun_again_is_in_neither():
    assert departed(came(ONE) + went(ONE), came(ONE)) == (set(), set())


def test_an_id_that_has_ended_twice_came_and_went_if_it_began_in_the_pieces():
    assert departed(came(ONE) + went(ONE) + came(ONE) + went(ONE)) == ({ONE}, {ONE})
    assert departed(went(ONE) + came(ONE) + went(ONE)) == (set(), {ONE})


def test_what_a_client_says_ends_no_session():
    line = said(ONE, b"x|link-disconnect|" + TWO)
    assert departed(came(ONE) + came(TWO), line, went(ONE)) == ({ONE}, {ONE})
