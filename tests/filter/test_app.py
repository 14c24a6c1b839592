"""Registration: decorators, options, and every way to get them wrong."""

import functools
import inspect

import pytest

from greenfilter import (
    Chain,
    Filter,
    Need,
    RegistrationError,
    junk,
    proceed,
    reject,
    report,
    rewrite,
)
from greenfilter._filter.app import Loaded
from greenfilter.errors import UsageError
from greenfilter.protocol import EVENTS, JUNK, PHASES, PROCEED, TEMPFAIL

ALL_BUT_DATA_LINE = sorted(set(PHASES) - {"data_line"})


def takes(count: int):
    """A handler with this many parameters."""
    return eval(f"lambda {', '.join(f'a{i}' for i in range(count))}: None")


def handler_for(fields: int):
    return takes(1 + fields)


# Decorators


@pytest.mark.parametrize("name", ALL_BUT_DATA_LINE)
def test_every_phase_has_its_decorator(name):
    app = Filter("t")
    fn = handler_for(len(PHASES[name].fields))
    assert getattr(app.filter, name)(fn) is fn
    assert app._registry.filters[name].fn is fn
    assert app._registry.filters[name].hook == f"filter.{name}"
    assert app._registry.phases() == {PHASES[name].wire}


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("subsystem", ["smtp-in", "smtp-out"])
def test_every_event_has_its_decorator(name, subsystem):
    app = Filter("t")
    fn = handler_for(len(EVENTS[name].fields))
    assert getattr(app.report, name)(outgoing=subsystem == "smtp-out")(fn) is fn
    assert app._registry.reports[subsystem, name].fn is fn
    assert (subsystem, EVENTS[name].wire) in app._registry.deliveries()
    assert app._registry.phases() == set()


def test_the_decorated_function_stays_the_plain_function():
    app = Filter("t")

    @app.filter.ehlo
    def bare(ctx, identity):
        return reject(550, identity)

    @app.filter.helo(deadline=1.0)
    def with_options(ctx, identity):
        return reject(550, identity)

    assert bare(None, "x") == with_options(None, "x") == reject(550, "x")
    assert inspect.isfunction(bare)
    assert inspect.isfunction(with_options)


def test_options_reach_the_handler_and_the_others_are_the_defaults():
    app = Filter("t", deadline=7, on_error="proceed")
    app.filter.ehlo(takes(2))
    app.filter.helo(deadline=2, on_error=reject(550, "no"), thread=True, cancel_on_close=True)(
        takes(2)
    )
    plain, special = app._registry.filters["ehlo"], app._registry.filters["helo"]
    assert (plain.deadline, plain.on_error) == (7.0, PROCEED)
    assert (plain.thread, plain.cancel_on_close) == (False, False)
    assert (special.deadline, special.on_error) == (2.0, reject(550, "no"))
    assert (special.thread, special.cancel_on_close) == (True, True)


def test_empty_brackets_are_like_none():
    app = Filter("t")
    app.filter.ehlo()(takes(2))
    assert app._registry.filters["ehlo"].deadline == 30.0
    assert app._registry.filters["ehlo"].on_error == TEMPFAIL


@pytest.mark.parametrize(
    ("policy", "decision"),
    [("tempfail", TEMPFAIL), ("proceed", PROCEED), ("junk", JUNK), (rewrite("x"), rewrite("x"))],
)
def test_policies_are_decisions(policy, decision):
    app = Filter("t")
    app.filter.ehlo(on_error=policy)(takes(2))
    assert app._registry.filters["ehlo"].on_error == decision


def test_the_policy_of_the_app_yields_where_it_is_not_legal():
    app = Filter("t", on_error="junk")
    app.filter.ehlo(takes(2))
    app.filter.commit(takes(1))
    app.lines(takes(2))
    assert app._registry.filters["ehlo"].on_error == JUNK
    assert app._registry.filters["commit"].on_error == app._registry.data[1].on_error == TEMPFAIL


