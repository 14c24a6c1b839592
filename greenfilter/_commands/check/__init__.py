"""What can be found wrong with a filter before it starts: in its source, in smtpd.conf, on disk."""
