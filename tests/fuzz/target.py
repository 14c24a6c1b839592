"""What is fuzzed: whatever smtpd says and handlers answer, only legal lines come out."""

from __future__ import annotations

import re

from greenfilter.errors import DecisionError, RemoteProtocolError
from greenfilter.protocol import (
    TEMPFAIL,
    Call,
    Chunk,
    Connection,
    Decision,
    Guard,
    ProtocolState,
    Session,
)
