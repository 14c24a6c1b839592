"""Several filters as one: each request goes through all of them, each message streams through all.

To smtpd, to the supervisor and to the runtime a chain is one ordinary filter: it has one handler
for each hook that a member has, which calls the members' handlers in order. What it needs of the
runtime beside that is in few places: ``Engine.run`` calls a member's handler with its own deadline
within the chain's, ``Filter.configure`` lets it begin what only then tells its hooks.

- ``chain.py``: the class, its members, and what it registers. Imports no gevent, as all that is
  imported with the package.
- ``file.py``, ``conditions.py``: chain files, and when a member is asked.
- ``host.py``: sessions as members see them, requests, reports and local objects.
- ``stages.py``: the message. ``child.py``, ``program.py``: members that are other programs.
- ``observer.py``: members that only look on.
"""
