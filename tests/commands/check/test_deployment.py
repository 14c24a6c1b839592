"""What ``check --smtpd-conf`` finds in a smtpd.conf."""

from __future__ import annotations

import re
import sys
import textwrap

import pytest

from .checking import ME

BOTH = """
    @app.filter.ehlo
    def look(ctx, identity): ...
    @app.report.tx_commit(outgoing=True)
    def count(ctx, message_id, size): ...
"""


@pytest.fixture
def check_conf(check, tmp_path):
    """Check a filter with hooks for both directions against the text of a smtpd.conf."""

    def run(conf: str, text: str = BOTH, *options: str) -> list[str]:
        program = f"{sys.executable} -m greenfilter run {tmp_path / 'guard.py'}"
        path = tmp_path / "smtpd.conf"
        conf = textwrap.dedent(conf).lstrip("\n")
        path.write_text(conf.replace("PROGRAM", program).replace("HERE", str(tmp_path)))
        done = check(text, "--smtpd-conf", path, "--user", ME, *options)
        lines = done.stderr.splitlines()
        assert done.returncode == bool(lines)
        return [line.removeprefix(f"{tmp_path}/") for line in lines]

    return run


GOOD_CONF = """
    filter guard proc-exec "PROGRAM --option"
    listen on 127.0.0.1 port 2525 filter guard
    action "out" relay host smtp://127.0.0.1:2526 filter guard
    match from any for any action "out"
"""


def test_a_configuration_that_names_the_filter_twice_is_good(check_conf):
    assert check_conf(GOOD_CONF) == []


def test_a_filter_is_found_in_a_chain_a_macro_and_an_included_file(check_conf, tmp_path):
    (tmp_path / "more.conf").write_text(
        "# the filter's own \\\n comment, still\n"
        'filter "both" chain { other, "guard" }\n'
        "listen on 127.0.0.1 \\\n\tport 2525 tag x filter $name # comment\n"
    )
    conf = """
        name = both
        proc shared "PROGRAM"
        filter other proc-exec "/bin/cat"
        filter guard proc shared
        include "HERE/more.conf"
        action "out" relay filter "guard"
        match from any for any action "out"
    """
    assert check_conf(conf) == []


def test_a_filter_that_listens_nowhere_is_told(check_conf):
    conf = GOOD_CONF.replace("2525 filter guard", "2525")
    assert check_conf(conf) == [
        'smtpd.conf:1: filter "guard" has hooks for smtp-in, but no line names it: '
        'listen on ... filter "guard"'
    ]


def test_each_of_two_filters_that_run_the_same_file_has_to_be_named_somewhere(check_conf):
    conf = GOOD_CONF.replace("2526 filter guard", "2526 filter other")
    conf = '    filter other proc-exec "PROGRAM --other"\n' + conf.lstrip("\n")
    assert check_conf(conf) == []
    conf = '    filter third proc-exec "PROGRAM --third"\n' + conf
    assert check_conf(conf) == [
        'smtpd.conf:1: filter "third" runs it too, but no line names it: '
        'listen on ... filter "third"'
    ]


def test_outgoing_reports_without_a_filter_on_the_relay_action_are_told(check_conf):
    conf = GOOD_CONF.replace("2526 filter guard", "2526")
    assert check_conf(conf) == [
        'smtpd.conf:1: filter "guard" has hooks for smtp-out, but no line names it: '
        'action ... relay ... filter "guard"'
    ]


def test_a_filter_without_outgoing_reports_needs_no_relay_action(check_conf):
    text = "app.filter.ehlo(lambda ctx, identity: None)\n"
    assert check_conf(GOOD_CONF.replace("2526 filter guard", "2526"), text) == []


def test_a_configuration_that_never_runs_the_filter_is_told(check_conf, tmp_path):
    conf = """
        filter guard proc-exec "/bin/cat" # PROGRAM
        listen on 127.0.0.1 port 2525 filter guard
        action "out" relay filter guard
        match from any for any action "out"
    """
    assert check_conf(conf) == [
        f"smtpd.conf:1: no filter runs {tmp_path}/guard.py; write: filter NAME proc-exec COMMAND"
    ]