def test_one_decorator_with_options_can_be_used_twice():
    outgoing = Filter("t").report.tx_commit(outgoing=True)
    outgoing(takes(3))
    with pytest.raises(RegistrationError, match="has a handler already"):
        outgoing(takes(3))


def test_a_handler_may_take_more_than_it_must():
    app = Filter("t")
    app.filter.connect(lambda *args: None)
    app.filter.ehlo(lambda ctx, identity, more=1: None)
    app.filter.helo(functools.partial(lambda extra, ctx, identity: None, "extra"))
    assert set(app._registry.filters) == {"connect", "ehlo", "helo"}


def test_methods_and_callable_objects_are_handlers():
    class Checks:
        def ehlo(self, ctx, identity):
            return None

        def __call__(self, ctx, identity):
            return None

    app = Filter("t")
    app.filter.ehlo(Checks().ehlo)
    app.filter.helo(Checks())
    assert app._registry.filters["ehlo"].name == "ehlo"


# Data modes


@pytest.mark.parametrize("mode", ["lines", "message"])
def test_a_data_handler_registers_data_line_and_commit(mode):
    app = Filter("t")
    fn = takes(2)
    assert getattr(app, mode)(fn) is fn
    assert app._registry.data[0] == mode
    assert app._registry.phases() == {"data-line", "commit"}


def test_data_line_is_a_phase_and_a_data_mode():
    app = Filter("t")
    app.filter.data_line(takes(2))
    assert app._registry.data[0] == "data_line"
    assert app._registry.phases() == {"data-line", "commit"}


def test_taps_may_be_many_and_beside_a_data_mode():
    app = Filter("t")
    app.tap(takes(2))
    app.tap(takes(2))
    app.message(takes(2))
    assert len(app._registry.taps) == 2
    assert len(app._registry.handlers()) == 3


@pytest.mark.parametrize("second", ["lines", "message", "data_line"])
@pytest.mark.parametrize("first", ["lines", "message", "data_line"])
def test_two_data_modes_are_refused(first, second):
    app = Filter("t")

    def hook(name):
        return app.filter.data_line if name == "data_line" else getattr(app, name)

    hook(first)(takes(2))
    with pytest.raises(RegistrationError, match=r"one of filter\.data_line, lines and message"):
        hook(second)(takes(2))


# Misuse


def misuse_of_options(app):
    @app.filter.ehlo(dedline=3)
    def handler(ctx, identity): ...


def misuse_of_outgoing(app):
    @app.filter.ehlo(outgoing=True)
    def handler(ctx, identity): ...


def misuse_of_on_error_in_a_report(app):
    @app.report.timeout(on_error="proceed")
    def handler(ctx): ...


def misuse_of_thread_in_lines(app):
    @app.lines(thread=True)
    def handler(ctx, lines): ...


def too_few_parameters(app):
    @app.filter.connect
    def handler(ctx, rdns): ...


def too_many_parameters(app):
    @app.report.link_disconnect
    def handler(ctx, reason): ...


def keyword_only_parameters(app):
    @app.filter.ehlo
    def handler(ctx, *, identity): ...


def async_handler(app):
    @app.filter.ehlo
    async def handler(ctx, identity): ...


def async_generator(app):
    @app.lines
    async def handler(ctx, lines):
        yield b""


def async_partial(app):
    async def handler(extra, ctx, identity): ...

    app.filter.ehlo(functools.partial(handler, 1))


def two_handlers_for_a_phase(app):
    @app.filter.ehlo
    def first(ctx, identity): ...

    @app.filter.ehlo
    def second(ctx, identity): ...


def two_handlers_for_an_event(app):
    @app.report.timeout
    def first(ctx): ...

    @app.report.timeout
    def second(ctx): ...


def no_function(app):
    app.filter.ehlo("handler")


def not_even_a_function(app):
    app.filter.ehlo(deadline=3)(None)


def deadline_of_zero(app):
    @app.filter.ehlo(deadline=0)
    def handler(ctx, identity): ...


def deadline_below_zero(app):
    @app.filter.ehlo(deadline=-1)
    def handler(ctx, identity): ...


