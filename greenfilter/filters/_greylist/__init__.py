"""The parts of the stock filter ``greylist``."""
