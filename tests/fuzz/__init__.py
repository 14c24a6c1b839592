"""Fuzzing of the parser and the guard: ``python -m tests.fuzz [--seconds 60]``."""