def deadline_that_is_no_number(app):
    @app.filter.ehlo(deadline="30")
    def handler(ctx, identity): ...


def deadline_that_is_nan(app):
    @app.filter.ehlo(deadline=float("nan"))
    def handler(ctx, identity): ...


def endless_deadline(app):
    @app.filter.ehlo(deadline=float("inf"))
    def handler(ctx, identity): ...


def no_deadline(app):
    @app.filter.ehlo(deadline=None)
    def handler(ctx, identity): ...


def unknown_policy(app):
    @app.filter.ehlo(on_error="ignore")
    def handler(ctx, identity): ...


def policy_that_is_a_function(app):
    @app.filter.ehlo(on_error=proceed)
    def handler(ctx, identity): ...


def junk_at_commit(app):
    @app.filter.commit(on_error="junk")
    def handler(ctx): ...


def junk_for_a_message(app):
    @app.message(on_error=junk())
    def handler(ctx, message): ...


def report_for_a_message(app):
    @app.message(on_error=report("broken"))
    def handler(ctx, message): ...


def rewrite_at_quit(app):
    @app.filter.quit(on_error=rewrite("x"))
    def handler(ctx): ...


def unknown_phase(app):
    @app.filter.mailfrom
    def handler(ctx, sender): ...


def unknown_event(app):
    @app.report.tx_done
    def handler(ctx): ...


def wire_name(app):
    getattr(app.filter, "mail-from")


def phase_as_an_event(app):
    @app.report.ehlo
    def handler(ctx, identity): ...


def registration_after_the_start(app):
    app._registry.freeze()

    @app.filter.ehlo
    def handler(ctx, identity): ...


def storage_after_the_start(app):
    app._registry.freeze()
    app.local_session(dict)


def config_after_the_start(app):
    app._registry.freeze()
    app.on_config(lambda config: None)


def storage_of_sessions_twice(app):
    app.local_session(dict)
    app.local_session(dict)


def storage_of_messages_twice(app):
    app.local_message(dict)
    app.local_message(dict)


def create_with_two_parameters(app):
    app.local_session(lambda ctx, more, most: None)


def create_that_is_no_function(app):
    app.local_message({})


def delete_without_parameters(app):
    app.local_message(dict, lambda: None)


def config_handler_without_parameters(app):
    app.on_config(lambda: None)


def async_config_handler(app):
    @app.on_config
    async def handler(config): ...


def app_deadline(app):
    Filter("t", deadline=0)


def app_policy(app):
    Filter("t", on_error="ignore")


def app_needs(app):
    Filter("t", needs="src")


def app_threads(app):
    Filter("t", threads=0)


def app_max_concurrency(app):
    Filter("t", max_concurrency=1.5)


def app_max_message_bytes(app):
    Filter("t", max_message_bytes=-1)


def app_max_sessions(app):
    Filter("t", max_sessions=None)


