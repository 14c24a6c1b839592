"""The parts of the stock filter ``ratelimit``."""
