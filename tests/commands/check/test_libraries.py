"""What ``check`` says of libraries, which need not be installed for it: nothing is called."""

from __future__ import annotations

import pytest

from .checking import check_all

STUBS = """
anyio argon2 asgiref.sync authheaders bcrypt boto3 clamd confluent_kafka cx_Oracle dataset dns
duckdb filelock flask_mail grpc grpc.experimental.gevent httpx ibm_db kafka ldap ldap3 ldap.filter
limits lmdb mariadb MySQLdb mysql.connector numpy oracledb pam peewee pika plyvel portalocker
prometheus_client psycogreen.gevent psycopg psycopg2 psycopg2.extras psycopg2.pool psycopg_pool
pycurl pylibmc pymemcache pymssql pymysql pyodbc redis requests rocksdb sentry_sdk sklearn
sklearn.ensemble spf sqlalchemy sqlalchemy.orm tenacity torch trio urllib3 watchdog zmq zmq.green
""".split()  # noqa: SIM905


def handler(body: str, top: str = "", options: str = "") -> str:
    """The text of a filter with one handler."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"{top}\n@app.filter.mail_from{options}\ndef look(ctx, sender):\n{lines}\n"


WAITS = "waits inside C code, and holds up all sessions; register with thread=True"
COMPUTES = "computes, and holds up all sessions; register with thread=True"
MAY = "may compute for long, and holds up all sessions; register with thread=True"
LOCKS = (
    "waits inside C code while another process has the lock, and holds up all sessions; "
    "register with thread=True"
)
LOOP = (
    "runs an event loop of its own, which only one session at a time can have; "
    "register with thread=True"
)
FOREIGN = (
    "runs C code that gevent knows nothing of, and holds up all sessions; register with thread=True"
)
PIPE = (
    "waits for the other end inside C code, and holds up all sessions; register with thread=True, "
    "or use subprocess, or select.select before it"
)
FIFO = (
    "open waits for the other end of the FIFO, and holds up all sessions; register with "
    "thread=True, or use subprocess"
)
SIGNAL = "is for the whole process, and cannot end the wait of one session; use deadline="
PSYCOPG2 = f"psycopg2.connect {WAITS}, or use psycopg 3"

# By name: body of the handler, what stands above it, and what is said of it.
TOLD = {
    "psycopg2": ("c = psycopg2.connect('x'); c.cursor().execute('y')", "import psycopg2", PSYCOPG2),
    "psycopg2 under another name": ("db.connect('x')", "import psycopg2 as db", PSYCOPG2),
    "psycopg2 taken out of its module": (
        "connect('x')",
        "import psycopg2 as db\nconnect = db.connect",
        PSYCOPG2,
    ),
    "psycopg2 imported in the handler": ("import psycopg2\npsycopg2.connect('x')", "", PSYCOPG2),
    "psycopg2 by its name": (
        "importlib.import_module('psycopg2').connect('x')",
        "import importlib",
        PSYCOPG2,
    ),
    "psycopg2, if it is there": (
        "db.connect('x')",
        "try:\n    import psycopg2 as db\nexcept ImportError:\n    db = None",
        PSYCOPG2,
    ),
    "psycopg2, a pool": (
        "POOL.getconn().cursor().execute('x')",
        "from psycopg2.pool import ThreadedConnectionPool\nPOOL = ThreadedConnectionPool(1, 5)",
        f"psycopg2.pool.ThreadedConnectionPool {WAITS}, or use psycopg 3",
    ),
    "psycopg2, a connection that a function makes": (
        "c = connection()\nc.cursor().execute('x')",
        "import psycopg2\ndef connection():\n    return psycopg2.connect('x')",
        PSYCOPG2,
    ),
    "psycopg2, in a context manager": (
        "with cursor() as c: c.execute('x')",
        "import contextlib, psycopg2\nDB = psycopg2.connect('x')\n@contextlib.contextmanager\n"
        "def cursor():\n    yield DB.cursor()",
        PSYCOPG2,
    ),
    "psycopg2, a connection of an object": (
        "STORE.known('x')",
        "import psycopg2\nclass Store:\n"
        "    def __init__(self): self.conn = psycopg2.connect('x')\n"
        "    def known(self, name): return self.conn.cursor().execute(name)\nSTORE = Store()",
        PSYCOPG2,
    ),
    "psycopg2, an object's connection, made when first used": (
        "STORE.known('x')",
        "import psycopg2\nclass Store:\n    conn = None\n"
        "    def open(self): self.conn = psycopg2.connect('x')\n"
        "    def known(self, name): return self.conn.cursor().execute(name)\nSTORE = Store()",
        PSYCOPG2,
    ),
    "psycopg2, given to an object": (
        "STORE.known('x')",
        "import psycopg2\nclass Store:\n"
        "    def __init__(self, conn): self.conn = conn\n"
        "    def known(self, name): return self.conn.cursor().execute(name)\n"
        "STORE = Store(psycopg2.connect('x'))",
        PSYCOPG2,
    ),
    "psycopg2, in a property": (
        "print(STORE.names)",
        "import psycopg2\nclass Store:\n    @property\n"
        "    def names(self): return psycopg2.connect('x').cursor()\nSTORE = Store()",
        PSYCOPG2,
    ),
    "psycopg2, of a base class": (
        "STORE.known('x')",
        "import psycopg2\nclass Base:\n    conn = psycopg2.connect('x')\n"
        "class Store(Base):\n"
        "    def known(self, name): return self.conn.cursor().execute(name)\nSTORE = Store()",
        PSYCOPG2,
    ),
    "psycopg2, in a global variable that a handler sets": (
        "global DB\nif DB is None: DB = psycopg2.connect('x')\nDB.cursor()",
        "import psycopg2\nDB = None",
        PSYCOPG2,
    ),
    "psycopg2, in a threading.local": (
        "HERE.db.cursor()",
        "import psycopg2\nHERE = threading.local()\ndef fill(): HERE.db = psycopg2.connect('x')",
        PSYCOPG2,
    ),
    "psycopg2, in ctx.session.local": (
        "ctx.session.local.cursor()",
        "import psycopg2\napp.local_session(lambda: psycopg2.connect('x'))",
        PSYCOPG2,
    ),
    "psycopg2, in a list": (
        "for c in ALL: c.cursor()",
        "import psycopg2\nALL = [psycopg2.connect(name) for name in 'ab']",
        PSYCOPG2,
    ),
    "psycopg2, in a parameter of its type": (
        "ask(None)",
        "import psycopg2\ndef ask(conn: psycopg2.connection): conn.cursor()",
        f"psycopg2.connection.cursor {WAITS}, or use psycopg 3",
    ),
    "psycopg2, in a function that a thread runs": (
        "t = threading.Thread(target=work); t.start(); t.join()",
        "import psycopg2\ndef work(): psycopg2.connect('x')",
        PSYCOPG2,
    ),
    "psycopg2, with partial": (
        "connect()",
        "import functools, psycopg2\nconnect = functools.partial(psycopg2.connect, 'x')",
        PSYCOPG2,
    ),
    "sqlalchemy, postgresql": (
        "with E.connect() as c: c.execute('x')",
        "import sqlalchemy as sa\nE = sa.create_engine('postgresql://u@h/d')",
        f"sqlalchemy.create_engine (psycopg2) {WAITS}, or use psycopg 3",
    ),
    "sqlalchemy, psycopg2 by its name": (
        "Session(E).execute('x')",
        "from sqlalchemy import create_engine\nfrom sqlalchemy.orm import Session\n"
        "HOST = 'h'\nURL = f'postgresql+psycopg2://u@{HOST}/d'\nE = create_engine(URL)",
        f"sqlalchemy.create_engine (psycopg2) {WAITS}, or use psycopg 3",
    ),
    "sqlalchemy, sessionmaker": (
        "with MAKE() as s: s.execute('x')",
        "import sqlalchemy\nfrom sqlalchemy.orm import sessionmaker\n"
        "E = sqlalchemy.create_engine('mysql://' + os.environ.get('HOST', 'h'))\n"
        "MAKE = sessionmaker(bind=E)",
        f"sqlalchemy.create_engine (MySQLdb) {WAITS}, or use PyMySQL",
    ),
    "sqlalchemy, the URL in the environment": (
        "E.connect()",
        "import sqlalchemy\nE = sqlalchemy.create_engine(os.environ.get('DB', 'sqlite:///x'))",
        f"sqlalchemy.create_engine (sqlite3) {WAITS}",
    ),
    "sqlalchemy, made in the handler": (
        "url = '{}://x'.format('mssql+pyodbc')\ncreate_engine('mssql+pyodbc://x').connect()",
        "from sqlalchemy import create_engine",
        f"sqlalchemy.create_engine (pyodbc) {WAITS}",
    ),
    "sqlalchemy, URL.create": (
        "E.connect()",
        "from sqlalchemy import URL, create_engine\n"
        "E = create_engine(URL.create('oracle+oracledb', username='u'))",
        f"sqlalchemy.create_engine (oracledb) {WAITS}",
    ),
    "mysqlclient": (
        "MySQLdb.connect('x')",
        "import MySQLdb",
        f"MySQLdb.connect {WAITS}, or use PyMySQL",
    ),
    "mariadb": ("mariadb.connect()", "import mariadb", f"mariadb.connect {WAITS}, or use PyMySQL"),
    "mysql.connector": (
        "mysql.connector.connect(host='x')",
        "import mysql.connector",
        f"mysql.connector.connect {WAITS}, or connect with use_pure=True",
    ),
    "python-ldap": (
        "C.search_s('x', 2)",
        "import ldap\nC = ldap.initialize('ldap://x')",
        f"ldap.initialize {WAITS}, or use ldap3",
    ),
    "sqlite3": (
        "DB.execute('x')",
        "import sqlite3\nDB = sqlite3.connect(':memory:')",
        f"sqlite3.connect {WAITS}",
    ),
    "duckdb": ("duckdb.sql('x').fetchall()", "import duckdb", f"duckdb.sql {WAITS}"),
    "pyodbc": ("pyodbc.connect('x')", "import pyodbc", f"pyodbc.connect {WAITS}"),
    "cx_Oracle": ("cx_Oracle.connect('x')", "import cx_Oracle", f"cx_Oracle.connect {WAITS}"),
    "oracledb": ("oracledb.connect('x')", "import oracledb", f"oracledb.connect {WAITS}"),
    "ibm_db": ("ibm_db.connect('x')", "import ibm_db", f"ibm_db.connect {WAITS}"),
    "pymssql": (
        "pymssql.connect('x')",
        "import pymssql",
        f"pymssql.connect {WAITS}, or use python-tds",
    ),
    "lmdb": ("with ENV.begin(): pass", "import lmdb\nENV = lmdb.open('x')", f"lmdb.open {LOCKS}"),
    "rocksdb": ("DB.get(b'x')", "import rocksdb\nDB = rocksdb.DB('x')", f"rocksdb.DB {LOCKS}"),
    "grpc": (
        "SLOW(b'x', timeout=20)",
        "import grpc\nCH = grpc.insecure_channel('x')\nSLOW = CH.unary_unary('/t')",
        f"grpc.insecure_channel {WAITS}, or call grpc.experimental.gevent.init_gevent() at the "
        "top of the file",
    ),
    "zmq": (
        "S.recv()",
        "import zmq\nS = zmq.Context().socket(1)",
        f"zmq.Context {WAITS}, or import zmq.green as zmq",
    ),
    "pycurl": (
        "c = pycurl.Curl(); c.perform()",
        "import pycurl",
        f"pycurl.Curl {WAITS}, or use requests, httpx or urllib",
    ),
    "pylibmc": (
        "C.get('x')",
        "import pylibmc\nC = pylibmc.Client(['x'])",
        f"pylibmc.Client {WAITS}, or use pymemcache",
    ),
    "confluent_kafka": (
        "P.flush()",
        "import confluent_kafka\nP = confluent_kafka.Producer({})",
        f"confluent_kafka.Producer {WAITS}, or use kafka-python",
    ),
    "pam": ("pam.pam().authenticate('u', 'p')", "import pam", f"pam.pam {WAITS}"),
    "ctypes": (
        "C.usleep(300000)",
        "import ctypes\nC = ctypes.CDLL(None)",
        f"ctypes.CDLL {FOREIGN}",
    ),
    "ctypes, in the handler": (
        "libc = ctypes.cdll.LoadLibrary(None)\nlibc.usleep(3)",
        "import ctypes",
        f"ctypes.cdll.LoadLibrary {FOREIGN}",
    ),
    "flock": (
        "with open('/tmp/x', 'w') as f: fcntl.flock(f, fcntl.LOCK_EX)",
        "import fcntl",
        f"fcntl.flock {LOCKS}, or lock with LOCK_NB and time.sleep",
    ),
    "portalocker.lock": (
        "portalocker.lock(open('/tmp/x'), 1)",
        "import portalocker",
        f"portalocker.lock {LOCKS}, or use portalocker.Lock, which tries again and again",
    ),
    "a pipe as a file": (
        "r, w = os.pipe()\nwith os.fdopen(r) as f: f.read()",
        "",
        f"os.pipe {PIPE}",
    ),
    "a FIFO": ("n = '/tmp/x'\nos.mkfifo(n)\nwith open(n) as f: f.read()", "", FIFO),
    "sigtimedwait": (
        "signal.sigtimedwait([10], 0.3)",
        "import signal",
        f"signal.sigtimedwait {WAITS}",
    ),
    "sigwait": ("signal.sigwait([10])", "import signal", f"signal.sigwait {WAITS}"),
    "signal.pause": ("signal.pause()", "import signal", f"signal.pause {WAITS}"),
    "signal.alarm": ("signal.alarm(3)", "import signal", f"signal.alarm {SIGNAL}"),
    "trio.run": ("trio.run(print)", "import trio", f"trio.run {LOOP}"),
    "numpy, large": (
        "A @ A",
        "import numpy as np\nN = 1000\nA = np.random.rand(N, N)",
        f"numpy.matmul {MAY}",
    ),
    "numpy, large, in the handler": (
        "np.dot(np.ones((500, 500)), np.ones((500, 500)))",
        "import numpy as np",
        f"numpy.dot {MAY}",
    ),
    "numpy.linalg": ("np.linalg.svd(sender)", "import numpy as np", f"numpy.linalg.svd {MAY}"),
    "scikit-learn": (
        "M.predict([[1]])",
        "from sklearn.ensemble import RandomForestClassifier\nM = RandomForestClassifier(100)",
        f"sklearn.ensemble.RandomForestClassifier {MAY}",
    ),
    "torch": ("M(sender)", "import torch\nM = torch.load('x')", f"torch.load {MAY}"),
    "bcrypt": ("bcrypt.checkpw(b'', b'')", "import bcrypt", f"bcrypt.checkpw {COMPUTES}"),
    "argon2": (
        "H.verify('x', 'y')",
        "import argon2\nH = argon2.PasswordHasher()",
        f"argon2.PasswordHasher {COMPUTES}",
    ),
    "dkim.sign": ("dkim.sign(b'', b'', b'', b'')", "import dkim", f"dkim.sign {COMPUTES}"),
    "dkim.DKIM.sign": ("dkim.DKIM(b'').sign(b'')", "import dkim", f"dkim.DKIM {COMPUTES}"),
    "psycopg2, read by a library": (
        "Frame(DB).read()",
        "import psycopg2, dataset\nFrame = dataset.Frame\nDB = psycopg2.connect('x')",
        PSYCOPG2,
    ),
}
SILENT = {
    "a pipe waits": ("r, w = os.pipe()\np = subprocess.Popen(['x'], stdout=w)\nos.read(r, 9)", ""),
    "a terminal waits": ("pid, fd = pty.fork()\nos.read(fd, 9)", "import pty"),
    "pty.spawn waits": ("pty.spawn(['x'])", "import pty"),
    "os.wait waits": ("os.wait()", ""),
    "select.epoll waits": ("select.epoll()", "import select"),
    "EpollSelector waits": ("selectors.EpollSelector()", "import selectors"),
    "multiprocessing.Pool waits": (
        "global P\nif P is None: P = multiprocessing.Pool(8)\nP.apply(time.sleep, (3,))",
        "import multiprocessing\nP = None",
    ),
    "multiprocessing.Process waits": (
        "p = Process(target=time.sleep); p.start(); p.join()",
        "from multiprocessing import Process",
    ),
    "multiprocessing, spawned waits": (
        "p = C.Process(target=time.sleep); p.start(); p.join()",
        "import multiprocessing\nC = multiprocessing.get_context('spawn')",
    ),
    "multiprocessing.Queue waits": ("multiprocessing.Queue().get()", "import multiprocessing"),
    "asyncio.run waits": ("asyncio.run(asyncio.sleep(1))", "import asyncio"),
    "asyncio, a loop waits": (
        "asyncio.new_event_loop().run_until_complete(asyncio.sleep(1))",
        "import asyncio",
    ),
    "anyio.run waits": ("anyio.run(print)", "import anyio"),
    "urllib": ("urllib.request.urlopen('http://x').read()", "import urllib.request"),
    "requests": ("S.get('http://x')", "import requests\nS = requests.Session()"),
    "httpx": ("C.get('http://x')", "import httpx\nC = httpx.Client()"),
    "urllib3": ("P.request('GET', 'x')", "import urllib3\nP = urllib3.PoolManager()"),
    "redis": ("DB.blpop('x')", "import redis\nDB = redis.Redis()"),
    "psycopg 3": ("psycopg.connect('x').execute('y')", "import psycopg"),
    "psycopg_pool": ("P.connection()", "import psycopg_pool\nP = psycopg_pool.ConnectionPool('x')"),
    "PyMySQL": ("pymysql.connect(host='x')", "import pymysql"),
    "sqlalchemy, psycopg 3": (
        "E.connect()",
        "import sqlalchemy\nE = sqlalchemy.create_engine('postgresql+psycopg://x')",
    ),
    "sqlalchemy, pymysql": (
        "E.connect()",
        "import sqlalchemy\nE = sqlalchemy.create_engine('mysql+pymysql://x')",
    ),
    "sqlalchemy, a URL that nobody sees": (
        "E.connect()",
        "import sqlalchemy\nE = sqlalchemy.create_engine(open('/dev/null').read())",
    ),
    "sqlalchemy, a connection of its own": (
        "E.connect()",
        "import sqlalchemy, psycopg\n"
        "E = sqlalchemy.create_engine('postgresql://', creator=psycopg.connect)",
    ),
    "psycopg2 that was made cooperative": (
        "psycopg2.connect('x')",
        "import psycopg2\nfrom psycogreen.gevent import patch_psycopg\npatch_psycopg()",
    ),
    "MySQLdb that is PyMySQL": (
        "MySQLdb.connect('x')",
        "import pymysql\npymysql.install_as_MySQLdb()\nimport MySQLdb",
    ),
    "mysql.connector in Python": (
        "DB.cursor().execute('x')",
        "import mysql.connector\nDB = mysql.connector.connect(use_pure=True)",
    ),
    "what was fetched at the top": (
        "return reject(550, 'no') if sender in NAMES or NAMES[0] else None",
        "import sqlite3\nNAMES = [r for r in sqlite3.connect(':memory:').execute('select 1, 2')]",
    ),
    "grpc with gevent": (
        "SLOW(b'x')",
        "import grpc, grpc.experimental.gevent as g\ng.init_gevent()\n"
        "SLOW = grpc.insecure_channel('x').unary_unary('/t')",
    ),
    "zmq.green": ("S.recv()", "import zmq.green as zmq\nS = zmq.Context().socket(1)"),
    "ldap3": ("ldap3.Connection('x').bind()", "import ldap3"),
    "ldap.filter": ("ldap.filter.escape_filter_chars(sender)", "import ldap.filter"),
    "dkim.verify": ("dkim.verify(b'')", "import dkim"),
    "dkim.DKIM.verify": ("d = dkim.DKIM(b''); d.verify()", "import dkim"),
    "authheaders": ("authheaders.authenticate_message(b'')", "import authheaders"),
    "os.system": ("os.system('x')", ""),
    "os.waitpid": ("os.waitpid(os.posix_spawn('/bin/x', ['x'], {}), 0)", ""),
    "subprocess": ("subprocess.run(['x']); os.popen('x').read()", ""),
    "locks": ("L.acquire(); E.wait(1)", "L = threading.Lock(); E = threading.Event()"),
    "a lock that is tried": (
        "fcntl.flock(open('/tmp/x'), fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "import fcntl",
    ),
    "file locks that try again": ("with L: pass", "import filelock\nL = filelock.FileLock('x')"),
    "a pipe that is ready": (
        "r, w = os.pipe()\nselect.select([r], [], [], 1)\nos.read(r, 9)",
        "import select",
    ),
    "a file": ("fd = os.open('/etc/passwd', 0)\nos.read(fd, 9)\nopen('/etc/hosts').read()", ""),
    "select": ("select.poll(); select.select([], [], [], 1)", "import select"),
    "selectors": ("selectors.DefaultSelector()", "import selectors"),
    "executors": (
        "EX.submit(time.sleep, 1).result()",
        "import concurrent.futures as c\nEX = c.ThreadPoolExecutor()",
    ),
    "processes of an executor": (
        "c.ProcessPoolExecutor().submit(time.sleep, 1).result()",
        "import concurrent.futures as c",
    ),
    "a loop in a thread": (
        "asyncio.run_coroutine_threadsafe(asyncio.sleep(0), LOOP).result()\n"
        "LOOP.call_soon_threadsafe(print)",
        "import asyncio\nLOOP = asyncio.new_event_loop()",
    ),
    "watchdog": ("time.sleep(1)", "import watchdog\nO = watchdog.Observer(); O.start()"),
    "numpy, small": (
        "np.dot(W, np.array([1, 2])); W @ np.zeros(8); np.linalg.norm(np.ones(3))",
        "import numpy as np\nW = np.array([1, 2])",
    ),
    "multiprocessing, its numbers": ("multiprocessing.cpu_count()", "import multiprocessing"),
    "a pool of threads": (
        "ThreadPool(2).map(print, [1])",
        "from multiprocessing.pool import ThreadPool",
    ),
    "ctypes, its types": ("ctypes.c_int(3); ctypes.CDLL(None)", "import ctypes"),
    "work for gevent's threads": (
        "gevent.get_hub().threadpool.apply(work)",
        "import gevent, psycopg2\ndef work(): psycopg2.connect('x')",
    ),
    "a parameter of the same name": (
        "other(sender)",
        "import psycopg2\ndef other(psycopg2): psycopg2.connect()",
    ),
    "an own class of the same name": (
        "sqlite3().connect()",
        "class sqlite3:\n    def connect(self): pass",
    ),
    "a function that is never called": ("pass", "import psycopg2\ndef f(): psycopg2.connect('x')"),
    "clients of services": (
        "clamd.x(); pika.y(); S.capture('x'); T.retry(print)",
        "import clamd, pika, sentry_sdk as S, tenacity as T",
    ),
}
THREADS = {
    "signal.signal": (
        "signal.signal(14, print)",
        "ERROR signal.signal in a thread of the pool: signals belong to the main thread; "
        "use deadline=",
    ),
    "asyncio.get_event_loop": (
        "asyncio.get_event_loop().run_until_complete(x())",
        "asyncio.get_event_loop in a thread of the pool: there is no loop; use asyncio.run",
    ),
    "asyncio.run": ("asyncio.run(asyncio.sleep(0))", None),
    "psycopg2": ("psycopg2.connect('x').cursor()", None),
    "requests": ("requests.Session().get('x')", None),
    "multiprocessing": ("multiprocessing.Pool(2).map(print, [])", None),
    "subprocess": ("subprocess.run(['x'])", None),
    "select.epoll": ("select.epoll()", None),
}
THREAD_TOP = "import asyncio, multiprocessing, psycopg2, requests, select, signal\nx = print"


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, list[str]]:
    filters = {f"told {name}": handler(body, top) for name, (body, top, _) in TOLD.items()}
    filters |= {f"silent {name}": handler(body, top) for name, (body, top) in SILENT.items()}
    filters |= {
        f"thread {name}": handler(body, THREAD_TOP, "(thread=True)")
        for name, (body, _) in THREADS.items()
    }
    return check_all(tmp_path_factory.mktemp("filters"), filters, STUBS)


def expected(text: str) -> str:
    kind = "" if text.startswith("ERROR ") else "warning: "
    return f"{kind}filter.mail_from: {text.removeprefix('ERROR ')}"


def without_place(problems: list[str]) -> list[str]:
    return [problem.split(":", 2)[2].strip() for problem in problems]


@pytest.mark.parametrize("name", TOLD)
def test_what_holds_up_all_sessions_is_told_with_what_to_do(name, said):
    assert without_place(said[f"told {name}"]) == [expected(TOLD[name][2])]


@pytest.mark.parametrize("name", SILENT)
def test_nothing_is_said_of_what_waits_in_its_greenlet(name, said):
    assert said[f"silent {name}"] == []


@pytest.mark.parametrize("name", THREADS)
def test_in_threads_only_what_fails_there_is_told(name, said):
    text = THREADS[name][1]
    wanted = [expected(text)] if text is not None else []
    assert without_place(said[f"thread {name}"]) == wanted


OTHER_MODULES = {
    "a function": ("helpers.look_up()", "import helpers", "def look_up(): sqlite3.connect('x')"),
    "taken from it": (
        "ask()",
        "from helpers import look_up as ask",
        "def look_up(): sqlite3.connect('x')",
    ),
    "all of it": ("look_up()", "from helpers import *", "def look_up(): sqlite3.connect('x')"),
    "in the handler": (
        "from helpers import look_up\nlook_up()",
        "",
        "def look_up(): sqlite3.connect('x')",
    ),
    "an object": ("helpers.DB.execute('x')", "import helpers", "DB = sqlite3.connect(':memory:')"),
    "a class": (
        "STORE.known()",
        "import helpers\nSTORE = helpers.Store()",
        "class Store:\n    def known(self): sqlite3.connect('x')",
    ),
    "a driver under another name": (
        "db.connect('x')",
        "from helpers import db",
        "db = sqlite3",
    ),
}


def test_modules_of_the_filter_are_followed(tmp_path):
    filters = {
        name: handler(body, top) + f"\n== helpers.py\nimport sqlite3\n{module}\n"
        for name, (body, top, module) in OTHER_MODULES.items()
    }
    said = check_all(tmp_path, filters, [])
    text = expected(f"sqlite3.connect {WAITS}")
    wanted = {name: ["helpers.py:2: " + text] for name in filters}
    wanted["an object"] = ["guard.py:7: " + text]
    wanted["a class"] = ["helpers.py:3: " + text]
    wanted["a driver under another name"] = ["guard.py:7: " + text]
    assert said == wanted


RINGS = {
    "a function that calls itself with more": handler(
        "walk(sqlite3)", "import sqlite3\ndef walk(x):\n    x.connect\n    return walk(x.y) or x"
    ),
    "functions that call one another": handler(
        "one(sender)",
        "import sqlite3\ndef one(x): return two(x) or two(x.a)\n"
        "def two(x): return one(x) or one(x.b) or sqlite3.connect('x')",
    ),
    "a variable that is made from itself": handler(
        "x = x + 1 if sender else x\nx.connect()\nURL.connect()",
        "from sqlalchemy import create_engine\nx = 1\ndef url():\n    text = ''\n"
        "    text = text + url()\n    return create_engine(text)\nURL = 1",
    ),
    "a class below itself": handler("A().x()", "class A: pass\nclass A(A): pass"),
    "modules that import one another": handler("look_up()", "from one import look_up")
    + "\n== one.py\nimport two\nfrom two import *\n\n== two.py\nimport one\nfrom one import *\n"
    "import sqlite3\ndef look_up(): sqlite3.connect('x')\n",
}


def test_what_goes_round_in_a_ring_comes_to_an_end(tmp_path):
    said = check_all(tmp_path, RINGS, STUBS)
    text = expected(f"sqlite3.connect {WAITS}")
    told = {name: [problem.partition(": ")[2] for problem in said[name]] for name in RINGS}
    wanted: dict[str, list[str]] = {name: [] for name in RINGS}
    wanted["functions that call one another"] = [text]
    wanted["modules that import one another"] = [text]
    assert told == wanted
