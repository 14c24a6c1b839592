"""``greenfilter check`` of a chain: its members one by one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ..._chain.chain import Chain
from ..._chain.conditions import Condition, warnings_of
from ..._chain.member import Member
from ..._chain.program import Program
from ..._filter.load import file_of
from ...errors import UsageError
from ...protocol import Config
from .handler_body import check_handlers
from .paths import relative_paths
from .problem import Problem
from .top import check_top

# What a program is told while it is looked at.
_CONFIG = {
    "smtpd-version": "7.8.0",
    "protocol": "0.7",
    "smtp-session-timeout": "300",
    "admd": "localhost",
}


def start_programs(chain: Chain) -> list[Problem]:
    """Start each program of a chain, so that its hooks are known, and end it again."""
    found: list[Problem] = []
    for member in chain._registry.members:
        if not isinstance(member.app, Program):
            continue
        member.app.config = Config()
        member.app.config.values.update(_CONFIG)
        member.app.config.subsystems.append("smtp-in")
        try:
            member.app._registry.configure(None)
        except UsageError as error:
            found.append(Problem(*_place(member, chain.name), str(error)))
        member.app._registry.on_end()
    return found


def describe(member: Member) -> Iterator[str]:
    """Return the lines that say what a member is, above its handlers."""
    observes = ", observes" if member.observe else ""
    yield f"{member.number + 1}. {member.name}: {member.source}{observes}"
    for word, condition in (("when", member.when), ("unless", member.unless)):
        if condition is not None:
            yield f"   {word} {condition}"


def commands(chain: Chain) -> list[list[str]]:
    """Return the words of the commands that a chain starts."""
    apps = [member.app for member in chain._registry.members]
    return [shlex.split(app.command) for app in apps if isinstance(app, Program)]


def check_members(chain: Chain, target: str) -> list[Problem]:
    """Look for mistakes in the code of the members, and in their conditions."""
    found: set[Problem] = set()
    for member in chain._registry.members:
        if not isinstance(member.app, Program):
            found |= {*check_top(member.app), *check_handlers(member.app)}
        place = _place(member, file_of(target) or target)
        for text in relative_paths(member.app):
            found.add(Problem(*place, f"{member.name}: {text}", is_error=False))
        unless = _keys(member.unless)
        keys = {*_keys(member.when), *unless}
        for text in warnings_of(keys, unless, "connect" in member.filters):
            found.add(Problem(*place, f"{member.name}: {text}", is_error=False))
    return sorted(found)


def _keys(condition: Condition | None) -> tuple[str, ...]:
    return condition.keys if condition is not None else ()


def _place(member: Member, target: str) -> tuple[str, int]:
    return member.where or (target, 1)
