"""The C API with nothing registered yet."""

import importlib
import sys

import pytest


@pytest.fixture
def osmtpd():
    """The module, new for this test: what it registers is kept in the module."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if is_ours(name)}
    yield importlib.import_module("greenfilter.osmtpd")
    for name in list(sys.modules):
        if is_ours(name):
            del sys.modules[name]
    sys.modules.update(kept)


def is_ours(name):
    return name.split(".")[:2] == ["greenfilter", "osmtpd"]
