"""osmtpd_run(3), the C API of libopensmtpd, name for name.

A filter written for it is ported by writing its C as Python::

    from greenfilter.osmtpd import *

    def mailfrom(ctx, sender):
        if sender.endswith("@example.net"):
            osmtpd_filter_reject(ctx, 550, "no mail from %s", ctx.rdns)
        else:
            osmtpd_filter_proceed(ctx)

    osmtpd_register_filter_mailfrom(mailfrom)
    osmtpd_need(OSMTPD_NEED_RDNS)
    osmtpd_run()

Names, order of arguments, enum values and defaults are those of ``opensmtpd.h``. Callbacks return
nothing; what they return is ignored. NULL is None, a ``const char *`` is a str (of a data line:
bytes), a ``sockaddr_storage`` is a :class:`greenfilter.Address`, a zeroed one None, ``rcptto`` a
list. What else differs from C, and why:

- Callbacks may block: each runs in a greenlet of its session. One request can also be answered
  later, from any callback, greenlet or thread; at its deadline (30 s) it is answered with 451.
- What would make smtpd end or hang is never sent. An answer that is not valid, or not legal at the
  phase, raises DecisionError or is answered with 451; a second one returns False and changes
  nothing. A reject at connect is sent as a disconnect.
- A ctx belongs to one event: a later event does not change its phase, token or tm, so that a late
  answer cannot reach another request than its own. Through the ctx of a report or of an
  ``oncreate`` the oldest request of the session that nobody has answered yet is answered.
- A callback that fails, and osmtpd_err() or osmtpd_errx() in one, end the callback and not the
  filter, since smtpd would end with it. The request, or the message at commit, gets 451.
- A data line is bytes, and its ``tm`` that of the first line. The final "." is refused before all
  lines have come, where smtpd would cut the message short.
- ``mailfrom`` and ``rcptto`` hold what smtpd accepted, and are true after rewrites; ``identity``
  has no ``EHLO|`` in front, and ``tv_nsec`` is in nanoseconds. libopensmtpd 0.7 errs there.
- The object of a message is deleted at tx-reset, right after commit or rollback, or with its
  session; ``phase`` is -1 then, as C has no name for these. ``osmtpd_local_session`` and
  ``osmtpd_local_message`` can be called once.
- osmtpd_run() never returns (see there).
"""

# ruff: noqa: F403, F405

from ._answers import *
from ._app import app as app
from ._ctx import osmtpd_ctx as osmtpd_ctx
from ._names import *
from ._program import *
from ._register import *

__all__ = [
    "OSMTPD_NEED_CIPHERS",
    "OSMTPD_NEED_DST",
    "OSMTPD_NEED_EVPID",
    "OSMTPD_NEED_FCRDNS",
    "OSMTPD_NEED_GREETING",
    "OSMTPD_NEED_IDENTITY",
    "OSMTPD_NEED_MAILFROM",
    "OSMTPD_NEED_MSGID",
    "OSMTPD_NEED_RCPTTO",
    "OSMTPD_NEED_RDNS",
    "OSMTPD_NEED_SRC",
    "OSMTPD_PHASE_AUTH",
    "OSMTPD_PHASE_COMMIT",
    "OSMTPD_PHASE_CONNECT",
    "OSMTPD_PHASE_DATA",
    "OSMTPD_PHASE_DATA_LINE",
    "OSMTPD_PHASE_EHLO",
    "OSMTPD_PHASE_FILTER_RESPONSE",
    "OSMTPD_PHASE_HELO",
    "OSMTPD_PHASE_HELP",
    "OSMTPD_PHASE_LINK_CONNECT",
    "OSMTPD_PHASE_LINK_DISCONNECT",
    "OSMTPD_PHASE_LINK_GREETING",
    "OSMTPD_PHASE_LINK_IDENTIFY",
    "OSMTPD_PHASE_LINK_TLS",
    "OSMTPD_PHASE_MAIL_FROM",
    "OSMTPD_PHASE_NOOP",
    "OSMTPD_PHASE_PROTOCOL_CLIENT",
    "OSMTPD_PHASE_PROTOCOL_SERVER",
    "OSMTPD_PHASE_QUIT",
    "OSMTPD_PHASE_RCPT_TO",
    "OSMTPD_PHASE_RSET",
    "OSMTPD_PHASE_STARTTLS",
    "OSMTPD_PHASE_TIMEOUT",
    "OSMTPD_PHASE_TX_BEGIN",
    "OSMTPD_PHASE_TX_COMMIT",
    "OSMTPD_PHASE_TX_DATA",
    "OSMTPD_PHASE_TX_ENVELOPE",
    "OSMTPD_PHASE_TX_MAIL",
    "OSMTPD_PHASE_TX_RCPT",
    "OSMTPD_PHASE_TX_ROLLBACK",
    "OSMTPD_PHASE_WIZ",
    "OSMTPD_STATUS_OK",
    "OSMTPD_STATUS_PERMFAIL",
    "OSMTPD_STATUS_TEMPFAIL",
    "OSMTPD_TYPE_FILTER",
    "OSMTPD_TYPE_REPORT",
    "osmtpd_ctx",
    "osmtpd_err",
    "osmtpd_errx",
    "osmtpd_filter_dataline",
    "osmtpd_filter_disconnect",
    "osmtpd_filter_disconnect_enh",
    "osmtpd_filter_proceed",
    "osmtpd_filter_reject",
    "osmtpd_filter_reject_enh",
    "osmtpd_filter_rewrite",
    "osmtpd_local_message",
    "osmtpd_local_session",
    "osmtpd_need",
    "osmtpd_register_conf",
    "osmtpd_register_filter_auth",
    "osmtpd_register_filter_commit",
    "osmtpd_register_filter_connect",
    "osmtpd_register_filter_data",
    "osmtpd_register_filter_dataline",
    "osmtpd_register_filter_ehlo",
    "osmtpd_register_filter_helo",
    "osmtpd_register_filter_help",
    "osmtpd_register_filter_mailfrom",
    "osmtpd_register_filter_noop",
    "osmtpd_register_filter_quit",
    "osmtpd_register_filter_rcptto",
    "osmtpd_register_filter_rset",
    "osmtpd_register_filter_starttls",
    "osmtpd_register_filter_wiz",
    "osmtpd_register_report_begin",
    "osmtpd_register_report_client",
    "osmtpd_register_report_commit",
    "osmtpd_register_report_connect",
    "osmtpd_register_report_data",
    "osmtpd_register_report_disconnect",
    "osmtpd_register_report_envelope",
    "osmtpd_register_report_greeting",
    "osmtpd_register_report_identify",
    "osmtpd_register_report_mail",
    "osmtpd_register_report_rcpt",
    "osmtpd_register_report_response",
    "osmtpd_register_report_rollback",
    "osmtpd_register_report_server",
    "osmtpd_register_report_timeout",
    "osmtpd_register_report_tls",
    "osmtpd_run",
]
