"""Load for a filter, through the protocol, and what came of it."""

from ._blocked import Findings as Findings
from ._blocked import Stall as Stall
from ._blocked import find_stalls as find_stalls
from ._figures import Figures as Figures
from ._figures import HandlerTime as HandlerTime
from ._figures import Latencies as Latencies
from ._load import DEFAULT_SESSIONS as DEFAULT_SESSIONS
from ._load import Load as Load
from ._run import BenchError as BenchError
from ._run import HangError as HangError
from ._run import measure as measure
from ._run import profile as profile

__all__ = [
    "DEFAULT_SESSIONS",
    "BenchError",
    "Figures",
    "Findings",
    "HandlerTime",
    "HangError",
    "Latencies",
    "Load",
    "Stall",
    "find_stalls",
    "measure",
    "profile",
]
