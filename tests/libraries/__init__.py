"""Whether blocking libraries wait alone under greenfilter: one small filter each, real servers."""

from typing import Final

SECONDS: Final = 0.3
"""How long each call waits."""
