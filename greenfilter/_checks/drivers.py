"""Which library for its database a thing uses that hides it behind a URL, as SQLAlchemy does."""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Callable
from typing import Any

from .blocking import cause

_ENGINES = frozenset(
    f"{module}.{name}"
    for module, names in {
        "sqlalchemy": ("create_engine", "engine.create_engine", "engine.create.create_engine"),
        "sqlmodel": ("create_engine",),
        "dataset": ("connect",),
        "records": ("Database",),
    }.items()
    for name in names
)
# By what follows the "+" in a URL, which is what an engine calls its driver.
_DRIVERS = {
    "psycopg2": "psycopg2",
    "psycopg2cffi": "psycopg2cffi",
    "mysqldb": "MySQLdb",
    "mysqlconnector": "mysql.connector",
    "mariadbconnector": "mariadb",
    "pyodbc": "pyodbc",
    "pysqlite": "sqlite3",
    "pysqlcipher": "sqlite3",
    "cx_oracle": "cx_Oracle",
    "oracledb": "oracledb",
    "pymssql": "pymssql",
    "ibm_db": "ibm_db",
    "duckdb": "duckdb",
    "duckdb_engine": "duckdb",
    "fdb": "fdb",
}
# By what a URL begins with where it names no driver.
_DEFAULTS = {
    "postgresql": "psycopg2",
    "postgres": "psycopg2",
    "cockroachdb": "psycopg2",
    "redshift": "psycopg2",
    "mysql": "mysqldb",
    "mariadb": "mysqldb",
    "sqlite": "pysqlite",
    "oracle": "cx_oracle",
    "mssql": "pyodbc",
    "access": "pyodbc",
    "db2": "ibm_db",
    "ibm_db_sa": "ibm_db",
    "duckdb": "duckdb",
    "firebird": "fdb",
}
# Since SQLAlchemy 2.1 these are others.
_NEW_DEFAULTS = {"postgresql": "psycopg", "oracle": "oracledb"}
# They wrap what they are given: what is called on them is called on that.
_WRAPPERS = ("closing", "sessionmaker", "scoped_session", "read_sql", "read_sql_query")


def makes_engine(path: str) -> bool:
    """Whether a function takes the URL of a database."""
    return path in _ENGINES


def driver_of_url(call: ast.Call, text: Callable[[ast.AST], str]) -> str:
    """Give the module that waits for the database; "" if it cannot be seen.

    Args:
        call: of a function that makes an engine.
        text: gives what can be seen of a text.
    """
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    if "creator" in named or "module" in named:
        return ""
    url = call.args[0] if call.args else named.get("url")
    scheme = text(url).partition(":")[0].lower() if url is not None else ""
    dialect, _, driver = scheme.partition("+")
    if not driver and dialect in _NEW_DEFAULTS and _is_new():
        driver = _NEW_DEFAULTS[dialect]
    return _DRIVERS.get(driver or _DEFAULTS.get(dialect, ""), "")


def driver_of_engine(thing: Any) -> str:
    """Give the same of an engine of SQLAlchemy, or what is bound to one; "" for other things."""
    if not type(thing).__module__.startswith(("sqlalchemy.", "sqlmodel.")):
        return ""
    options = getattr(thing, "kw", None)
    thing = (options.get("bind") if isinstance(options, dict) else None) or thing
    thing = getattr(thing, "bind", None) or thing
    return _DRIVERS.get(getattr(getattr(thing, "dialect", None), "driver", ""), "")


def passes_on(path: str, given: str) -> bool:
    """Whether what ``path`` makes from something that blocks blocks as well."""
    name = path.rpartition(".")[2]
    return (name in _WRAPPERS or name[:1].isupper()) and cause(given) is not None


def _is_new() -> bool:
    try:
        version = importlib.metadata.version("sqlalchemy")
    except importlib.metadata.PackageNotFoundError:
        return False
    return [int(word) for word in version.split(".")[:2] if word.isdigit()] >= [2, 1]
