"""How often the garbage collector of a filter's process runs."""

import sys

import pytest

from greenfilter.testing import FakeSmtpd

FILTER = """
import gc
{chosen}
from greenfilter import Filter

app = Filter("collector")

@app.filter.ehlo
def ehlo(ctx, identity):
    print("after", gc.get_threshold()[0], "objects")
"""


@pytest.mark.parametrize("options", [[], ["--no-supervisor"]])
@pytest.mark.parametrize(
    ("chosen", "objects"),
    [("", 10_000), ("gc.set_threshold(1234)", 1234)],
    ids=["ours", "own"],
)
def test_garbage_is_looked_for_rarely_unless_the_filter_chooses(tmp_path, options, chosen, objects):
    file = tmp_path / "collector.py"
    file.write_text(FILTER.format(chosen=chosen))
    with FakeSmtpd([sys.executable, "-m", "greenfilter", "run", *options, str(file)]) as smtpd:
        assert smtpd.connect().ehlo("client.example.net").ok
    assert f"after {objects} objects" in "\n".join(smtpd.log)
