"""Parts of the stock filter ``headers``."""
