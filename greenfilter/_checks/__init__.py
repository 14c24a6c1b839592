"""What can be found wrong with a filter before it starts: in its source, in smtpd.conf, on disk."""

from .conf import Conf as Conf
from .conf import find_filters as find_filters
from .conf import read_conf as read_conf
from .deployment import check_deployment as check_deployment
from .deployment import check_syntax as check_syntax
from .deployment import smtpd_command as smtpd_command
from .handlers import check_handlers as check_handlers
from .permissions import check_permissions as check_permissions
from .permissions import default_user as default_user
from .permissions import own_command as own_command
from .problem import Problem as Problem
from .source import Sources as Sources
from .top import check_top as check_top

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
