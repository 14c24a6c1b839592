"""The parts of the stock filter ``dkim_sign``."""
