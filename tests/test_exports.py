"""``__all__`` names what is there, and nothing else is public."""

import importlib
import inspect
import pydoc
import types
from operator import attrgetter
from pathlib import Path

import pytest

import greenfilter
import greenfilter.errors
import greenfilter.protocol

PROMISED = {
    "DROP", "Address", "Context", "Filter", "Message", "Need", "Session", "Status", "Transaction",
    "disconnect", "junk", "proceed", "reject", "report", "rewrite",
}  # fmt: skip
# UsageError is for the command line, the others never reach a filter's author.
NOT_FOR_AUTHORS = {"ProtocolError", "RemoteProtocolError", "UsageError"}


def public(module: types.ModuleType) -> set[str]:
    """Names without underscore that are no modules and no leftovers of imports."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    } - {"annotations"}


@pytest.mark.parametrize("name", ["greenfilter", "greenfilter.protocol"])
def test_all_is_what_is_there(name):
    module = importlib.import_module(name)
    assert len(module.__all__) == len(set(module.__all__))
    assert set(module.__all__) == public(module)


def errors() -> set[str]:
    return {
        name
        for name, value in vars(greenfilter.errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException)
    }


def test_the_errors_module_has_errors_only_and_they_share_one_base():
    assert public(greenfilter.errors) == errors()
    for name in errors():
        assert issubclass(getattr(greenfilter.errors, name), greenfilter.GreenfilterError)


def test_the_tree_in_the_docstring_of_errors_is_the_tree():
    for name in errors():
        assert f" {name} " in f"{greenfilter.errors.__doc__} ".replace("\n", " ")


def test_what_an_author_needs_is_exported():
    assert set(greenfilter.__all__) >= PROMISED
    assert set(greenfilter.__all__) >= errors() - NOT_FOR_AUTHORS


def test_everything_exported_says_what_it_is():
    for module in (greenfilter, greenfilter.protocol):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                assert inspect.getdoc(value), name


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Context", "The event that a handler was called for."),
        ("Context.reply", "Answer the request, from any greenlet or OS thread. Never switches"),
        ("Context.tx", "The open transaction, or None outside of one."),
        ("Session", "One SMTP session of smtpd, incoming or outgoing."),
        ("Session.rdns", "Reverse DNS name of the client, or ``<unknown>``."),
        ("Transaction", "One mail transaction (RFC 5321, 3.3): from MAIL until"),
        ("Transaction.rcpt_to", "Accepted recipients, after rewrites."),
        ("Message", "A message, exact to the byte, as its handler edits it."),
    ],
)
def test_help_shows_the_docstring_also_where_it_is_compiled(name, line):
    value = attrgetter(name)(greenfilter)
    assert line in pydoc.plain(pydoc.render_doc(value))


def test_the_version_is_the_one_of_the_package():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert f'version = "{greenfilter.__version__}"' in text


def test_types_are_shipped():
    assert (Path(greenfilter.__file__).parent / "py.typed").exists()
