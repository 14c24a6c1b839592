"""Load for a filter, through the protocol, and what came of it."""

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
    "HandlerTime",
    "HangError",
    "Latencies",
    "Load",
    "measure",
    "profile",
]
