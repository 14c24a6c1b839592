"""Chain files, and everything that can be wrong with them."""

from __future__ import annotations

import sys

import pytest

from greenfilter._chain.chain import Chain
from greenfilter._chain.file import ChainFileError
from greenfilter._filter.load import load
from greenfilter.errors import UsageError
from greenfilter.testing import FakeSmtpd

from .driving import greeted, in_transaction

GUARD = """
import sys
from greenfilter import Filter, reject

app = Filter("guard")

@app.filter.ehlo
def ehlo(ctx, identity):
    if identity in sys.argv[1:] or identity in WORDS:
        return reject(550, "no")

WORDS = sys.argv[1:]
"""


@pytest.fixture
def write(tmp_path):
    """Write a chain file beside guard.py, and return its path."""
    (tmp_path / "guard.py").write_text(GUARD)

    def write_chain(text: str, name: str = "mx.toml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write_chain


def problems(path: str) -> list[str]:
    with pytest.raises(ChainFileError) as caught:
        load(path, [])
    return caught.value.problems


class TestLoading:
    def test_members_are_those_of_the_file_in_order(self, write):
        path = write(
            '[[filter]]\nrun = "guard.py"\noptions = ["one.example"]\n\n'
            '[[filter]]\nrun = "./guard.py"\noptions = ["two.example"]\nname = "second"\n'
        )
        made = load(path, [])
        assert isinstance(made, Chain)
        assert made.name == "mx"
        assert [member.name for member in made._registry.members] == ["guard", "second"]
        with FakeSmtpd(made) as smtpd:
            assert smtpd.connect().ehlo("one.example").code == 550
            assert smtpd.connect().ehlo("two.example").code == 550
            assert greeted(smtpd)

    def test_paths_are_taken_from_where_the_file_is(self, write, monkeypatch):
        path = write('[[filter]]\nrun = "guard.py"\n')
        monkeypatch.chdir("/")
        assert len(load(path, [])._registry.members) == 1

    def test_the_limits_of_the_file_replace_the_filters_own(self, write):
        path = write(
            'name = "front"\ndeadline = 9\n'
            '[[filter]]\nrun = "guard.py"\ndeadline = 2\non_error = "proceed"\n'
        )
        made = load(path, [])
        made._registry.freeze()
        assert made.name == "front"
        (handler,) = made._registry.members[0].filters.values()
        assert (handler.deadline, handler.on_error.kind) == (2.0, "proceed")
        assert made._registry.filters["ehlo"].deadline == 2.0

    def test_conditions_count(self, write):
        path = write(
            '[[filter]]\nrun = "guard.py"\noptions = ["x.example"]\n'
            'when = { networks = ["198.51.100.0/24"], tls = false }\n'
        )
        with FakeSmtpd(load(path, [])) as smtpd:
            assert smtpd.connect().ehlo("x.example").ok
            assert smtpd.connect(src="198.51.100.1:1").ehlo("x.example").code == 550

    def test_a_program_is_a_member(self, write):
        path = write(f"[[filter]]\nexec = {sys.executable + ' -c pass'!r}\nprotocol = '0.6'\n")
        (member,) = load(path, [])._registry.members
        assert member.app.protocol == (0, 6)

    def test_the_same_module_twice_is_two_filters(self, write):
        block = '[[filter]]\nrun = "guard.py"\noptions = ["{}.example"]\n'
        made = load(write(block.format("a") + block.format("b")), [])
        with FakeSmtpd(made) as smtpd:
            assert smtpd.connect().ehlo("a.example").code == 550
            assert smtpd.connect().ehlo("b.example").code == 550
            assert in_transaction(smtpd)

    def test_a_stock_filter_is_named_and_may_come_twice(self, write):
        block = '[[filter]]\nrun = "rbl"\noptions = ["--zone", "{}.example.org"]\n'
        made = load(write(block.format("a") + block.format("b")), [])
        assert [member.key for member in made._registry.members] == ["rbl", "rbl 2"]
        with FakeSmtpd(made) as smtpd:
            assert greeted(smtpd, src="127.0.0.1:4711").mail_from("alice@example.net").ok

    def test_options_of_a_stock_filter_are_checked(self, write, capsys):
        path = write('[[filter]]\nrun = "rbl"\noptions = ["--zonne", "x"]\n')
        with pytest.raises(ChainFileError, match=r"filter 1 \(line 1\): "):
            load(path, [])

    def test_a_chain_takes_no_options_on_the_command_line(self, write):
        with pytest.raises(UsageError, match="takes no options"):
            load(write('[[filter]]\nrun = "guard.py"\n'), ["--verbose"])


class TestErrors:
    def test_are_told_all_at_once_with_file_block_and_key(self, write):
        path = write(
            "deadlin = 3\n"
            "\n"
            "[[filter]]\n"
            'run = "nothere.py"\n'
            "wen = { x = 1 }\n"
            'when = { authenticated = "yes", networks = ["1.2.3.400"], foo = 1 }\n'
            "\n"
            "[[filter]]\n"
            'exec = "/nonexistent/filter"\n'
            "deadline = -1\n"
            'on_error = "explode"\n'
            "[[ filter ]]\n"
            "observe = 3\n"
        )
        found = problems(path)
        assert [problem.partition(f"{path}: ")[2].split(": ")[:2] for problem in found] == [
            ["deadlin", "no such key; there are"],
            ["filter 1 (line 3)", "wen"],
            ["filter 1 (line 3)", "when.authenticated"],
            ["filter 1 (line 3)", "when.networks"],
            ["filter 1 (line 3)", "when.foo"],
            ["filter 1 (line 3)", "run"],
            ["filter 2 (line 8)", "deadline"],
            ["filter 2 (line 8)", "on_error"],
            ["filter 2 (line 8)", "exec"],
            ["filter 3 (line 12)", "one of run, exec, milter is needed"],
            ["filter 3 (line 12)", "observe"],
        ]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "no filter in it"),
            ("filter = 3", r"write \[\[filter\]\]"),
            ("[filter]\nrun = 'guard.py'", r"write \[\[filter\]\]"),
            ("[[filter]]\nrun = ", "Invalid value"),
            ("[[filter]]\nrun = 'guard.py'\nexec = '/bin/true'", "not run and exec"),
            ("[[filter]]\nrun = 3", "run: a text, not 3"),
            ("[[filter]]\nrun = 'guard.py'\noptions = '-x'", "options: a list of texts"),
            ("[[filter]]\nexec = '/bin/true'\noptions = []", "options: no such key here"),
            ("[[filter]]\nrun = 'guard.py'\nprotocol = '0.7'", "protocol: no such key here"),
            ("[[filter]]\nexec = '/bin/true'\nprotocol = 0.7", "protocol: one of 0.4"),
            ("[[filter]]\nexec = '/bin/true'\nprotocol = ['0.6']", "protocol: one of 0.4"),
            ("[[filter]]\nexec = '/bin/true'\nprotocol = {a = 1}", "protocol: one of 0.4"),
            ("a = " + "[" * 5000, r"mx\.toml: "),
            ("a = " + "9" * 5000, r"mx\.toml: Exceeds the limit"),
            ('[[filter]]\nexec = "/bin/true \'half"', "exec: .* is not a valid command"),
            ("[[filter]]\nrun = 'guard.py'\nwhen = true", "when: is a table of conditions"),
            ("[[filter]]\nrun = 'guard.py'\nunless = {}", "unless: is empty"),
            ("[[filter]]\nrun = 'guard.py'\ndeadline = true", "deadline: a number of seconds"),
            ("[[filter]]\nrun = 'guard.py'\ndeadline = 0", "deadline: a positive number"),
            ("[[filter]]\nrun = 'guard.py'\non_error = 451", "on_error: tempfail, proceed or"),
            ("[[filter]]\nrun = 'guard.py'\nname = 'a b'", "name: a word"),
            ("name = ''\n[[filter]]\nrun = 'guard.py'", "name: a word"),
            ("deadline = 'x'\n[[filter]]\nrun = 'guard.py'", "deadline: a number"),
            ("[[filter]]\nrun = 'broken.py'", r"run: .*broken\.py:1: .*syntax"),
            ("[[filter]]\nrun = 'empty.py'", "run: .*no Filter in it"),
            ("[[filter]]\nrun = 'mx.toml'", "run: a chain cannot be in a chain"),
            ("[[filter]]\nrun = './mx.toml'", "run: a chain cannot be in a chain"),
            ("[[filter]]\nrun = 'chain.py'", "run: a chain cannot be in a chain"),
            ('[[filter]]\nexec = "/bin/true \\u0000"', "exec: .* control characters"),
            ('[[filter]]\nexec = "/bin/true\\n-x"', "exec: .* line breaks"),
            ("[[filter]]\nrun = 'options.py'", "options: .* ended with status 3"),
        ],
    )
    def test_of_each_kind_are_told(self, text, problem, write, tmp_path):
        (tmp_path / "broken.py").write_text("def (\n")
        (tmp_path / "empty.py").write_text("")
        (tmp_path / "chain.py").write_text(
            "from greenfilter import Chain\nimport guard\napp = Chain('x').add(guard.app)\n"
        )
        (tmp_path / "options.py").write_text("raise SystemExit(3)")
        path = write(text)
        with pytest.raises(UsageError, match=problem):
            load(path, [])

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(UsageError, match=r"mx\.toml: No such file"):
            load(str(tmp_path / "mx.toml"), [])

    def test_what_is_no_utf_8(self, tmp_path):
        path = tmp_path / "mx.toml"
        path.write_bytes(b"name = '\xff'")
        with pytest.raises(UsageError, match=r"mx\.toml: .*utf-8"):
            load(str(path), [])

    def test_blocks_without_lines_of_their_own_are_named_by_number(self, write):
        (problem,) = problems(write("filter = [{run = 'guard.py', dealine = 1}]"))
        assert ": filter 1: dealine: no such key here" in problem