MISUSES = {
    misuse_of_options: "no option 'dedline'; it has: deadline, on_error",
    misuse_of_outgoing: "no option 'outgoing'",
    misuse_of_on_error_in_a_report: "no option 'on_error'",
    misuse_of_thread_in_lines: "no option 'thread'",
    too_few_parameters: "filter.connect calls its handler with 3 arguments (ctx, rdns, address)",
    too_many_parameters: "report.link_disconnect calls its handler with 1 arguments (ctx)",
    keyword_only_parameters: "2 arguments (ctx, identity)",
    async_handler: "handler is async; write plain, blocking code instead",
    async_generator: "handler is async",
    async_partial: "is async",
    two_handlers_for_a_phase: "filter.ehlo has a handler already: first (",
    two_handlers_for_an_event: "report.timeout has a handler already: first (",
    no_function: "filter.ehlo takes a function, not 'handler'",
    not_even_a_function: "filter.ehlo takes a function, not None",
    deadline_of_zero: "deadline=0 is not a positive number of seconds",
    deadline_below_zero: "deadline=-1",
    deadline_that_is_no_number: "deadline='30'",
    deadline_that_is_nan: "deadline=nan",
    endless_deadline: "deadline=inf",
    no_deadline: "deadline=None",
    unknown_policy: "on_error='ignore' is not one of 'tempfail', 'proceed', 'junk'",
    policy_that_is_a_function: "nor a decision",
    junk_at_commit: "on_error='junk' is not legal at commit",
    junk_for_a_message: "not legal at commit",
    report_for_a_message: "cannot be kept for commit",
    rewrite_at_quit: "not legal at quit",
    unknown_phase: "app.filter.mailfrom does not exist; there are: connect, helo",
    unknown_event: "app.report.tx_done does not exist; there are: link_connect",
    wire_name: "app.filter.mail-from does not exist",
    phase_as_an_event: "app.report.ehlo does not exist",
    registration_after_the_start: "runs already; register before it starts",
    storage_after_the_start: "runs already",
    config_after_the_start: "runs already",
    storage_of_sessions_twice: "local_session is set already",
    storage_of_messages_twice: "local_message is set already",
    create_with_two_parameters: "local_session calls its handler with 1 arguments (ctx)",
    create_that_is_no_function: "local_message takes a function, not {}",
    delete_without_parameters: "local_message delete calls its handler with 1 arguments (object)",
    config_handler_without_parameters: "on_config calls its handler with 1 arguments (config)",
    async_config_handler: "is async",
    app_deadline: "deadline=0",
    app_policy: "on_error='ignore'",
    app_needs: "needs='src' is not a Need",
    app_threads: "threads=0 is not a positive whole number",
    app_max_concurrency: "max_concurrency=1.5",
    app_max_message_bytes: "max_message_bytes=-1",
    app_max_sessions: "max_sessions=None",
}


@pytest.mark.parametrize(
    ("misuse", "text"), MISUSES.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_misuse_is_refused_in_plain_words_with_file_and_line(misuse, text):
    with pytest.raises(RegistrationError) as caught:
        misuse(Filter("t"))
    assert text in caught.value.text
    file, _, line = caught.value.where.rpartition(":")
    lines, first = inspect.getsourcelines(misuse)
    assert file == __file__
    assert first <= int(line) < first + len(lines)
    assert str(caught.value) == f"{caught.value.where}: {caught.value.text}"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(PHASES) | {f"report.{name}" for name in EVENTS}))
def test_a_handler_without_parameters_is_refused_for_every_hook(name):
    app = Filter("t")
    kind, _, event = name.rpartition(".")
    hook = getattr(app.report if kind else app.filter, event)
    with pytest.raises(RegistrationError, match="arguments"):
        hook(lambda: None)


def test_what_failed_to_register_is_not_registered():
    app = Filter("t")
    with pytest.raises(RegistrationError):
        too_few_parameters(app)
    assert app._registry.is_empty()


def test_python_may_ask_the_hooks_for_names_of_its_own():
    app = Filter("t")
    assert not hasattr(app.filter, "__wrapped__")
    assert "mail_from" in dir(app.filter)
    assert "tx_begin" in dir(app.report)


# What is registered with smtpd


def test_a_filter_without_anything_is_empty():
    app = Filter("t")
    assert app._registry.is_empty()
    assert app._registry.handlers() == []
    app.report.timeout(takes(1))
    assert not app._registry.is_empty()


def test_by_default_all_reports_that_keep_the_state_true_are_registered():
    app = Filter("t")
    app.filter.ehlo(takes(2))
    assert app._registry.registered_reports() == {
        ("smtp-in", event)
        for event in (
            "link-connect", "link-greeting", "link-identify", "link-tls", "link-auth",
            "link-disconnect", "tx-begin", "tx-mail", "tx-rcpt", "tx-envelope", "tx-reset",
            "filter-response",
        )
    }  # fmt: skip


