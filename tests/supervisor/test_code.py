"""A worker that dies is replaced by one with the code that was accepted, whatever is on disk."""

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

import greenfilter
from greenfilter._process import snapshot
from greenfilter._supervisor import code as code_module
from greenfilter._supervisor.code import Code
from tests.supervisor.conftest import Supervised, until

FILTER = """
import helper, inspect, linecache, importlib.resources, importlib.util
from pathlib import Path
import package.inner
try:
    import added
except ImportError:
    added = None
spec = importlib.util.spec_from_file_location("plugin", Path(__file__).with_name("plugged.py"))
plugin = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plugin)
app = Filter("code")
def lazy():
    import late, namespace.module
    return f"{late.VALUE} {namespace.module.VALUE}"
def line_of_error():
    try:
        helper.fail()
    except ZeroDivisionError as error:
        import traceback
        return traceback.extract_tb(error.__traceback__)[-1].line
QUESTIONS = {
    "value": lambda: f"{helper.VALUE} {package.inner.VALUE} {plugin.VALUE}",
    "lazy": lazy,
    "added": lambda: str(added),
    "file": lambda: f"{__file__} {helper.__file__} {sys.path[0]}",
    "line": line_of_error,
    "source": lambda: inspect.getsource(helper.fail).splitlines()[1].strip(),
    "data": lambda: Path(__file__).with_name("data.txt").read_text(),
    "resource": lambda: importlib.resources.files("package").joinpath("data.txt").read_text(),
}
@app.filter.mail_from
def mail_from(ctx, sender):
    return reject(550, QUESTIONS[sender.partition("@")[0]]())
"""
FILES = {
    "helper.py": "VALUE = 'old'\ndef fail():\n    return 1 / 0  # old\n",
    "late.py": "VALUE = 'old'\n",
    "plugged.py": "VALUE = 'old'\n",
    "namespace/module.py": "VALUE = 'old'\n",
    "package/__init__.py": "",
    "package/inner.py": "VALUE = 'old'\n",
    "package/data.txt": "old data",
    "data.txt": "old data",
}
ANSWERS = {
    "value": "old old old",
    "lazy": "old old",
    "added": "None",
    "line": "return 1 / 0  # old",
    "source": "return 1 / 0  # old",
}


def lay_out(directory, files):
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


STOCK = """
\"\"\"Answer with a word.\"\"\"
from .. import Filter, reject
from ._word import WORD
def build(arguments):
    app = Filter("answer")
    @app.filter.mail_from
    def answer(ctx, sender):
        return reject(550, WORD)
    return app
"""


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_a_stock_filter_is_kept_as_it_was_accepted_too(tmp_path, monkeypatch, change):
    package = Path(greenfilter.__file__).parent
    filters = shutil.copytree(package, tmp_path / "greenfilter") / "filters"
    lay_out(filters, {"answer.py": STOCK, "_word.py": "WORD = 'old'"})
    monkeypatch.chdir(tmp_path)  # where python -m looks first
    with Supervised([sys.executable, "-m", "greenfilter", "run", "answer"]) as smtpd:
        assert ask(smtpd, "x").endswith("old")
        for name in ("answer.py", "_word.py"):
            (filters / name).unlink() if change == "deleted" else (filters / name).write_text("!")
        replace_worker(smtpd)
        assert ask(smtpd, "x").endswith("old")
        lay_out(filters, {"answer.py": STOCK, "_word.py": "WORD = 'new'"})
        replace_worker(smtpd)
        assert ask(smtpd, "x").endswith("old")
        smtpd.reload()
        until(lambda: ask(smtpd, "x").endswith("new"), "the new code")


def ask(smtpd, question):
    return smtpd.client().mail_from(f"{question}@example.net").text


def replace_worker(smtpd):
    old = smtpd.signal_workers()
    until(lambda: bool(smtpd.workers() - old), "the next worker")


