"""The other side: play smtpd to a filter, and judge what the filter writes.

``link`` connects to a filter wherever it runs (``target``) and speaks the protocol (``wire``).
``oracle`` judges each line that comes back: it raises where real smtpd would die, hang or cut the
client. ``smtp_in`` is a client's session as smtpd keeps it (``model``), with its replies
(``texts``) and its reading of commands (``smtp_commands``); ``smtp_out`` is a session with another
server. ``loop_watch`` notices a handler that keeps the event loop.

``greenfilter.testing`` and the commands ``serve``, ``replay`` and ``bench`` stand on this.
"""
