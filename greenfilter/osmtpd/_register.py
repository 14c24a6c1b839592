"""The functions of osmtpd_run(3) that are called before osmtpd_run()."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, TypeVar

from .._filter.context import Context
from .._filter.handlers import locate, make_error
from ..protocol import EVENTS, PHASES, Config, Event, Field, Need
from ._app import app
from ._ctx import STATUSES, Write, osmtpd_ctx, pending_of

Callback = Callable[..., Any]
R = TypeVar("R", bound=Callback)

# By bit of OSMTPD_NEED_*.
_NEEDS = (
    *(Need.SRC, Need.DST, Need.RDNS, Need.FCRDNS, Need.IDENTITY, Need.GREETING, Need.CIPHERS),
    *(Need.MESSAGE_ID, Need.MAIL_FROM, Need.RCPT_TO, Need.ENVELOPE_IDS),
)
# Where C has fewer fields than the report, or another order: which ones of the report.
_FIELDS = {"link_identify": (1,), "tx_mail": (0, 2, 1), "tx_rcpt": (0, 2, 1)}


def _check(cb: Any, count: int, name: str) -> None:
    """Raise RegistrationError unless ``cb`` can be called with ``count`` arguments."""
    try:
        inspect.signature(cb).bind(*range(count))
    except (TypeError, ValueError) as error:
        raise make_error(
            f"{name}() takes a function of {count} arguments, not {cb!r}: {error}", locate(cb)
        ) from None


def _disguised(wrapper: Callback, cb: Callback) -> Callback:
    """Make a wrapper appear as the author's function in logs, but with its own parameters."""
    wrapper.__signature__ = inspect.signature(wrapper)  # type: ignore[attr-defined]
    return update_wrapper(wrapper, cb)


def _filter(phase: str, name: str) -> Callable[[Callback], None]:
    """Make the function that registers a callback for a phase."""
    fields = [field.name for field in PHASES[phase].fields]

    def register(cb: Callback) -> None:
        _check(cb, 1 + len(fields), register.__name__)

        def handler(call: Context, *values: Any) -> Any:
            deferred = call.defer()
            requests = pending_of(call).requests
            requests[call] = None
            try:
                cb(osmtpd_ctx(call, request=call), *values)
            except BaseException:
                requests.pop(call, None)
                raise
            return deferred

        getattr(app.filter, phase)(_disguised(handler, cb))

    return _named(register, f"osmtpd_register_filter_{name}", phase, ["ctx", *fields])


def _report(event: str, name: str) -> Callable[[int, Callback], None]:
    """Make the function that registers a callback for a report."""
    fields, convert = _arguments(EVENTS[event])

    def register(incoming: int, cb: Callback) -> None:
        _check(cb, 1 + len(fields), register.__name__)

        def handler(call: Context, *values: Any) -> None:
            cb(osmtpd_ctx(call), *convert(values))

        getattr(app.report, event)(outgoing=not incoming)(_disguised(handler, cb))

    return _named(register, f"osmtpd_register_report_{name}", event, ["ctx", *fields])


def _named(register: R, name: str, hook: str, parameters: list[str]) -> R:
    register.__name__ = register.__qualname__ = name
    register.__doc__ = (
        f"Call ``cb({', '.join(parameters)})`` at {hook.replace('_', '-')}.\n\n"
        "Raises:\n    RegistrationError: it takes other arguments, or there is one already.\n"
    )
    return register


def _arguments(event: Event) -> tuple[list[str], Callable[[Any], list[Any]]]:
    """Return the names of a C callback's arguments, and what makes them of a report's values."""
    if event.name == "filter_response":  # C does not split it
        return ["response"], lambda values: ["|".join(v for v in values if v is not None)]
    order = _FIELDS.get(event.name, range(len(event.fields)))
    fields = [(event.fields[index], index) for index in order]
    return (
        [field.name for field, _ in fields],
        lambda values: [_as_c(field, values[index]) for field, index in fields],
    )


def _as_c(field: Field, value: Any) -> Any:
    if field.kind == "status":
        return STATUSES[value]
    return int(value, 16) if field.name in ("message_id", "envelope_id") else value


osmtpd_register_filter_connect = _filter("connect", "connect")
osmtpd_register_filter_helo = _filter("helo", "helo")
osmtpd_register_filter_ehlo = _filter("ehlo", "ehlo")
osmtpd_register_filter_starttls = _filter("starttls", "starttls")
osmtpd_register_filter_auth = _filter("auth", "auth")
osmtpd_register_filter_mailfrom = _filter("mail_from", "mailfrom")
osmtpd_register_filter_rcptto = _filter("rcpt_to", "rcptto")
osmtpd_register_filter_data = _filter("data", "data")
osmtpd_register_filter_rset = _filter("rset", "rset")
osmtpd_register_filter_quit = _filter("quit", "quit")
osmtpd_register_filter_noop = _filter("noop", "noop")
osmtpd_register_filter_help = _filter("help", "help")
osmtpd_register_filter_wiz = _filter("wiz", "wiz")
osmtpd_register_filter_commit = _filter("commit", "commit")

