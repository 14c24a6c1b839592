"""``python -m greenfilter``."""

from ._commands import main

main()
