"""Several filters as one: each request goes through all of them, each message streams through all.

To smtpd, to the supervisor and to the runtime a chain is one ordinary filter: it has one handler
for each hook that a member has, which calls the members' handlers in order. What it needs of the
runtime beside that is in few places: ``Calls.run`` calls a member's handler with its own deadline
within the chain's, ``Registry.configure`` starts members that do not tell their hooks before.

- ``chain.py``, ``member.py``: the class, its members, and what it registers. They do not
  import gevent, like all that is imported with the package.
- ``file.py``, ``conditions.py``: chain files, and when a member is asked.
- ``host.py``: requests, reports and local objects; ``asking.py``: one request to one member;
  ``state.py``, ``views.py``: what is known of a session, and how a member sees it.
- ``stages.py``: the message.
- ``program.py``, ``child.py``, ``life.py``: members that are other programs: as a filter, as what
  is started again and again, and as one process.
- ``observer.py``: members that only observe; ``edits.py``: who has edited a message.

A member that answers later (``ctx.defer()``) holds up its own session only: smtpd says nothing more
of it while it waits for the answer.
"""
