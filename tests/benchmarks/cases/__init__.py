"""The cases in the order of the table."""

from ..bench import Case
from . import big, blocking, growth, latency, many, signing, start, throughput

CASES: tuple[Case, ...] = (
    *throughput.CASES,
    *blocking.CASES,
    signing.CASE,
    latency.CASE,
    many.CASE,
    big.CASE,
    growth.CASE,
    start.CASE,
)
