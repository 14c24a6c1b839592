"""The class Chain: several filters as one, and what it registers for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._filter.app import Filter
from .._filter.handlers import Handler, Policy, locate, make_error
from .._filter.registry import LocalStorage, Registry
from ..errors import RegistrationError
from ..protocol import EVENTS, EVERYTHING, PHASES, PROCEED, Decision, Need
from .member import Member, When

if TYPE_CHECKING:
    from .host import Host

# A client waits five minutes for most replies (RFC 5321, 4.5.3.2).
_DEADLINE = 240.0
# Phases at which one member may rewrite while another one finds junk, which then has to wait.
_REWRITABLE = [name for name, phase in PHASES.items() if "rewrite" in phase.decisions]
# Strictest first.
_STRICT = ("disconnect", "reject", "junk", "rewrite", "report", "proceed")


class Chain(Filter):
    """Several filters as one: ``Chain("mx").add(first).add(second, when={"tls": True})``.

    Everything that takes a :class:`~greenfilter.Filter` takes a chain.

    Args:
        name: for logs.
        deadline: seconds that all members together may take for one answer.
        threads, auto_thread, max_concurrency, max_message_bytes, max_sessions: as for
            :class:`~greenfilter.Filter`; those of the members are ignored.

    """

    def __init__(
        self,
        name: str,
        *,
        deadline: float = _DEADLINE,
        threads: int = 8,
        auto_thread: bool = True,
        max_concurrency: int = 20_000,
        max_message_bytes: int = 256 << 20,
        max_sessions: int = 1 << 17,
    ) -> None:
        super().__init__(
            name,
            deadline=deadline,
            threads=threads,
            auto_thread=auto_thread,
            max_concurrency=max_concurrency,
            max_message_bytes=max_message_bytes,
            max_sessions=max_sessions,
        )
        self._registry: ChainRegistry = ChainRegistry(self)

    def __repr__(self) -> str:
        return f"Chain({self.name!r})"

    def add(
        self,
        app: Filter,
        *,
        when: When | None = None,
        unless: When | None = None,
        deadline: float | None = None,
        on_error: Policy | None = None,
        observe: bool = False,
    ) -> Chain:
        """Add a filter at the end.

        Args:
            app: the filter. Its handlers are those that it has when the chain starts.
            when: it is asked only where this holds: a table as in a chain file, or a function
                that is given ctx and returns a bool.
            unless: it is not asked where this holds.
            deadline: seconds, where the filter's handlers do not give their own.
            on_error: policy, where the filter's handlers do not give their own.
            observe: it never delays, refuses, bypasses or edits: what it would have done is
                logged.

        Returns:
            The chain.

        Raises:
            RegistrationError: an argument is wrong, or the chain runs already.
        """
        if not isinstance(app, Filter):
            raise make_error(f"a chain is made of filters; {app!r} is not one")
        if isinstance(app, Chain):
            raise make_error(f"{app!r} cannot be in a chain itself; add its members")
        return self._add_member(
            Member(
                app,
                when=when,
                unless=unless,
                deadline=deadline,
                on_error=on_error,
                observe=observe,
            )
        )

    def add_program(
        self,
        command: str,
        *,
        when: When | None = None,
        unless: When | None = None,
        deadline: float = 30.0,
        on_error: Policy = "tempfail",
        observe: bool = False,
    ) -> Chain:
        """Add a program that speaks smtpd-filters(7). It is run as smtpd would run it.

        Args:
            command: for the shell, as after ``proc-exec`` in smtpd.conf.
            when: as for :meth:`add`.
            unless: as for :meth:`add`.
            observe: as for :meth:`add`.
            deadline: seconds for each answer.
            on_error: what answers when the program is late, has died or writes nonsense.
        """
        from .program import Program

        app = Program(command, deadline=deadline, on_error=on_error)
        return self._add_member(Member(app, when=when, unless=unless, observe=observe))

    def _add_member(self, member: Member) -> Chain:
        self._registry.add_member(member)
        return self


class ChainRegistry(Registry):
    """The handlers of a chain: one for each hook that a member has.

    Args:
        app: the chain.

    Attributes:
        members: the filters, in order.
    """

    def __init__(self, app: Chain) -> None:
        super().__init__(app)
        self._chain = app
        self.members: list[Member] = []
        self._host: Host | None = None
        self._marks = False  # what one member finds may have to wait for a rewrite of another

    def add(self, kind: str, name: str, fn: Any, options: dict[str, Any]) -> None:
        """Refuse a handler: it would be asked by nobody.

        Raises:
            RegistrationError: always.
        """
        raise self._no_hook(name if kind == "data" else f"{kind}.{name}", fn)

    def add_session_storage(
        self, create: Callable[..., Any], delete: Callable[..., Any] | None
    ) -> None:
        """Refuse it, as :meth:`add`."""
        raise self._no_hook("local_session", create)

    def add_message_storage(
        self, create: Callable[..., Any], delete: Callable[..., Any] | None
    ) -> None:
        """Refuse it, as :meth:`add`."""
        raise self._no_hook("local_message", create)

    @staticmethod
    def _no_hook(hook: str, fn: Any) -> RegistrationError:
        text = f"a chain has no {hook} of its own: register it with one of its members"
        return make_error(text, locate(fn))

    def add_member(self, member: Member) -> None:
        """Add a member at the end.

        Raises:
            RegistrationError: it cannot be in a chain, or the chain runs already.
        """
        self.check_open()
        data = member.app._registry.data
        if data is not None and data[0] == "raw_line":
            raise make_error(
                f"{member.app!r}: a data-line callback of greenfilter.osmtpd cannot be in a chain; "
                "use app.lines, or run it as a program: exec"
            )
        member.number = len(self.members)
        taken = sum(other.name == member.name for other in self.members)
        member.key = f"{member.name} {taken + 1}" if taken else member.name
        self.members.append(member)

    def is_empty(self) -> bool:
        """Return whether there is no member."""
        return not self.members

    def handlers(self) -> list[Handler]:
        """Return the handlers of all members."""
        return [handler for member in self.members for handler in member.handlers()]

    def freeze(self) -> None:
        """End registration, and make the chain's own handlers."""
        if self._host is None:
            from .host import Host

            self._host = Host(self._chain, self.members)
            self._compile(self._host)
        super().freeze()

    def phases(self) -> set[str]:
        """Return the phases to register with smtpd, on the wire."""
        self.freeze()
        return super().phases()

    def registered_reports(self) -> set[tuple[str, str]]:
        """Return all reports to register."""
        self.freeze()
        return super().registered_reports()

    def configure(self, calls: Any) -> None:
        """Start the members, and learn the hooks of those that are programs. Switches greenlets."""
        assert self._host is not None, "freeze() comes first"
        self._host.start(calls)
        self._compile(self._host)

    def on_end(self) -> None:
        """End what the members have begun. Switches greenlets."""
        if self._host is not None:
            self._host.end()

    def on_close(self, session: Any) -> None:
        """Tell the members that a client has left."""
        assert self._host is not None, "freeze() comes first"
        self._host.close(session)

    def on_replay(self, line: bytes) -> None:
        """Tell members that are programs, and those who look on, what another worker was told."""
        assert self._host is not None, "freeze() comes first"
        self._host.replay(line)

    # Its own handlers

    def _compile(self, host: Host) -> None:
        """Make one handler for each hook that a member has."""
        for member in self.members:
            member.app._registry.freeze()
            member.take_handlers()
        acting = [member for member in self.members if not member.observe]
        self._fill_filters(host, acting)
        self._fill_reports(host, acting)
        self._fill_data(host, acting)
        self._fill_storage(host, acting)
        self._fill_needs()
        host.take_members()

    def _fill_needs(self) -> None:
        needs: Need | None = Need(0)
        for member in self.members:
            bits = member.app._registry.need_bits()
            if bits == EVERYTHING or needs is None:
                needs = None
                continue
            needs |= Need(bits)
            for condition in (member.when, member.unless):
                needs |= condition.needs if condition is not None else Need(0)
                if condition is not None and not condition.keys:
                    needs = None  # a function may read all
                    break
        if needs is not None and self._marks:
            needs |= Need.MESSAGE_ID  # a mark is kept for its transaction
        self._chain.needs = needs

    def _fill_filters(self, host: Host, acting: list[Member]) -> None:
        self.filters = {}
        phases = {name for member in self.members for name in member.filters}
        shared = [name for name in _REWRITABLE if sum(name in m.filters for m in acting) > 1]
        self._marks = bool(shared)
        if shared:
            phases.add("data")  # for junk that a rewrite has kept back
        if any(member.has_data for member in self.members):
            phases.add("commit")
        for name in PHASES:
            if name in phases:
                self.filters[name] = self._handler(
                    f"filter.{name}", host.request(name), len(PHASES[name].fields), acting
                )

    def _fill_reports(self, host: Host, acting: list[Member]) -> None:
        self.reports = {}
        keys = {key for member in acting for key in member.reports}
        names = {event.wire: event.name for event in EVENTS.values()}
        for member in self.members:
            if member.observe:  # it keeps the state of sessions by itself
                reports = member.app._registry.registered_reports()
                keys |= {(subsystem, names[wire]) for subsystem, wire in reports}
        for key in sorted(keys):
            count = len(EVENTS[key[1]].fields)
            self.reports[key] = self._handler(f"report.{key[1]}", host.report(key), count, acting)

    def _fill_data(self, host: Host, acting: list[Member]) -> None:
        self.data = None
        if any(member.has_data for member in self.members):
            self.data = ("lines", self._handler("lines", host.lines, 1, acting))

    def _fill_storage(self, host: Host, acting: list[Member]) -> None:
        self.session_storage = self.message_storage = None
        if any(member.app._registry.session_storage for member in acting):
            self.session_storage = _storage(*host.storage("session_storage"), "local_session")
        if any(member.app._registry.message_storage for member in acting):
            self.message_storage = _storage(*host.storage("message_storage"), "local_message")

    def _handler(
        self, hook: str, fn: Callable[..., Any], fields: int, acting: list[Member]
    ) -> Handler:
        asked = _asked(hook, acting)
        limit = self._chain.deadline
        handler = Handler(
            fn,
            hook,
            1 + fields,
            deadline=min(limit, sum(each.deadline for each in asked) or limit),
            on_error=_policy(hook, asked),
            thread=False,
            cancel_on_close=False,
        )
        handler.where = None  # "built in", as the members' own handlers are named beside it
        return handler


def _storage(create: Callable[..., Any], delete: Callable[..., Any], what: str) -> LocalStorage:
    made = LocalStorage(create, delete, what)
    made.create_with_ctx = made.delete_with_ctx = True  # compiled functions do not tell
    return made


def _asked(hook: str, acting: list[Member]) -> list[Handler]:
    """Return the members' handlers whose policies and deadlines count at a hook of the chain."""
    kind, _, name = hook.partition(".")
    if kind == "report":
        return [
            handler for m in acting for (_, event), handler in m.reports.items() if event == name
        ]
    asked = [m.filters[name] for m in acting if name in m.filters]
    if name == "commit" or hook == "lines":
        asked += [handler for m in acting for handler in m.data_handlers()]
    return asked


def _policy(hook: str, asked: list[Handler]) -> Decision:
    """Return the strictest policy of the handlers that are asked."""
    if hook.startswith("report."):
        return PROCEED
    policies = [handler.on_error for handler in asked]
    return min(policies, key=lambda decision: _STRICT.index(decision.kind), default=PROCEED)
