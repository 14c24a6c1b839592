"""Everything that needs gevent. ``import greenfilter`` does not import this."""

from .runtime import Runtime as Runtime

__all__ = ["Runtime"]
