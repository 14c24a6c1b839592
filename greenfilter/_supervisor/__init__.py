"""A small process that holds smtpd's socket, so that a filter that dies does not stop mail.

It imports neither gevent nor anything of the author's (``worker.py`` is the other process).
smtpd's lines go through it to worker processes, and their answers back: whatever a worker does, or
whenever it ends, smtpd gets exactly one legal answer to each request. To be read in this order:

1. ``supervisor``: the loop. ``link``: a socket. ``router``: what passes unread, what is read.
2. ``ledger``, ``journal``: what is owed, and what was passed, unread.
3. ``sessions``: the parser, and who has which session. ``requests``: smtpd's lines, read.
   ``results``: a worker's lines, read. ``answers``: what goes to smtpd then, by the guard.
   ``message``: the way of a message's lines.
4. ``lifecycle``, ``process``: one worker. ``pool``: how they come and go. ``watch``: why they go.
   ``code``: what they run. ``place``, ``memory``, ``listening``, ``options`` serve these.
5. ``blame``, ``poison``, ``quarantine``: who has ended a worker, and what becomes of that.
"""

from .options import Options as Options
from .supervisor import Supervisor as Supervisor

__all__ = ["Options", "Supervisor"]
