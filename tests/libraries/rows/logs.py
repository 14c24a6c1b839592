"""Logging, metrics, traces."""

from ..row import Row

_LOG = 'import logging\nimport logging.handlers\nLOG = logging.getLogger("row")\n'
_WAIT = "import time\n"
_ONE_AT_A_TIME = "one at a time, by the lock of its log handler; put a QueueHandler before it"
_SPAN = """
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

PROVIDER = TracerProvider()
EXPORTER = OTLPSpanExporter("http://127.0.0.1:$http/v1/traces")
PROVIDER.add_span_processor(%s(EXPORTER))
TRACER = PROVIDER.get_tracer("row")
"""
_SENTRY = """
import sentry_sdk

sentry_sdk.init("http://key@127.0.0.1:$http/1", default_integrations=False)
"""

ROWS = (
    Row(
        "log_syslog_tcp",
        _LOG
        + _WAIT
        + "import socket\n"
        + 'TO = logging.handlers.SysLogHandler(("127.0.0.1", $silent), socktype=socket.SOCK_STREAM)'
        + "\nLOG.addHandler(TO)",
        'LOG.warning("hello")\ntime.sleep(0.3)',
    ),
    Row(
        "log_syslog_udp",
        _LOG + _WAIT + 'LOG.addHandler(logging.handlers.SysLogHandler(("127.0.0.1", $silent)))',
        'LOG.warning("hello")\ntime.sleep(0.3)',
    ),
    Row(
        "log_smtp",
        _LOG
        + 'TO = logging.handlers.SMTPHandler(("127.0.0.1", $smtp), "a@x", "b@x", "s", timeout=20)\n'
        + "LOG.addHandler(TO)\nLOG.propagate = False",
        'LOG.warning("hello")',
        note=_ONE_AT_A_TIME,
    ),
    Row(
        "log_http",
        _LOG
        + 'LOG.addHandler(logging.handlers.HTTPHandler("127.0.0.1:$http", "/log", "POST"))\n'
        + "LOG.propagate = False",
        'LOG.warning("hello")',
        note=_ONE_AT_A_TIME,
    ),
    Row(
        "log_queue",
        _LOG
        + _WAIT
        + "import queue\n"
        + "QUEUE = queue.Queue()\n"
        + 'TO = logging.handlers.HTTPHandler("127.0.0.1:$http", "/log", "POST")\n'
        + "LOG.addHandler(logging.handlers.QueueHandler(QUEUE))\nLOG.propagate = False\n"
        + "logging.handlers.QueueListener(QUEUE, TO).start()",
        'LOG.warning("hello")\ntime.sleep(0.3)',
    ),
    Row(
        "log_ctx_smtp",
        _LOG
        + 'TO = logging.handlers.SMTPHandler(("127.0.0.1", $smtp), "a@x", "b@x", "s", timeout=20)\n'
        + "logging.getLogger().addHandler(TO)",
        'ctx.log.warning("hello")',
        note=_ONE_AT_A_TIME,
    ),
    Row(
        "prometheus",
        """
        import time
        import urllib.request
        import prometheus_client

        COUNTER = prometheus_client.Counter("calls", "calls")
        SERVER, _ = prometheus_client.start_http_server(0, addr="127.0.0.1")
        """,
        """
        COUNTER.inc()
        time.sleep(0.3)
        url = f"http://127.0.0.1:{SERVER.server_port}/"
        assert b"calls_total" in urllib.request.urlopen(url).read()
        """,
    ),
    Row(
        "opentelemetry_simple",
        _SPAN % "SimpleSpanProcessor",
        'with TRACER.start_as_current_span("mail"): pass',
    ),
    Row(
        "opentelemetry_batch",
        _SPAN % "BatchSpanProcessor" + _WAIT,
        'with TRACER.start_as_current_span("mail"): time.sleep(0.3)',
    ),
    Row(
        "sentry_sdk",
        _SENTRY + _WAIT,
        'assert sentry_sdk.capture_message("hello")\ntime.sleep(0.3)',
    ),
    Row(
        "sentry_flush",
        _SENTRY,
        'assert sentry_sdk.capture_message("hello")\nsentry_sdk.flush(25)',
        note="one at a time, by the queue of its one sender",
    ),
)
