"""A browser for the tests of the timeline."""

import pytest

from tests.conftest import unavailable

from . import browser as browser_support
from .browser import Browser


@pytest.fixture(scope="session")
def require_chromium():
    """Skip where there is no Chromium; fail instead where it is required."""
    reason = browser_support.missing()
    if reason is not None:
        unavailable(reason)


@pytest.fixture(scope="session")
def chromium(require_chromium):
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def dark_chromium(require_chromium):
    with Browser(dark=True) as browser:
        yield browser
