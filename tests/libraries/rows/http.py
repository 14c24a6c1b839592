"""HTTP clients."""

from ..row import Row

ROWS = (
    Row(
        "urllib_request",
        "import urllib.request",
        'assert urllib.request.urlopen("http://127.0.0.1:$http/slow").read() == b"ok"',
    ),
    Row(
        "http_client",
        "import http.client",
        """
        connection = http.client.HTTPConnection("127.0.0.1", $http)
        connection.request("GET", "/slow")
        assert connection.getresponse().read() == b"ok"
        connection.close()
        """,
    ),
    Row(
        "requests",
        "import requests",
        'assert requests.get("http://127.0.0.1:$http/slow").text == "ok"',
    ),
    Row(
        "requests_session",
        "import requests\nHTTP = requests.Session()",
        'assert HTTP.get("http://127.0.0.1:$http/slow").text == "ok"',
    ),
    Row(
        "requests_https",
        "import requests",
        """
        page = requests.get("https://127.0.0.1:$https/slow", verify="$work/cert.pem")
        assert page.text == "ok"
        """,
    ),
    Row(
        "httpx",
        "import httpx",
        'assert httpx.get("http://127.0.0.1:$http/slow").text == "ok"',
        note="20 ms of computing for a new SSL context in each call; keep a Client",
    ),
    Row(
        "httpx_client",
        "import httpx\nHTTP = httpx.Client(timeout=20)",
        'assert HTTP.get("http://127.0.0.1:$http/slow").text == "ok"',
    ),
    Row(
        "urllib3",
        "import urllib3\nHTTP = urllib3.PoolManager(maxsize=4)",
        'assert HTTP.request("GET", "http://127.0.0.1:$http/slow").data == b"ok"',
    ),
    Row(
        "urllib3_block",
        "import urllib3\nHTTP = urllib3.PoolManager(maxsize=50, block=True)",
        'assert HTTP.request("GET", "http://127.0.0.1:$http/slow").data == b"ok"',
    ),
    Row("asyncio_run", "import asyncio", "asyncio.run(asyncio.sleep(0.3))"),
    Row(
        "aiohttp",
        """
        import asyncio
        import aiohttp

        async def get():
            async with aiohttp.ClientSession() as http:
                async with http.get("http://127.0.0.1:$http/slow") as page:
                    return await page.text()
        """,
        'assert asyncio.run(get()) == "ok"',
    ),
    Row(
        "asyncio_loop_thread",
        """
        import asyncio
        import threading

        LOOP = asyncio.new_event_loop()
        threading.Thread(target=LOOP.run_forever, daemon=True).start()
        """,
        "asyncio.run_coroutine_threadsafe(asyncio.sleep(0.3), LOOP).result(20)",
    ),
    Row(
        "httpx_async_anyio",
        """
        import anyio
        import httpx

        async def get():
            async with httpx.AsyncClient() as http:
                return (await http.get("http://127.0.0.1:$http/slow")).text
        """,
        'assert anyio.run(get) == "ok"',
    ),
)
