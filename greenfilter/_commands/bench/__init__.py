"""Load a filter through the protocol, and measure how it does."""
