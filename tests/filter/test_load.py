"""Finding the filter in a file or module, and saying what is wrong when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from greenfilter._filter.load import load
from greenfilter.errors import UsageError

GOOD = """
    import sys
    from greenfilter import Filter

    app = Filter("good")

    @app.filter.ehlo
    def ehlo(ctx, identity): ...
"""


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch, tmp_path):
    """Loading sets these of sys, and the environment; the next test gets them as they were."""
    monkeypatch.setattr(sys, "argv", ["greenfilter"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    before, environment = set(sys.modules), dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(name: str, text: str) -> Path:
    path = Path(name).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def refused(target: object, args: list[str] | None = None) -> str:
    """The text of the error."""
    with pytest.raises(UsageError) as caught:
        load(str(target), args or [])
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What can be loaded


@pytest.mark.parametrize("name", ["guard.py", "./guard", "sub/guard.py", "./guard.py", "a:b.py"])
def test_a_file_of_any_name_is_loaded(name):
    write(name, GOOD)
    assert load(name, []).name == "good"


def test_an_absolute_path_is_loaded():
    assert load(str(write("guard.py", GOOD)), []).name == "good"


def test_one_of_several_is_named_after_a_colon():
    write("two.py", GOOD + "    other = Filter('other')\n    other.filter.ehlo(ehlo)\n")
    assert load("two.py:app", []).name == "good"
    assert load("two.py:other", []).name == "other"


def test_the_same_filter_under_two_names_is_one():
    write("guard.py", GOOD + "    again = app\n")
    assert load("guard.py", []).name == "good"


def test_a_filter_of_another_module_counts():
    write("base.py", GOOD)
    write("guard.py", "from base import app")
    assert load("guard.py", []).name == "good"


@pytest.mark.parametrize("target", ["package.module:app", "package.module"])
def test_a_module_of_a_package_is_loaded(target, monkeypatch):
    write("package/__init__.py", "")
    write("package/module.py", GOOD)
    monkeypatch.syspath_prepend(os.getcwd())
    assert load(target, []).name == "good"


def test_a_file_may_import_its_neighbours():
    write("sub/neighbour.py", "name = 'from next door'")
    write("sub/guard.py", GOOD + "    import neighbour\n    app.name = neighbour.name\n")
    assert load("sub/guard.py", []).name == "from next door"


def test_the_file_finds_its_own_options_in_sys_argv():
    write("guard.py", GOOD + "    app.name = repr(sys.argv)\n")
    assert load("guard.py", ["--zone", "a b"]).name == repr(["guard.py", "--zone", "a b"])


def test_the_file_is_not_main_so_that_run_at_its_end_does_nothing():
    write("guard.py", GOOD + "    if __name__ == '__main__':\n        app.run()\n")
    assert load("guard.py", []).name == "good"


@pytest.mark.parametrize("target", ["guard.py", "guard:app"])
def test_run_without_a_condition_ends_the_file_there(target, monkeypatch):
    monkeypatch.syspath_prepend(".")
    write("guard.py", GOOD + "    other = Filter('other')\n    app.run()\n    1 / 0\n")
    assert load(target, []).name == "good"


def test_dataclasses_and_pickles_work_in_the_file():
    text = (
        GOOD
        + """
    import dataclasses, pickle

    @dataclasses.dataclass
    class Seen:
        name: str

    app.name = pickle.loads(pickle.dumps(Seen("pickled"))).name
