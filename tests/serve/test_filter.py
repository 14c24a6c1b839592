"""Looking into a filter before it is run."""

from __future__ import annotations

import pytest

from greenfilter._serve import Source, _filter
from greenfilter.errors import UsageError


def test_a_filter_that_never_finishes_loading_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(_filter, "_START_SECONDS", 0.1)
    file = tmp_path / "guard.py"
    file.write_text("import time\ntime.sleep(3600)\n")
    with pytest.raises(UsageError, match=r"guard\.py: not loaded after 0\.1 s"):
        Source(str(file)).describe()