osmtpd_register_report_connect = _report("link_connect", "connect")
osmtpd_register_report_disconnect = _report("link_disconnect", "disconnect")
osmtpd_register_report_greeting = _report("link_greeting", "greeting")
osmtpd_register_report_identify = _report("link_identify", "identify")
osmtpd_register_report_tls = _report("link_tls", "tls")
osmtpd_register_report_begin = _report("tx_begin", "begin")
osmtpd_register_report_mail = _report("tx_mail", "mail")
osmtpd_register_report_rcpt = _report("tx_rcpt", "rcpt")
osmtpd_register_report_envelope = _report("tx_envelope", "envelope")
osmtpd_register_report_data = _report("tx_data", "data")
osmtpd_register_report_commit = _report("tx_commit", "commit")
osmtpd_register_report_rollback = _report("tx_rollback", "rollback")
osmtpd_register_report_client = _report("protocol_client", "client")
osmtpd_register_report_server = _report("protocol_server", "server")
osmtpd_register_report_response = _report("filter_response", "response")
osmtpd_register_report_timeout = _report("timeout", "timeout")


def osmtpd_register_filter_dataline(cb: Callback) -> None:
    """Call ``cb(ctx, line)`` for each line of a message, as bytes, and for the final ".".

    Lines are as on the wire, so one that begins with a dot has another in front (RFC 5321,
    4.5.2). The message becomes what osmtpd_filter_dataline() is given, in the callback or later;
    it ends with ``"."``.

    Raises:
        RegistrationError: it takes other arguments, or there is one already.
    """
    _check(cb, 2, "osmtpd_register_filter_dataline")

    def begin(call: Context, write: Write) -> Callable[[bytes], Any]:
        pending_of(call).write = write
        ctx = osmtpd_ctx(call, write=write)
        return lambda line: cb(ctx, line)

    # Lines that were written cannot be taken back: a message that fails is refused.
    app._raw_line(on_error="tempfail")(_disguised(begin, cb))


def osmtpd_register_conf(cb: Callback) -> None:
    """Call ``cb(key, value)`` for each configuration line, and with (None, None) at their end.

    Raises:
        RegistrationError: it takes other arguments.
    """
    _check(cb, 2, "osmtpd_register_conf")

    def tell(config: Config) -> None:
        for key, value in config.values.items():
            for each in config.subsystems if key == "subsystem" else [value]:
                cb(key, each)
        cb(None, None)

    app._registry.config_functions.clear()  # in C, too, only the last one counts
    app.on_config(_disguised(tell, cb))


def osmtpd_local_session(oncreate: Callback | None, ondelete: Callback | None) -> None:
    """Make an object of the filter's own for every session, ``ctx.local_session``.

    Args:
        oncreate: makes the object: ``oncreate(ctx)``; None for no object.
        ondelete: called with (ctx, object), exactly once, when the session has ended; or None.

    Raises:
        RegistrationError: they take other arguments, or were set already.
    """
    app.local_session(*_hooks(oncreate, ondelete, "osmtpd_local_session"))


def osmtpd_local_message(oncreate: Callback | None, ondelete: Callback | None) -> None:
    """Make an object of the filter's own for every message, ``ctx.local_message``.

    Arguments and errors are those of :func:`osmtpd_local_session`.
    """
    app.local_message(*_hooks(oncreate, ondelete, "osmtpd_local_message"))


def _hooks(
    oncreate: Callback | None, ondelete: Callback | None, name: str
) -> tuple[Callback, Callback | None]:
    def create(call: Context) -> Any:
        return None if oncreate is None else oncreate(osmtpd_ctx(call))

    def delete(call: Context, local: Any) -> None:
        if ondelete is not None:
            ondelete(osmtpd_ctx(call), local)

    if oncreate is not None:
        _check(oncreate, 1, name)
        _disguised(create, oncreate)
    if ondelete is not None:
        _check(ondelete, 2, name)
        _disguised(delete, ondelete)
    return create, delete


def osmtpd_need(needs: int) -> None:
    """Ask for fields of ctx that have to be asked for.

    Args:
        needs: OSMTPD_NEED_*, joined by ``|``. Several calls add up.
    """
    for bit, need in enumerate(_NEEDS):
        if needs & 1 << bit:
            app.needs = need if app.needs is None else app.needs | need
