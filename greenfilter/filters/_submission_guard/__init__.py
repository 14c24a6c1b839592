"""The parts of the stock filter ``submission_guard``."""
