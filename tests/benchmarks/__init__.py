"""How fast filters are: greenfilter, libopensmtpd and others side by side in one run.

``python -m tests.benchmarks`` plays smtpd over a socketpair, as smtpd does: fds 0 and 1 of the
filter are one socket, fd 2 is a file. Peers are started once and then driven by turns, so that
whatever else the machine does hits all of them. A run counts only when every reply is right: each
session's lines are compared with what they must be, after the clock stopped.

A figure is the median of the runs, a ratio the ratio of two medians; the lowest and highest run
stand beside it. Processor time is that of the filter's processes alone. Figures are never rounded
in a filter's favour. Linux only: it reads /proc.
"""
