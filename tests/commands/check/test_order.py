"""Filters of a listener of which an earlier one ends the chain."""

from __future__ import annotations

import pytest

from .checking import call

GUARD = """\
from greenfilter import Filter, reject
app = Filter("guard")
@app.filter.ehlo
def look(ctx, identity): return reject(550, "no")
@app.filter.mail_from
def sender(ctx, address): return None
"""
REWRITER = """\
from greenfilter import Filter, junk, reject, rewrite
app = Filter("first")
def cleaned(identity):
    return rewrite(identity.lower())
@app.filter.ehlo(deadline=3)
def look(ctx, identity):
    if identity.islower(): return None
    return cleaned(identity)
@app.filter.rcpt_to
def recipient(ctx, address): return junk()
@app.filter.mail_from
def sender(ctx, address): return reject(550, "no")
"""


@pytest.fixture
def order(tmp_path):
    """Check guard.py or first.py in a smtpd.conf with the given lines."""

    def run(*lines: str, target: str = "guard.py") -> list[str]:
        (tmp_path / "guard.py").write_text(GUARD)
        (tmp_path / "first.py").write_text(REWRITER)
        conf = tmp_path / "smtpd.conf"
        text = (
            f'filter "guard" proc-exec "/bin/greenfilter run {tmp_path}/guard.py"\n'
            f'filter "first" proc-exec "/bin/greenfilter run {tmp_path}/first.py"\n'
            'filter other proc-exec "/usr/libexec/other"\n'
            "filter mark phase ehlo match !rdns junk\n"
            'filter name phase mail-from match !fcrdns rewrite "<x@example.org>"\n'
            'filter away phase ehlo match !rdns disconnect "550 no junk"\n'
        )
        conf.write_text(text + "\n".join(lines) + "\n")
        done = call("--smtpd-conf", conf, "--user", "root", tmp_path / target)
        assert "Traceback" not in done.stderr
        found = [line for line in done.stderr.splitlines() if "is not asked" in line]
        return [line.replace(f"{tmp_path}/", "") for line in found]

    return run


LISTEN = "listen on 127.0.0.1 port 2525 filter"
FIRST = (
    'smtpd.conf:{}: warning: "guard" is not asked at ehlo when "first", which comes before it, '
    "answers with rewrite (first.py:8): only proceed goes on in a chain"
)


def test_an_earlier_filter_that_rewrites_is_told_with_its_phase_and_line(order):
    assert order(f"{LISTEN} {{ first, other, guard }}") == [FIRST.format(1)]


def test_it_is_told_when_the_earlier_one_is_checked_too(order):
    assert order(f"{LISTEN} {{ first, guard }}", target="first.py") == [FIRST.format(2)]


def test_it_is_told_in_a_chain_that_has_a_name(order):
    assert order("filter all chain { first, guard }", f"{LISTEN} all") == [FIRST.format(1)]


def test_a_filter_of_smtpds_own_is_known(order):
    assert order(f"{LISTEN} {{ mark name guard }}") == [
        'smtpd.conf:1: warning: "guard" is not asked at ehlo when "mark", which comes before it, '
        "answers with junk (smtpd.conf:4): only proceed goes on in a chain",
        'smtpd.conf:1: warning: "guard" is not asked at mail-from when "name", which comes before '
        "it, answers with rewrite (smtpd.conf:5): only proceed goes on in a chain",
    ]


@pytest.mark.parametrize(
    "names", ["guard", "{ guard, first }", "{ away, guard }", "{ other, guard }"]
)
def test_nothing_is_said_where_the_filter_is_asked(names, order):
    assert order(f"{LISTEN} {names}") == []


def test_filters_of_different_listeners_have_no_order(order):
    assert order(f"{LISTEN} first", "listen on 127.0.0.1 port 2526 filter guard") == []
