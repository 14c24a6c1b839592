"""A development SMTP server: any mail client on one side, a filter on the other.

The SMTP dialogue, the reports and the judgement of what the filter writes are those of
``greenfilter.testing``, where they are checked against recordings of real servers. Here are only
sockets, TLS, the life of the filter's process, and what a person or a program gets to see.
"""

from .filter import Source as Source
from .server import Options as Options
from .server import Server as Server
from .transcript import Transcript as Transcript
