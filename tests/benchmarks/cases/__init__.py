"""The cases in the order of the table."""

from ..bench import Case
from . import big, blocking, growth, latency, many, signing, start, throughput, workers

CASES: tuple[Case, ...] = (
    *throughput.CASES,
    *blocking.CASES,
    signing.CASE,
    workers.CASE,
    latency.CASE,
    many.CASE,
    big.CASE,
    growth.CASE,
    start.CASE,
)