def test_a_command_without_its_path_is_told(check_conf):
    conf = GOOD_CONF.replace("PROGRAM", "greenfilter run HERE/guard.py")
    assert check_conf(conf) == [
        "smtpd.conf:1: 'greenfilter' does not begin with a slash, so smtpd looks for it in its "
        "own libexec directory only; write the whole path"
    ]


@pytest.mark.parametrize("target", ["guard.py", "guard.py:app"])
def test_a_relative_path_is_told(target, check_conf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conf = GOOD_CONF.replace("PROGRAM", f"/bin/env greenfilter run {target}")
    assert check_conf(conf) == [
        f"smtpd.conf:1: '{target}' is relative to where smtpd was started; write the whole path"
    ]


def test_an_included_file_that_is_missing_is_told(check_conf):
    lines = check_conf(GOOD_CONF + '    include "HERE/gone.conf"\n')
    assert lines[0].startswith("smtpd.conf:5: include ")
    assert lines[0].endswith("gone.conf: No such file or directory")


def test_smtpd_itself_reads_the_configuration(require_smtpd, check_conf):
    lines = check_conf(GOOD_CONF + "    listen nowhere\n")
    assert lines == ["smtpd.conf:5: smtpd -n: syntax error"]


def test_a_configuration_that_is_not_there_is_told(check, tmp_path):
    done = check(BOTH, "--smtpd-conf", tmp_path / "gone.conf")
    assert done.returncode == 1
    assert done.stderr.endswith("gone.conf: No such file or directory\n")


@pytest.mark.parametrize("rest", ["{ guard", "{ guard, guard\n", '"guard', "{"])
def test_what_smtpd_cannot_read_is_its_syntax_error(rest, require_smtpd, check_conf):
    lines = check_conf(GOOD_CONF.replace("2525 filter guard", f"2525 filter {rest}"))
    assert "Traceback" not in "".join(lines)
    assert any(re.match(r"smtpd\.conf:\d+: smtpd -n: ", line) for line in lines)


@pytest.mark.parametrize("command", ["guard.py --option", "guard --option", "guard"])
def test_a_command_without_a_slash_is_found_by_its_name(command, check_conf):
    lines = check_conf(GOOD_CONF.replace("PROGRAM --option", command))
    name = command.partition(" ")[0]
    assert lines == [
        f"smtpd.conf:1: '{name}' does not begin with a slash, so smtpd looks for it in its own "
        "libexec directory only; write the whole path"
    ]


def test_an_empty_command_is_no_traceback(check_conf, tmp_path):
    lines = check_conf(GOOD_CONF.replace("PROGRAM --option", ""))
    assert lines == [
        f"smtpd.conf:1: no filter runs {tmp_path}/guard.py; write: filter NAME proc-exec COMMAND"
    ]


def test_it_says_when_all_is_well(require_smtpd, check, tmp_path):
    conf = tmp_path / "smtpd.conf"
    program = f"{sys.executable} -m greenfilter run {tmp_path}/guard.py"
    conf.write_text(textwrap.dedent(GOOD_CONF).replace("PROGRAM", program))
    done = check(BOTH, "--smtpd-conf", conf, "--user", ME)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == (
        f"all is well: no mistake was found in {tmp_path}/guard.py; {conf} runs it where its hooks "
        f"need it; smtpd -n takes it; user {ME} can read all files"
    )


def test_it_does_not_say_so_when_something_is_wrong(check, tmp_path):
    conf = tmp_path / "smtpd.conf"
    conf.write_text('filter guard proc-exec "/bin/cat"\n')
    done = check(BOTH, "--smtpd-conf", conf, "--user", ME)
    assert (done.returncode, "all is well" in done.stdout) == (1, False)


def test_a_port_from_c_has_the_name_of_its_file(check):
    done = check(
        """
        from greenfilter.osmtpd import *
        del app
        osmtpd_register_filter_noop(lambda ctx: osmtpd_filter_proceed(ctx))
        osmtpd_run()
        """
    )
    assert done.stdout.splitlines()[0].startswith("guard: ")
    assert '  filter "guard" proc-exec "' in done.stdout
