"""Load for a filter, through the protocol, and what came of it."""