def edit(directory, path):
    """Change every file, half of them into nonsense, and add some."""
    for name in FILES:
        (directory / name).write_text("new data" if name.endswith("txt") else "\n\nVALUE = 'new'\n")
    (directory / "late.py").write_text("this is not Python")
    path.write_text("this is not Python")
    lay_out(directory, {"added.py": "", "helper/__init__.py": "VALUE = 'new package'\n"})


def delete(directory, path):
    """Take the code away, as a checkout in the middle of its work does."""
    for name in FILES:
        if name.endswith(".py"):
            (directory / name).unlink()
    shutil.rmtree(directory / "namespace")
    path.unlink()


@pytest.mark.parametrize("change", [edit, delete])
def test_the_accepted_code_goes_on_after_a_death_whatever_is_on_disk(run, write, tmp_path, change):
    lay_out(tmp_path, FILES)
    path = write(FILTER)
    smtpd = run(path)
    before = {question: ask(smtpd, question) for question in ("value", "file", "data", "resource")}
    change(tmp_path, path)
    for _ in range(2):
        replace_worker(smtpd)
        for question, answer in ANSWERS.items():
            assert ask(smtpd, question) == answer, question
        assert ask(smtpd, "file") == before["file"] == f"{path} {tmp_path}/helper.py {tmp_path}"
        assert ask(smtpd, "data") == ("new data" if change is edit else "old data")
        assert ask(smtpd, "resource") == ("new data" if change is edit else "old data")
    told = [line for line in smtpd.log if "on disk is other code than what runs" in line]
    assert len(told) == 1
    assert str(path) in told[0] or "more" in told[0]


def test_new_code_comes_by_a_reload(run, write, tmp_path):
    lay_out(tmp_path, FILES)
    smtpd = run(write(FILTER))
    assert ask(smtpd, "value") == "old old old"
    # As long as before and within the second: to cached bytecode, nothing has changed.
    lay_out(tmp_path, {name: code.replace("old", "new") for name, code in FILES.items()})
    smtpd.reload()
    until(lambda: ask(smtpd, "value") == "new new new", "the new code")
    replace_worker(smtpd)
    assert ask(smtpd, "value") == "new new new"
    assert ask(smtpd, "lazy") == "new new"


def test_code_that_a_reload_refuses_is_not_run_after_a_death_either(run, write, tmp_path):
    lay_out(tmp_path, FILES)
    smtpd = run(write(FILTER))
    write("this is not Python")
    smtpd.reload()
    smtpd.wait_for_log("the old code goes on")
    replace_worker(smtpd)
    assert ask(smtpd, "value") == "old old old"


