"""The states of a worker process.

    LOADING --loaded--> SERVING --retire--> LEAVING
       |                   |                   |
       |                   +------- end -------+----> ENDING --gone--> GONE
       +--------- end -----------------------------------^

Theory of operation: a worker that is LOADING holds back what it is given until its filter has been
loaded. SERVING, it is one of the ``--workers``, the one that is to take the place of such a one at
a reload, or the one in quarantine. One that is LEAVING takes no new sessions and serves those that
it has. ENDING, it has no sessions and no socket any more: it may finish its callbacks, until it is
killed. A worker that dies goes through ENDING too: what it owed is answered then. Who is in which
place, and what happens on the way, is in ``pool.py``; who decides that a worker has to go is
``watch.py``.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a worker is in its life."""

    LOADING = "loading"
    SERVING = "serving"
    LEAVING = "leaving"
    ENDING = "ending"
    GONE = "gone"


class Event(Enum):
    """What moves a worker on."""

    LOADED = "loaded"
    RETIRE = "retire"
    END = "end"
    GONE = "gone"


TRANSITIONS = {
    State.LOADING: {Event.LOADED: State.SERVING, Event.END: State.ENDING},
    State.SERVING: {Event.RETIRE: State.LEAVING, Event.END: State.ENDING},
    State.LEAVING: {Event.RETIRE: State.LEAVING, Event.END: State.ENDING},
    State.ENDING: {Event.END: State.ENDING, Event.GONE: State.GONE},
    State.GONE: {},
}


def follow(state: State, event: Event) -> State:
    """Return the state that comes after an event.

    Raises:
        ValueError: nothing leads from this state in this way; a mistake of the caller's.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ValueError(f"a worker that is {state.value} cannot {event.value}") from None
