"""The parts of the stock filter ``delivery_log``."""
