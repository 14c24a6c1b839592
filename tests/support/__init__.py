"""Real servers on loopback for the tests: smtpd, a receiving SMTP server, a DNS server."""
