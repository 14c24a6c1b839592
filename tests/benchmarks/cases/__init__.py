"""The cases in the order of the table."""

from ..bench import Case
from . import (
    big,
    blocking,
    chain,
    filters,
    growth,
    latency,
    many,
    recorded,
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
    *filters.CASES,
    workers.CASE,
    latency.CASE,
    recorded.CASE,
    many.CASE,
    supervisor.CASE,
    big.CASE,
    growth.CASE,
    start.CASE,
)
