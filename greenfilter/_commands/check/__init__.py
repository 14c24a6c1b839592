"""Find mistakes of a filter before it starts: in its source, in smtpd.conf, on disk."""
