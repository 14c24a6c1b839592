"""Redis, memcached, SQL and LDAP."""

from ..row import Row, Verdict

_MOVED = {"plain": Verdict.MOVED}
_REDIS = "import redis\nDB = redis.Redis(port=$redis)\n"
_SLOW_REDIS = "import redis\nDB = redis.Redis(port=$redis_slow)\n"
_PG = "host=127.0.0.1 port=$postgres user=postgres dbname=postgres"
_PG_URL = "postgres@127.0.0.1:$postgres/postgres"
_MARIADB = 'host="127.0.0.1", port=$mariadb, user="filter", password="filter", database="filter"'
_MARIADB_URL = "filter:filter@127.0.0.1:$mariadb/filter"
_QUERY = "connection.execute(sa.text('select %s(0.3)'))"


def _engine(url: str, function: str, pool: str = "pool_size=50") -> tuple[str, str]:
    return (
        f'import sqlalchemy as sa\nENGINE = sa.create_engine("{url}", {pool})',
        f"with ENGINE.connect() as connection: {_QUERY % function}",
    )


def _connect(call: str, query: str) -> str:
    return f"""
        connection = {call}
        cursor = connection.cursor()
        cursor.execute("{query}")
        connection.close()
        """


ROWS = (
    Row("redis_blpop", _REDIS, 'assert DB.blpop("none", timeout=0.3) is None'),
    Row(
        "redis_pipeline",
        _SLOW_REDIS,
        """
        with DB.pipeline() as pipeline:
            assert pipeline.set("a", "b").get("a").execute() == [True, b"b"]
        """,
    ),
    Row(
        "redis_pubsub",
        _REDIS,
        """
        with DB.pubsub() as channel:
            channel.subscribe("quiet")
            assert channel.get_message(timeout=5)["type"] == "subscribe"
            assert channel.get_message(timeout=0.3) is None
        """,
    ),
    Row(
        "redis_pubsub_thread",
        _REDIS + "import threading\n",
        """
        seen, name = threading.Event(), f"channel-{ctx.session.id}"
        channel = DB.pubsub()
        channel.subscribe(**{name: lambda message: seen.set()})
        reader = channel.run_in_thread(sleep_time=0.1)
        assert DB.blpop("none", timeout=0.3) is None
        DB.publish(name, "x")
        assert seen.wait(10)
        reader.stop()
        reader.join()
        """,
    ),
    Row(
        "redis_lua",
        _SLOW_REDIS + 'ADD = DB.register_script("return ARGV[1] + 1")\n',
        "assert ADD(args=[1]) == 2",
    ),
    Row(
        "redis_lock",
        _REDIS,
        """
        with DB.lock(f"lock-{ctx.session.id}", timeout=20):
            assert DB.blpop("none", timeout=0.3) is None
        """,
    ),
    Row(
        "redis_blocking_pool",
        """
        import redis

        POOL = redis.BlockingConnectionPool(max_connections=50, port=$redis_slow)
        DB = redis.Redis(connection_pool=POOL)
        """,
        'assert DB.set("a", "b")',
    ),
    Row(
        "redis_asyncio",
        """
        import asyncio
        import redis.asyncio

        async def pop():
            async with redis.asyncio.Redis(port=$redis) as db:
                return await db.blpop("none", timeout=0.3)
        """,
        "assert asyncio.run(pop()) is None",
    ),
    Row(
        "pymemcache",
        "from pymemcache.client.base import Client",
        """
        client = Client(("127.0.0.1", $memcached_slow))
        assert client.set("a", "b", noreply=False)
        client.close()
        """,
    ),
    Row(
        "pymemcache_pooled",
        """
        from pymemcache.client.base import PooledClient

        CLIENT = PooledClient(("127.0.0.1", $memcached_slow), max_pool_size=50)
        """,
        'assert CLIENT.set("a", "b", noreply=False)',
    ),
    Row(
        "psycopg_binary",
        "import psycopg",
        f"""
        with psycopg.connect("{_PG}") as connection:
            connection.execute("select pg_sleep(0.3)")
        """,
    ),
    Row(
        "psycopg_python",
        'import os\nos.environ["PSYCOPG_IMPL"] = "python"\nimport psycopg',
        f"""
        with psycopg.connect("{_PG}") as connection:
            connection.execute("select pg_sleep(0.3)")
        """,
    ),
    Row(
        "psycopg_pool",
        f"""
        import psycopg_pool

        POOL = psycopg_pool.ConnectionPool("{_PG}", min_size=4, max_size=50, open=True)
        """,
        """
        with POOL.connection() as connection:
            connection.execute("select pg_sleep(0.3)")
        """,
    ),
    Row(
        "psycopg2",
        "import psycopg2",
        _connect(f'psycopg2.connect("{_PG}")', "select pg_sleep(0.3)"),
        **_MOVED,
    ),
    Row(
        "psycopg2_pool",
        f"""
        from psycopg2.pool import ThreadedConnectionPool

        POOL = ThreadedConnectionPool(1, 50, "{_PG}")
        """,
        """
        connection = POOL.getconn()
        connection.cursor().execute("select pg_sleep(0.3)")
        POOL.putconn(connection)
        """,
        **_MOVED,
    ),
    Row(
        "pg8000",
        "import pg8000.dbapi",
        _connect(
            'pg8000.dbapi.connect("postgres", host="127.0.0.1", port=$postgres)',
            "select pg_sleep(0.3)",
        ),
        note="20 ms of computing for a new SSL context in each connection",
    ),
    Row(
        "pymysql",
        "import pymysql",
        _connect(f"pymysql.connect({_MARIADB})", "select sleep(0.3)"),
        note="20 ms of computing for a new SSL context in each connection",
    ),
    Row(
        "mysqlclient",
        "import MySQLdb",
        _connect(f"MySQLdb.connect({_MARIADB})", "select sleep(0.3)"),
        **_MOVED,
    ),
    Row("sqlalchemy_pymysql", *_engine(f"mysql+pymysql://{_MARIADB_URL}", "sleep")),
    Row(
        "sqlalchemy_pool5",
        *_engine(f"mysql+pymysql://{_MARIADB_URL}", "sleep", "pool_timeout=25"),
        note="waits for a connection of the pool of 15",
    ),
    Row("sqlalchemy_psycopg", *_engine(f"postgresql+psycopg://{_PG_URL}", "pg_sleep")),
    Row(
        "sqlalchemy_psycopg2",
        *_engine(f"postgresql+psycopg2://{_PG_URL}", "pg_sleep"),
        **_MOVED,
    ),
    Row(
        "sqlite3_locked",
        "import sqlite3",
        """
        connection = sqlite3.connect("$work/locked.db", timeout=0.3)
        try:
            connection.execute("insert into t values (1)")
        except sqlite3.OperationalError as error:
            assert "locked" in str(error), error
        else:
            raise AssertionError("not locked")
        finally:
            connection.close()
        """,
        **_MOVED,
    ),
    Row(
        "duckdb",
        "import duckdb",
        """
        with duckdb.connect() as connection:
            connection.execute("select sum(sqrt(i)) from range(20000000) t(i)").fetchall()
        """,
        plain=Verdict.COMPUTES,
    ),
    Row(
        "ldap3",
        "import ldap3",
        """
        server = ldap3.Server("127.0.0.1", port=$slapd_slow, get_info=ldap3.NONE)
        with ldap3.Connection(server, "cn=admin,dc=x", "secret", auto_bind=True) as connection:
            assert connection.bound
        """,
    ),
    Row(
        "ldap3_async_strategy",
        "import ldap3",
        """
        server = ldap3.Server("127.0.0.1", port=$slapd_slow, get_info=ldap3.NONE)
        connection = ldap3.Connection(
            server, "cn=admin,dc=x", "secret", client_strategy=ldap3.ASYNC, auto_bind=True
        )
        assert connection.bound
        connection.unbind()
        """,
    ),
    Row(
        "python_ldap",
        "import ldap",
        """
        connection = ldap.initialize("ldap://127.0.0.1:$slapd_slow")
        connection.simple_bind_s("cn=admin,dc=x", "secret")
        connection.unbind_s()
        """,
        **_MOVED,
    ),
)
