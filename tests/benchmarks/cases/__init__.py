"""The cases in the order of the table."""

from ..bench import Case
from . import (
    big,
    blocking,
    chain,
    growth,
    latency,
    many,
    recorded,
    scanning,
    signing,
    start,
    supervisor,
    throughput,
    workers,
)

CASES: tuple[Case, ...] = (
    *throughput.CASES,
    *blocking.CASES,
    *chain.CASES,
    signing.CASE,
    scanning.CASE,
    workers.CASE,
    latency.CASE,
    recorded.CASE,
    many.CASE,
    supervisor.CASE,
    big.CASE,
    growth.CASE,
    start.CASE,
)
