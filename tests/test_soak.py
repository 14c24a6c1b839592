"""The short form of ``python -m tests.soak``."""

from tests.soak import soak


def test_no_message_is_lost_while_workers_are_killed_and_reloaded_under_load(require_smtpd):
    result = soak(seconds=11.0, sessions=200)
    print("\n".join(result.lines()))
    assert result.wrong == []
    assert result.other == []
    assert result.cut == 0
    assert result.kills >= 4
    assert result.reloads >= 2
    assert len(result.accepted) > 200
