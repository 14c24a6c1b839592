"""The filter of a program that is written for osmtpd_run(3)."""

from __future__ import annotations

from .._filter.app import Filter
from ..protocol import Need

app = Filter("osmtpd", needs=Need(0))
"""What every function of the C API works on."""
