"""``python -m greenfilter``."""

from ._cli import main

main()
