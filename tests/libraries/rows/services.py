"""Scanners, RPC, cloud services, and small helpers."""

from ..row import Row, Verdict

_MOVED = {"plain": Verdict.MOVED}
_GRPC = """
import grpc
"""
_CHANNEL = """
CHANNEL = grpc.insecure_channel("127.0.0.1:$grpc")
SLOW = CHANNEL.unary_unary("/test.T/Slow")
"""
_SLOW = 'assert SLOW(b"x", timeout=20) == b"ok"'
_LIMITS = """
import limits

STORE = limits.storage.storage_from_string("%s")
LIMITER = limits.strategies.MovingWindowRateLimiter(STORE)
RATE = limits.parse("1000/second")
"""

ROWS = (
    Row(
        "boto3",
        """
        import boto3

        S3 = boto3.client(
            "s3", endpoint_url="http://127.0.0.1:$http", region_name="x",
            aws_access_key_id="a", aws_secret_access_key="b",
        )
        """,
        'assert S3.list_buckets()["Buckets"][0]["Name"] == "ok"',
    ),
    Row("grpcio", _GRPC + _CHANNEL, _SLOW, **_MOVED),
    Row(
        "grpcio_inside",
        _GRPC,
        """
        with grpc.insecure_channel("127.0.0.1:$grpc") as channel:
            assert channel.unary_unary("/test.T/Slow")(b"x", timeout=20) == b"ok"
        """,
        **_MOVED,
    ),
    Row(
        "grpcio_gevent",
        _GRPC
        + "import grpc.experimental.gevent\ngrpc.experimental.gevent.init_gevent()"
        + _CHANNEL,
        _SLOW,
    ),
    Row(
        "cachetools",
        "import cachetools\nimport time\n@cachetools.cached(cachetools.TTLCache(100, 60))\n"
        "def look_up(name):\n    time.sleep(0.3)\n    return name",
        "assert look_up(ctx.session.id) == ctx.session.id",
    ),
    Row(
        "lru_cache",
        "import functools\nimport time\n@functools.lru_cache\n"
        "def look_up(name):\n    time.sleep(0.3)\n    return name",
        "assert look_up(ctx.session.id) == ctx.session.id",
    ),
    Row(
        "tenacity",
        """
        import tenacity

        @tenacity.retry(wait=tenacity.wait_fixed(0.15), stop=tenacity.stop_after_attempt(3))
        def third(tries):
            tries.append(1)
            assert len(tries) == 3
        """,
        "third([])",
    ),
    Row(
        "limits_memory",
        _LIMITS % "memory://" + "import time\n",
        'assert LIMITER.hit(RATE, "a")\ntime.sleep(0.3)',
    ),
    Row(
        "limits_redis",
        _LIMITS % "redis://127.0.0.1:$redis" + "import redis\nDB = redis.Redis(port=$redis)\n",
        'DB.blpop("none", timeout=0.3)\nassert LIMITER.hit(RATE, "a")',
    ),
    Row(
        "watchdog",
        """
        import os
        import queue
        import watchdog.events
        import watchdog.observers

        class Handler(watchdog.events.FileSystemEventHandler):
            def __init__(self):
                self.seen = {}

            def on_created(self, event):
                if event.src_path in self.seen:
                    self.seen[event.src_path].put(True)

        os.makedirs("$work/watched", exist_ok=True)
        HANDLER = Handler()
        OBSERVER = watchdog.observers.Observer()
        OBSERVER.schedule(HANDLER, "$work/watched")
        OBSERVER.start()
        import time
        """,
        """
        name = f"$work/watched/{ctx.session.id}"
        HANDLER.seen[name] = seen = queue.Queue()
        time.sleep(0.3)
        open(name, "w").close()
        assert seen.get(timeout=5)
        """,
    ),
    Row(
        "clamd",
        "import io\nimport clamd",
        """
        scanner = clamd.ClamdNetworkSocket("127.0.0.1", $clamd_slow)
        assert scanner.instream(io.BytesIO(b"virus" * 20))["stream"][0] == "FOUND"
        """,
    ),
    Row(
        "pyclamd",
        "import pyclamd",
        """
        scanner = pyclamd.ClamdNetworkSocket("127.0.0.1", $clamd_slow)
        assert scanner.scan_stream(b"virus" * 20)
        """,
    ),
    Row(
        "rspamd_http",
        'import json\nimport urllib.request\nMESSAGE = open("$work/msg.eml", "rb").read()',
        """
        url = "http://127.0.0.1:$rspamd_slow/checkv2"
        assert "score" in json.load(urllib.request.urlopen(url, MESSAGE))
        """,
    ),
    Row(
        "pycurl",
        "import io\nimport pycurl",
        """
        page, curl = io.BytesIO(), pycurl.Curl()
        curl.setopt(pycurl.URL, "http://127.0.0.1:$http/slow")
        curl.setopt(pycurl.WRITEDATA, page)
        curl.perform()
        curl.close()
        assert page.getvalue() == b"ok"
        """,
        **_MOVED,
    ),
    Row(
        "zmq",
        "import zmq\nCONTEXT = zmq.Context()",
        """
        with CONTEXT.socket(zmq.PULL) as sock:
            sock.bind_to_random_port("tcp://127.0.0.1")
            sock.setsockopt(zmq.RCVTIMEO, 300)
            try:
                sock.recv()
            except zmq.Again:
                pass
            else:
                raise AssertionError("a message")
        """,
        **_MOVED,
    ),
)
