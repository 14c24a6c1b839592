"""The parts of the stock filter rspamd."""
