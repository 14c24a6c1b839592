"""The parts of the stock filter clamav."""
