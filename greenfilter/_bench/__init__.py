"""Load for a filter, through the protocol, and what came of it."""

from .blocked import Findings as Findings
from .blocked import Stall as Stall
from .blocked import find_stalls as find_stalls
from .figures import Figures as Figures
from .figures import HandlerTime as HandlerTime
from .figures import Latencies as Latencies
from .load import DEFAULT_SESSIONS as DEFAULT_SESSIONS
from .load import Load as Load
from .run import BenchError as BenchError
from .run import HangError as HangError
from .run import measure as measure
from .run import profile as profile

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