def test_a_module_that_is_named_is_kept_with_its_package(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = (
        "from greenfilter import Filter, reject\nfrom . import rules\napp = Filter('named')\n"
        "@app.filter.mail_from\ndef mail_from(ctx, sender): return reject(550, rules.TEXT)\n"
    )
    (tmp_path / "guard").mkdir()
    lay_out(tmp_path / "guard", {"__init__.py": "", "main.py": code, "rules.py": "TEXT = 'old'\n"})
    smtpd = run(_Name("guard.main:app"))
    shutil.rmtree(tmp_path / "guard")
    replace_worker(smtpd)
    assert ask(smtpd, "any") == "old"


class _Name(os.PathLike):
    """A target that is not a path."""

    def __init__(self, name):
        self.name = name

    def __str__(self):
        return self.name

    def __fspath__(self):
        return self.name


def test_what_is_imported_from_elsewhere_is_kept_too(run, write, tmp_path, monkeypatch):
    library = tmp_path / "library"
    lay_out(tmp_path, {})
    library.mkdir()
    (library / "pure.py").write_text("VALUE = 'old'\n")
    monkeypatch.setenv("PYTHONPATH", str(library))
    (tmp_path / "filter").mkdir()
    path = write(
        "import pure\napp = Filter('elsewhere')\n"
        "@app.filter.mail_from\ndef mail_from(ctx, sender): return reject(550, pure.VALUE)\n"
    ).rename(tmp_path / "filter" / "guard.py")
    smtpd = run(path)
    (library / "pure.py").unlink()
    replace_worker(smtpd)
    assert ask(smtpd, "any") == "old"


def test_all_workers_run_the_same_code(run, write):
    code = """
app = Filter("counts")
@app.filter.mail_from
def mail_from(ctx, sender): return reject(550, VERSION)
VERSION = "old"
# Whoever loads it from disk leaves another one there.
text = open(__file__).read()
open(__file__ + ".new", "w").write(text.replace('VERSION = "old"', 'VERSION = "new"'))
os.rename(__file__ + ".new", __file__)
"""
    smtpd = run(write(code), options=("--workers", "3"))
    until(lambda: len(smtpd.workers()) == 3, "all workers")
    assert {ask(smtpd, "any") for _ in range(20)} == {"old"}
    write(
        code.replace('VERSION = "old"\n', 'VERSION = "second"\n').replace('"new"\')', '"third"\')')
    )
    smtpd.reload()
    smtpd.wait_for_log("new sessions go to the new code")
    assert {ask(smtpd, "any") for _ in range(20)} == {"second"}


# Its parts


def test_the_archive_cannot_be_changed_once_it_is_accepted(tmp_path):
    (tmp_path / "guard.py").write_text("x = 1\n")
    code = Code()
    snapshot.take(str(tmp_path / "guard.py")).write(code.fd)
    code.seal()
    assert code.sealed
    for change in (lambda: os.write(code.fd, b"x"), lambda: os.ftruncate(code.fd, 0)):
        with pytest.raises(PermissionError):
            change()
    assert snapshot.read(code.fd).files[str(tmp_path / "guard.py")].source == b"x = 1\n"
    code.close()


def test_without_room_for_the_archive_the_filter_goes_on(monkeypatch, capfd):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(code_module, "_private_file", fail)
    code = Code()
    code.seal()
    code.tell_changes()
    assert code.fd is None
    assert not code.sealed


def test_a_directory_that_is_too_large_or_cannot_be_read_is_told_of(tmp_path, monkeypatch):
    lay_out(tmp_path, {"guard.py": "", "a/one.py": "", "b/two.py": ""})
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(snapshot, "_MAX_FILES", 2)
    taken = snapshot.take(str(tmp_path / "guard.py"))
    assert set(taken.files) == {str(tmp_path / "guard.py"), str(tmp_path / "a/one.py")}
    assert taken.left_out == [f"what is below {tmp_path}/b: too much"]

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    taken = snapshot.take(str(tmp_path / "guard.py"))
    assert taken.left_out == [f"{tmp_path}: Permission denied"]


def test_environments_caches_and_compiled_modules_are_left_alone(tmp_path):
    lay_out(
        tmp_path,
        {
            "guard.py": "",
            "venv/pyvenv.cfg": "",
            "venv/x.py": "",
            ".git/x.py": "",
            "__pycache__/x.py": "",
            "fast.py": "",
            "fast.abi3.so": "",
        },
    )
    assert set(snapshot.take(str(tmp_path / "guard.py")).files) == {str(tmp_path / "guard.py")}


def test_another_version_of_greenfilter_on_disk_is_told_once(tmp_path, monkeypatch, caplog):
    (tmp_path / "guard.py").write_text("x = 1\n")
    (tmp_path / "__init__.py").write_text('__version__ = "99.0"\n')
    code = Code()
    snapshot.take(str(tmp_path / "guard.py")).write(code.fd)
    code.seal()
    monkeypatch.setattr(code_module, "_OWN_INIT", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(code_module.logger, "propagate", True)
    for _ in range(2):
        code.tell_changes()
    assert [line for line in caplog.messages if "greenfilter 99.0 is installed now" in line] == (
        caplog.messages
    )
    code.close()


def test_a_file_that_was_only_touched_is_no_change(tmp_path, caplog, monkeypatch):
    path = tmp_path / "guard.py"
    path.write_text("x = 1\n")
    code = Code()
    snapshot.take(str(path)).write(code.fd)
    code.seal()
    os.utime(path, (time.time() + 5,) * 2)
    monkeypatch.setattr(code_module.logger, "propagate", True)
    code.tell_changes()
    assert not caplog.messages
    code.close()
