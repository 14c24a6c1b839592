"""Run the whole matrix: ``python -m tests.libraries [--sessions 40] [--output FILE] [ROW]...``.

Tells of each row as it is done, and at the end prints the table. The exit status is 1 if a row did
not do what is expected of it, or could not be tried.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .rows import KINDS, ROWS
from .runner import Outcome, attempt, missing
from .servers import Servers

if TYPE_CHECKING:
    from .row import Row

_HEAD = """\
| library | plain | all answered, s | loop stood, s | thread=True | all answered, s | check | |
|---|---|---|---|---|---|---|---|"""


def run(row: Row, servers: Servers, sessions: int) -> tuple[str, str]:
    """Try a row both ways.

    Returns:
        Its line of the table, and what is not as expected.
    """
    if absent := missing(row, servers):
        return f"| {row.name} | not tried | | | | | | {absent} |", absent
    outcomes = []
    problems = []
    for thread in (False, True):
        outcome = _attempt(row, servers, thread, sessions)
        outcomes.append(outcome)
        if problem := outcome.problem(row, thread=thread):
            problems.append(f"with thread=True {problem}" if thread else problem)
    plain, threaded = outcomes
    cells = [
        row.name,
        str(plain.verdict),
        f"{plain.last:.2f}",
        f"{plain.stall:.2f}",
        str(threaded.verdict),
        f"{threaded.last:.2f}",
        "warns" if plain.is_named else "",
        "; ".join([*([row.note] if row.note else []), *(f"**{text}**" for text in problems)]),
    ]
    text = " | ".join(cell.replace("|", "/").replace("\t", " ") for cell in cells)
    return f"| {text} |", "; ".join(problems)


def _attempt(row: Row, servers: Servers, thread: bool, sessions: int) -> Outcome:
    """Try a row, and again if it was only slow: other work on the machine stops the loop too."""
    outcome = attempt(row, servers, thread=thread, sessions=sessions)
    if outcome.problem(row, thread=thread) and outcome.answered == sessions:
        return attempt(row, servers, thread=thread, sessions=sessions)
    return outcome


def main() -> int:
    """Run the matrix, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.libraries", description=__doc__)
    parser.add_argument("--sessions", type=int, default=40, help="how many ask at once")
    parser.add_argument("--output", type=Path, help="write the table to this file as well")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="all, if none is given")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    table: list[str] = []
    wrong = tried = 0
    with Servers() as servers:
        for kind, rows in KINDS.items():
            table += ["", f"## {kind[0].upper()}{kind[1:]}", "", _HEAD]
            for row in rows:
                if options.rows and row.name not in options.rows:
                    continue
                line, problem = run(row, servers, options.sessions)
                print(f"{row.name}: {problem or 'as expected'}", file=sys.stderr, flush=True)
                table.append(line)
                tried += 1
                wrong += bool(problem)
    table += ["", f"{tried} rows, {options.sessions} sessions at once; {wrong} not as expected"]
    text = "\n".join(table[1:])
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
