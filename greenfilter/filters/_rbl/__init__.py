"""The parts of the stock filter ``rbl``."""
