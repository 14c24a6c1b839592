"""What can be found wrong with a filter before it starts: in its source, in smtpd.conf, on disk."""

from ._conf import Conf as Conf
from ._conf import find_filters as find_filters
from ._conf import read_conf as read_conf
from ._deployment import check_deployment as check_deployment
from ._deployment import check_syntax as check_syntax
from ._deployment import smtpd_command as smtpd_command
from ._handlers import check_handlers as check_handlers
from ._permissions import check_permissions as check_permissions
from ._permissions import default_user as default_user
from ._permissions import own_command as own_command
from ._problem import Problem as Problem
from ._source import Sources as Sources
from ._top import check_top as check_top

__all__ = [
    "Conf",
    "Problem",
    "Sources",
    "check_deployment",
    "check_handlers",
    "check_permissions",
    "check_syntax",
    "check_top",
    "default_user",
    "find_filters",
    "own_command",
    "read_conf",
    "smtpd_command",
]
