"""Recordings of the filter protocol: written in front of a filter, played into another.

A recording is text that grep can search, a line for each line of the protocol::

    1795333867.650990 < filter|0.7|1795333867.650828|smtp-in|connect|SID|TOKEN|rdns|192.0.2.10
    1795333867.651104 > filter-result|SID|TOKEN|proceed
    1795333867.651200 # recording stopped: No space left on device

First the time (seconds since 1970) at which the recorder saw the line, then ``<`` for what smtpd
wrote, ``>`` for what the filter wrote, ``#`` for a note of the recorder; then the line, byte for
byte, CR and 8-bit included. A line ends at LF and nowhere else. Each file begins with the
handshake, so also one that goes on where another was full: its handshake is a copy of the first,
with the first's times. A last line without LF was cut short, and is not read.

Without the time it is a recording as well: ``< line``, ``> line``.

What passwords would stand in has stars instead: see :mod:`greenfilter.protocol._credentials`.
"""