"""
    )
    write("guard.py", text)
    assert load("guard.py", []).name == "pickled"


@pytest.mark.parametrize("code", ["", "0"])
def test_a_file_that_ends_itself_without_a_word_is_told_of(code):
    path = write("guard.py", f"{GOOD}\n    sys.exit({code})\n")
    line = path.read_text().splitlines().index(f"sys.exit({code})") + 1
    assert refused("guard.py") == f"{path}:{line}: the file ended here, by sys.exit()"


def test_an_option_parser_may_end_the_process():
    write("guard.py", "import argparse\nargparse.ArgumentParser().parse_args()")
    with pytest.raises(SystemExit) as caught:
        load("guard.py", ["--nonsense"])
    assert caught.value.code == 2


# What cannot


@pytest.mark.parametrize("target", ["missing.py", "./missing", "sub/missing.py", "missing.py:app"])
def test_a_missing_file(target):
    assert refused(target) == f"{target.removesuffix(':app')}: no such file"


@pytest.mark.parametrize("target", ["missing.module", "missing.module:app", "missing:app"])
def test_neither_file_nor_module(target):
    name = target.removesuffix(":app")
    assert refused(target) == f"{name}: no such file, and no module of that name"


@pytest.mark.parametrize("target", [".", "./sub", "sub/"])
def test_a_directory(target):
    Path("sub").mkdir()
    assert refused(target) == f"{target}: a directory; name the filter's file in it"


def test_a_syntax_error_is_told_with_its_line():
    path = write("guard.py", "x = 1\ny = (\n")
    assert refused("guard.py") == f"{path}:2: '(' was never closed"


def test_a_file_that_is_no_text():
    Path("guard.py").write_bytes(b"\x7fELF\xff\xfe\n")
    assert "guard.py" in refused("guard.py")


def test_a_file_with_nul_bytes():
    Path("guard.py").write_bytes(b"x = 1\0\n")
    where, _, what = refused("guard.py").partition(":")
    assert where.endswith("guard.py")
    assert "null bytes" in what


def test_a_filter_that_raises_is_told_with_the_line_that_did():
    path = write("guard.py", GOOD + "    def deep():\n        int('x')\n    deep()\n")
    assert refused("guard.py") == (
        f"{path}:10: ValueError: invalid literal for int() with base 10: 'x'"
    )


def test_an_error_in_a_neighbour_is_told_with_the_line_of_the_filter():
    write("neighbour.py", "raise RuntimeError('two\\nlines')")
    path = write("guard.py", "import neighbour")
    assert refused("guard.py") == f"{path}:1: RuntimeError: two lines"


def test_a_missing_dependency():
    path = write("guard.py", "import os\nimport not_installed\n")
    assert refused("guard.py") == (
        f"{path}:2: No module named 'not_installed'; install what it needs"
    )


def test_a_missing_dependency_of_a_module(monkeypatch):
    path = write("package/module.py", "import package.other\n")
    write("package/__init__.py", "")
    monkeypatch.syspath_prepend(os.getcwd())
    assert refused("package.module") == (
        f"{path}:1: No module named 'package.other'; install what it needs"
    )


def test_misuse_is_told_with_the_line_of_the_handler():
    text = "from greenfilter import Filter\napp = Filter('x')\n@app.filter.ehlo\ndef f(ctx): ...\n"
    path = write("guard.py", text)
    assert refused("guard.py").startswith(f"{path}:3: filter.ehlo calls its handler with 2")


@pytest.mark.parametrize(
    "line",
    [
        "app.filter.helow",
        "Filter('y', deadline=0)",
        "app._registry.freeze(); app.local_session(dict)",
    ],
)
def test_misuse_without_a_handler_is_told_with_its_line(line):
    path = write("guard.py", f"from greenfilter import Filter\napp = Filter('x')\n{line}\n")
    assert refused("guard.py").startswith(f"{path}:3: ")


def test_an_unknown_option_of_the_app_is_told_with_its_line():
    path = write("guard.py", "from greenfilter import Filter\napp = Filter('x', dedline=3)\n")
    assert refused("guard.py").startswith(f"{path}:2: TypeError: ")


def test_no_filter_in_the_file():
    write("guard.py", "x = 1")
    assert refused("guard.py") == "guard.py: no Filter in it; write: app = Filter('name')"


def test_two_filters_in_the_file():
    write("guard.py", GOOD + "    other = Filter('other')\n")
    assert refused("guard.py") == (
        "guard.py: more than one Filter (app, other); name one: guard.py:NAME"
    )


def test_a_filter_that_registers_nothing():
    write("guard.py", "from greenfilter import Filter\napp = Filter('x')\n")
    assert refused("guard.py") == (
        "guard.py: Filter('x') has no handler; decorate one, as in @app.filter.ehlo"
    )


@pytest.mark.parametrize("name", ["nothing", "sys", "ehlo"])
def test_a_name_that_is_no_filter(name):
    write("guard.py", GOOD)
    assert refused(f"guard.py:{name}") == f"guard.py:{name}: {name} is not a Filter"


def test_an_unreadable_file():
    path = write("guard.py", GOOD)
    path.chmod(0)
    command = [sys.executable, "-m", "greenfilter", "check", "guard.py"]
    if os.geteuid() == 0:  # root reads everything, unless it gives up its capabilities
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stderr == f"greenfilter: {path}: Permission denied\n"
    assert done.returncode == 1


ARITHMETIC = ["OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "VECLIB_MAXIMUM"]


@pytest.mark.parametrize("library", ARITHMETIC)
def test_libraries_for_arithmetic_use_one_thread_unless_the_environment_says_otherwise(
    library, monkeypatch
):
    variable = library if library.endswith("MAXIMUM") else f"{library}_NUM"
    variable += "_THREADS"
    path = write(
        "one.py",
        f"import os\nfrom greenfilter import Filter\napp = Filter(os.environ[{variable!r}])\n"
        "app.filter.noop(lambda ctx: None)\n",
    )
    monkeypatch.delenv(variable, raising=False)
    assert load(str(path), []).name == "1"
    monkeypatch.setenv(variable, "4")
    assert load(str(path), []).name == "4"
