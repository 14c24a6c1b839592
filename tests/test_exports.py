"""``__all__`` names what is there, and nothing else is public."""

import importlib
import inspect
import types
from pathlib import Path

import pytest

import greenfilter
import greenfilter.errors
import greenfilter.protocol
from greenfilter.protocol import _guard

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


# What mypyc compiles has no docstrings; test_compiled.py runs this on the source.
@pytest.mark.skipif(not str(_guard.__file__).endswith(".py"), reason="compiled")
def test_everything_exported_says_what_it_is():
    for module in (greenfilter, greenfilter.protocol):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert inspect.getdoc(value), name


def test_the_version_is_the_one_of_the_package():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert f'version = "{greenfilter.__version__}"' in text


def test_types_are_shipped():
    assert (Path(greenfilter.__file__).parent / "py.typed").exists()
