"""Every name of opensmtpd.h and of osmtpd_run(3) is there, with the value it has in C."""

import inspect
import re
from pathlib import Path

import pytest

from greenfilter import osmtpd
from tests.conftest import unavailable

HEADER = Path("/usr/include/opensmtpd.h")
words = str.split

FILTERS = words(
    "connect helo ehlo starttls auth mailfrom rcptto data dataline rset quit noop help wiz commit"
)
REPORTS = words(
    "connect disconnect greeting identify tls begin mail rcpt envelope data commit rollback "
    "client server response timeout"
)
FUNCTIONS = {
    *(f"osmtpd_register_filter_{name}" for name in FILTERS),
    *(f"osmtpd_register_report_{name}" for name in REPORTS),
    *("osmtpd_register_conf", "osmtpd_local_session", "osmtpd_local_message", "osmtpd_need"),
    *("osmtpd_filter_proceed", "osmtpd_filter_reject", "osmtpd_filter_reject_enh"),
    *("osmtpd_filter_disconnect", "osmtpd_filter_disconnect_enh", "osmtpd_filter_rewrite"),
    *("osmtpd_filter_dataline", "osmtpd_run", "osmtpd_err", "osmtpd_errx"),
}
STATUSES = ["OK", "TEMPFAIL", "PERMFAIL"]
TYPES = ["FILTER", "REPORT"]
PHASES = words(
    "CONNECT HELO EHLO STARTTLS AUTH MAIL_FROM RCPT_TO DATA DATA_LINE RSET QUIT NOOP HELP WIZ "
    "COMMIT LINK_CONNECT LINK_DISCONNECT LINK_GREETING LINK_IDENTIFY LINK_TLS TX_BEGIN TX_MAIL "
    "TX_RCPT TX_ENVELOPE TX_DATA TX_COMMIT TX_ROLLBACK PROTOCOL_CLIENT PROTOCOL_SERVER "
    "FILTER_RESPONSE TIMEOUT"
)
NEEDS = words("SRC DST RDNS FCRDNS IDENTITY GREETING CIPHERS MSGID MAILFROM RCPTTO EVPID")
VALUES = {
    **{f"OSMTPD_STATUS_{name}": value for value, name in enumerate(STATUSES)},
    **{f"OSMTPD_TYPE_{name}": value for value, name in enumerate(TYPES)},
    **{f"OSMTPD_PHASE_{name}": value for value, name in enumerate(PHASES)},
    **{f"OSMTPD_NEED_{name}": 1 << bit for bit, name in enumerate(NEEDS)},
}
FIELDS = words(
    "type phase version_major version_minor tm incoming reqid token src dst rdns fcrdns identity "
    "greeting ciphers msgid mailfrom rcptto evpid local_session local_message"
)


def test_all_names_are_there_and_nothing_else():
    assert set(osmtpd.__all__) == {*FUNCTIONS, *VALUES, "osmtpd_ctx"}


def test_constants_have_the_values_of_c():
    assert {name: getattr(osmtpd, name) for name in VALUES} == VALUES


def test_functions_are_named_and_documented():
    for name in FUNCTIONS:
        function = getattr(osmtpd, name)
        assert function.__name__ == name
        assert inspect.getdoc(function)


def test_ctx_has_the_fields_of_the_struct():
    own = {name for name in vars(osmtpd.osmtpd_ctx) if not name.startswith("_")}
    assert own == set(FIELDS)


def test_the_lists_of_this_test_are_those_of_the_header():
    if not HEADER.exists():
        unavailable("opensmtpd.h is not installed (Debian: libopensmtpd-dev)")
    header = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    assert set(re.findall(r"\b(osmtpd_\w+)\(", header)) == FUNCTIONS
    values = {
        name: 1 << int(bit) for name, bit in re.findall(r"#define (OSMTPD_\w+) 1 << (\d+)", header)
    }
    for members in re.findall(r"^enum \w+ \{(.*?)\}", header, flags=re.DOTALL | re.MULTILINE):
        values.update({name.strip(): value for value, name in enumerate(members.split(","))})
    assert values == VALUES
    struct = re.search(r"struct osmtpd_ctx \{(.*?)^\};", header, flags=re.DOTALL | re.MULTILINE)[1]
    struct = re.sub(r"struct greeting \{.*?\}", "struct greeting", struct, flags=re.DOTALL)
    assert re.findall(r"(\w+);", struct) == FIELDS


def test_callbacks_take_as_many_arguments_as_in_the_header(osmtpd):
    if not HEADER.exists():
        unavailable("opensmtpd.h is not installed (Debian: libopensmtpd-dev)")
    header = " ".join(HEADER.read_text().split())
    found = re.findall(r"void (osmtpd_register_\w+)\((int, )?void \(\*\)\((.*?)\)\)", header)
    assert len(found) == len(FILTERS) + len(REPORTS) + 1
    for name, incoming, arguments in found:
        register = getattr(osmtpd, name)
        count = arguments.count(",") + 1
        for wrong in (count - 1, count + 1):
            with pytest.raises(Exception, match=name):
                register(*([1] if incoming else []), with_parameters(wrong))
        register(*([1] if incoming else []), with_parameters(count))


def with_parameters(count):
    return eval(f"lambda {', '.join(f'p{number}' for number in range(count))}: None")
