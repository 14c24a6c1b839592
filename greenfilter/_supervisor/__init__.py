"""A small process that holds smtpd's socket, so that a filter that dies does not stop mail.

It imports neither gevent nor anything of the author's. smtpd's lines go through it to worker
processes, and their answers back through the same guard that a worker has itself: whatever a
worker does, or whenever it ends, smtpd gets exactly one legal answer to each request.
"""

from .options import Options as Options
from .supervisor import Supervisor as Supervisor

__all__ = ["Options", "Supervisor"]
