"""The command line. smtpd starts ``run``, so each command imports what it needs, and no more."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from .. import __version__
from ..errors import UsageError

_PASS_ON = {"allow_interspersed_args": False}  # what follows FILTER is not ours


def _tell_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from ..protocol import _connection

        how = "plain Python" if _connection.__file__.endswith(".py") else "compiled"
        click.echo(f"greenfilter {__version__} ({how})")
        ctx.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_tell_version,
    help="Show the version, and whether the modules that matter for speed are compiled.",
)
def cli() -> None:
    """Run OpenSMTPD filters written in Python.

    FILTER is the name of a stock filter (greenfilter filters lists them), the path of a Python file
    that makes a greenfilter.Filter, with a slash in it or .py at its end, or package.module:name.
    What follows it are the filter's own options: greenfilter run NAME --help shows those of a stock
    filter.
    """


@cli.command(context_settings=_PASS_ON)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Least level of what is logged.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="One line of text, or one JSON object, per record.",
)
@click.option(
    "--supervisor/--no-supervisor",
    "supervised",
    default=True,
    help="Run the filter in worker processes that are replaced when they die (default), or in "
    "this process, which takes smtpd with it when it dies.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Worker processes that share the sessions.",
)
@click.option(
    "--max-memory",
    type=click.IntRange(0),
    default=0,
    metavar="MIB",
    help="Replace a worker that has more than this resident. 0: no limit (default).",
)
@click.option(
    "--hang-timeout",
    type=click.FloatRange(1.0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Replace a worker in which nothing has moved for so long.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0.0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a worker that is replaced may take to finish its sessions.",
)
@click.option("--pidfile", type=click.Path(), help="Write the process id here, for reload.")
@click.argument("target", metavar="FILTER")
@click.argument("args", metavar="[OPTION]...", nargs=-1, type=click.UNPROCESSED)
def run(
    target: str,
    args: tuple[str, ...],
    supervised: bool,
    pidfile: str | None,
    max_memory: int,
    **others: Any,
) -> None:
    """Run FILTER under smtpd, which starts it: greenfilter check prints the lines for smtpd.conf.

    SIGHUP, or greenfilter reload, loads the filter's code anew without losing a session.
    """
    from .._supervisor import Options
    from .run import run as run_filter

    others["hang_seconds"] = others.pop("hang_timeout")
    others["drain_seconds"] = others.pop("drain_timeout")
    options = Options(target=target, args=_own(target, args), max_memory=max_memory << 20, **others)
    run_filter(options, supervised, pidfile)


@cli.command()
@click.argument("pidfile", type=click.Path())
def reload(pidfile: str) -> None:
    """Have the filter that wrote PIDFILE (run --pidfile) load its code anew."""
    from .pidfile import reload as reload_filter

    reload_filter(pidfile)


@cli.command(context_settings=_PASS_ON)
@click.option(
    "--smtpd-conf",
    type=click.Path(),
    metavar="FILE",
    help="See whether this smtpd.conf names the filter where its hooks need it.",
)
@click.option(
    "--user",
    metavar="NAME",
    help="See whether this user gets at all files. With --smtpd-conf the default is who "
    "proc-exec names there, or else smtpd's own user.",
)
@click.option("--strict", is_flag=True, help="Warnings are errors.")
@click.option(
    "--run",
    is_flag=True,
    help="Play some sessions to the filter, in a process of its own, and tell which handlers kept "
    "its loop for 100 ms or more, and in which line. It really does what it does: it asks its "
    "servers and databases, and writes its files, about made-up clients of example.net.",
)
@click.argument("target", metavar="FILTER")
@click.argument("args", metavar="[OPTION]...", nargs=-1, type=click.UNPROCESSED)
def check(target: str, args: tuple[str, ...], **others: Any) -> None:
    """Find what is wrong with FILTER before it starts.

    Imports it, lists its hooks, prints the lines that smtpd.conf needs, and looks for mistakes.
    Each is a line on standard error, FILE:LINE: TEXT; the exit status is 1 if there is one, not
    counting warnings.
    """
    from .check import CheckOptions, check_and_end

    check_and_end(CheckOptions(target, _own(target, args), **others))


@cli.command(context_settings=_PASS_ON)
@click.option(
    "--listen",
    default="127.0.0.1:2525",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where mail clients connect. Port 0 takes a free one.",
)
@click.option(
    "--protocol",
    "version",
    type=click.Choice(["0.6", "0.7"]),
    default="0.7",
    show_default=True,
    help="Version of the filter protocol: 0.6 is OpenSMTPD 6.8, 0.7 is 7.x.",
)
@click.option(
    "--user", "users", multiple=True, metavar="NAME:PASSWORD", help="Offer AUTH, after STARTTLS."
)
@click.option(
    "--require-auth", "auth_required", is_flag=True, help="Take no mail without TLS and AUTH."
)
@click.option("--maildir", type=click.Path(), help="Store accepted mail in this Maildir.")
@click.option(
    "--smtp-out",
    metavar="HOST:PORT",
    help="Relay accepted mail to this server, with smtp-out reports to the filter.",
)
@click.option("--src", metavar="ADDRESS", help="Address that clients seem to come from.")
@click.option("--rdns", metavar="NAME", help="Name that they seem to have; '<unknown>' for none.")
@click.option(
    "--hostname", default="mx.example.org", show_default=True, help="Name of the mail server."
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object for each event.")
@click.option(
    "--show-protocol",
    "wants_protocol",
    is_flag=True,
    help="Show each line between smtpd and the filter too.",
)
@click.option(
    "--proc-exec",
    is_flag=True,
    help="FILTER is a command, as after proc-exec in smtpd.conf.",
)
@click.argument("target", metavar="FILTER")
@click.argument("args", metavar="[OPTION]...", nargs=-1, type=click.UNPROCESSED)
def serve(target: str, args: tuple[str, ...], proc_exec: bool, **others: Any) -> None:
    """Serve mail clients with FILTER, no mail server needed, and show what happens."""
    from .._serve import Source
    from .serve import serve as serve_filter

    serve_filter(Source(target, tuple(_own(target, args)), proc_exec), **others)


@cli.command(context_settings=_PASS_ON)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    required=True,
    metavar="FILE",
    help="Record to this; what is in it is kept.",
)
@click.option(
    "--max-size",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="MIB",
    help="Begin a new file then: FILE becomes FILE.1, that FILE.2.",
)
@click.option(
    "--keep",
    type=click.IntRange(0),
    default=9,
    show_default=True,
    metavar="N",
    help="How many of these older files to keep.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def record(output: str, max_size: int, keep: int, command: tuple[str, ...]) -> None:
    """Record what smtpd and a filter say, without passwords, for replay.

    In smtpd.conf, in front of the command of any filter:
    filter NAME proc-exec "greenfilter record -o FILE -- COMMAND..."

    Each filter needs a FILE of its own. It is written by the user that the filter runs as (_smtpd
    if smtpd.conf names none), in a directory that this user may write to. Whatever becomes of the
    recording, the mail goes on.
    """
    from .record import record as record_filter

    record_filter(command, output, max_size << 20, keep)


@cli.command()
@click.option(
    "--speed",
    type=click.Choice(["max", "original"]),
    default="max",
    show_default=True,
    help="As fast as the filter answers, or with the pauses of the recording.",
)
@click.option(
    "--filter-option",
    "filter_options",
    multiple=True,
    metavar="OPTION",
    help="An option of the filter's own; can be given many times: --filter-option=--strict",
)
@click.option(
    "--command", "is_command", is_flag=True, help="FILTER is a command line, of any filter."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the filter may take for an answer.",
)
@click.option(
    "--timeline",
    type=click.Path(dir_okay=False),
    metavar="HTML",
    help="Write a page that shows every session and how long each answer took.",
)
@click.option(
    "--observe",
    is_flag=True,
    help="Tell what FILTER would have done: one line per difference, and no session ends by it.",
)
@click.argument("target", metavar="FILTER")
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, type=click.Path())
def replay(target: str, logs: tuple[str, ...], **others: Any) -> None:
    """Play recordings into FILTER and tell where it decides otherwise than the recorded one did.

    The exit status is 0 if it decides the same, or with --observe; 1 if not; 2 if a recording
    cannot be read or the filter does not start.
    """
    from .replay import replay as replay_logs

    replay_logs(target, logs, **others)


@cli.command(context_settings=_PASS_ON)
@click.option(
    "--sessions",
    type=click.IntRange(1),
    metavar="N",
    help="Sessions in all: 2000, or with --seconds as many as there is time for.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Begin no session after this time.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    metavar="N",
    help="Sessions at once.",
)
@click.option(
    "--messages",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="Messages in each session.",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    metavar="BYTES",
    help="Size of each message.",
)
@click.option(
    "--supervisor/--no-supervisor",
    "supervised",
    default=True,
    help="As for run.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, metavar="N", help="As for run.")
@click.option("--json", "as_json", is_flag=True, help="Print figures for machines, in seconds.")
@click.argument("target", metavar="FILTER")
@click.argument("args", metavar="[OPTION]...", nargs=-1, type=click.UNPROCESSED)
def bench(target: str, args: tuple[str, ...], as_json: bool, **others: Any) -> None:
    """Load FILTER through the protocol, and say how fast it is and where the time goes.

    The filter runs as under smtpd, in its own process. A second, short run times its handlers
    from within. Nothing is sent anywhere, but the filter does what it does: it asks its DNS
    servers and databases about made-up clients of example.net.
    """
    from .._bench import DEFAULT_SESSIONS, Load
    from .bench import BenchOptions
    from .bench import bench as bench_filter

    run_options = [] if others.pop("supervised") else ["--no-supervisor"]
    run_options += ["--workers", str(others.pop("workers"))]
    if others["sessions"] is None and others["seconds"] is None:
        others["sessions"] = DEFAULT_SESSIONS
    bench_filter(BenchOptions(target, _own(target, args), Load(**others), run_options, as_json))


@cli.command()
def filters() -> None:
    """List the stock filters, which greenfilter run NAME runs."""
    from .._filter import stock

    for name in stock.names():
        click.echo(f"{name:<18}{stock.summary(name)}")


@cli.command()
@click.argument("name")
def new(name: str) -> None:
    """Write a filter to start from: NAME.py, its test test_NAME.py, its smtpd.conf lines NAME.conf.

    NAME may have a directory in front. Nothing that is there is overwritten.
    """
    from .new import new as new_filter

    new_filter(name)


def _own(target: str, args: tuple[str, ...]) -> list[str]:
    """The filter's own options; a ``--`` in front of them is not one.

    A stock filter's manual is shown here: nobody needs a mail server to read it.
    """
    own = list(args[1:] if args[:1] == ("--",) else args)
    if {"-h", "--help"}.intersection(own):
        from .._filter import stock

        if stock.is_name(target):
            stock.build(target, ["--help"])
    return own


def main() -> NoReturn:
    """Entry point of the command ``greenfilter``."""
    try:
        cli()
    except UsageError as error:
        click.echo(f"greenfilter: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)