@pytest.mark.parametrize(
    ("needs", "events"),
    [
        (Need(0), set()),
        (Need.SRC, {"link-connect"}),
        (Need.RDNS | Need.SRC, {"link-connect"}),
        (Need.USERNAME | Need.CIPHERS, {"link-auth", "link-tls"}),
        (Need.RCPT_TO, {"tx-begin", "tx-rcpt", "filter-response", "tx-reset"}),
    ],
)
def test_needs_narrow_the_registered_reports(needs, events):
    app = Filter("t", needs=needs)
    app.filter.ehlo(takes(2))
    assert app._registry.registered_reports() == {
        ("smtp-in", event) for event in events | {"link-disconnect"}
    }


def test_a_handler_for_a_report_registers_it_whatever_the_needs():
    app = Filter("t", needs=Need(0))
    app.report.tx_commit(takes(3))
    assert ("smtp-in", "tx-commit") in app._registry.registered_reports()


def test_a_filter_for_outgoing_mail_asks_for_no_incoming_reports():
    app = Filter("t")
    app.report.tx_commit(outgoing=True)(takes(3))
    assert {subsystem for subsystem, _ in app._registry.registered_reports()} == {"smtp-out"}
    app.filter.ehlo(takes(2))
    reports = app._registry.registered_reports()
    assert {subsystem for subsystem, _ in reports} == {"smtp-in", "smtp-out"}


def test_storage_is_told_when_sessions_and_messages_begin_and_end():
    app = Filter("t", needs=Need(0))
    app.filter.ehlo(takes(2))
    app.local_session(dict)
    assert ("smtp-in", "link-connect") in app._registry.deliveries()
    app.local_message(dict, lambda object: None)
    assert {("smtp-in", "tx-begin"), ("smtp-in", "tx-reset")} <= app._registry.deliveries()


@pytest.mark.parametrize("create", [dict, list, lambda: [], lambda ctx: ctx])
@pytest.mark.parametrize("delete", [None, lambda object: None, lambda ctx, object: None])
def test_storage_takes_functions_with_and_without_ctx(create, delete):
    app = Filter("t")
    app.local_session(create, delete)
    app.local_message(create, delete)
    assert app._registry.session_storage.create is create
    assert app._registry.message_storage.delete is delete


def test_on_config_may_be_used_often_and_leaves_the_function_plain():
    app = Filter("t")

    @app.on_config
    def first(config):
        return "first"

    @app.on_config
    def second(config):
        return "second"

    assert [fn(None) for fn in app._registry.config_functions] == ["first", "second"]
    assert first(None) == "first"


def test_a_filter_shows_its_name():
    assert repr(Filter("guard")) == "Filter('guard')"


def test_run_outside_of_a_script_says_what_to_do(monkeypatch):
    import __main__

    monkeypatch.setattr("greenfilter._filter.app.Loaded.applies", False)
    monkeypatch.delattr(__main__, "__file__", raising=False)
    with pytest.raises(UsageError, match="greenfilter run FILTER"):
        Filter("t").run()


def test_run_while_greenfilter_loads_the_file_leaves_the_rest_of_it_for_later(monkeypatch):
    monkeypatch.setattr("greenfilter._filter.app.Loaded.applies", True)
    with pytest.raises(Loaded):
        Filter("t").run()


# What an editor offers, which is what the README documents


def offered(app):
    return {name for name in dir(app) if not name.startswith("_")}


def test_a_filter_has_what_is_documented_and_nothing_else():
    hooks = {"filter", "report", "lines", "message", "tap"}
    others = {"config", "on_config", "local_session", "local_message", "run"}
    arguments = set(inspect.signature(Filter).parameters)
    assert offered(Filter("t")) == hooks | others | arguments


def test_a_chain_has_what_a_filter_has_and_its_members_to_add():
    assert offered(Chain("t")) == offered(Filter("t")) | {"add", "add_program"}


def test_the_hooks_of_a_filter_are_those_of_smtpd():
    app = Filter("t")
    assert (offered(app.filter), offered(app.report)) == (set(PHASES), set(EVENTS))
    assert offered(app.lines) == offered(app.filter.ehlo) == set()
