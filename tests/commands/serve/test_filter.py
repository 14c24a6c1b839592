"""Looking into a filter before it is run."""

from __future__ import annotations

import pytest

from greenfilter._commands.serve import keeper
from greenfilter._commands.serve.keeper import Source
from greenfilter.errors import UsageError


def test_a_filter_that_never_finishes_loading_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "_START_SECONDS", 0.1)
    file = tmp_path / "guard.py"
    file.write_text("import time\ntime.sleep(3600)\n")
    with pytest.raises(UsageError, match=r"guard\.py: not loaded after 0\.1 s"):
        Source(str(file)).describe()


def test_one_filter_of_a_file_is_described_with_its_file(tmp_path):
    file = tmp_path / "guard.py"
    file.write_text(
        "from greenfilter import Filter\none, other = Filter('one'), Filter('other')\n"
        "def wave(ctx): ...\none.filter.noop(wave)\nother.filter.quit(wave)\n"
    )
    described = Source(f"{file}:other").describe()
    assert described.name == "other"
    assert described.handlers == {"quit": ["wave"]}
    assert described.files == (str(file),)
