"""The instance's storage in PostgreSQL: one setting, ``LEMMATA_POSTGRES=postgresql://USER:PASSWORD@HOST/DATABASE``.

SQLite serves one machine. The password stays in the environment: the instance's configuration names the variable, and
no message of ours repeats it.
"""

import importlib
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tracer.errors import LemmataError, UsageError
from tracer.store import home

SETTING = "LEMMATA_POSTGRES"
STORAGE = f"""\
storage:
  postgres:
    postgres_url:
      env: {SETTING}  # with its password, which is written nowhere
"""
PATIENCE = 10  # seconds to connect
PLAIN = ("postgresql://", "postgres://")
DRIVER = "postgresql+psycopg2://"  # the one that dagster-postgres installs; SQLAlchemy's own choice is another


def url() -> str:
    """What ``$LEMMATA_POSTGRES`` says, empty where SQLite is meant."""
    return os.environ.get(SETTING, "")


def name_driver() -> None:
    """Let the environment, and so every process that we start, say which driver is meant."""
    for plain in PLAIN:
        if url().startswith(plain):
            os.environ[SETTING] = DRIVER + url().removeprefix(plain)


def directory() -> Path:
    """The instance's directory beside that of SQLite: the two know nothing of each other's runs."""
    return home.dagster_home().with_name("dagster-postgres")


def check() -> None:
    """Find the database before Dagster does, whose message would be a hundred lines.

    Raises:
        UsageError: the extra is not installed, or the setting is no such URL.
        LemmataError: nobody answers there, or not to this user.
    """
    given = url().replace(DRIVER, PLAIN[0], 1)
    try:
        importlib.import_module("dagster_postgres")
        psycopg2 = importlib.import_module("psycopg2")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{SETTING}: expected the extra postgres, found no module named {error.name!r}. Install it: "
            f"pip install 'lemmata[postgres]', or unset {SETTING} to use SQLite."
        ) from None
    try:
        parts = urlsplit(given)
        place = f"{parts.hostname or 'a socket'}:{parts.port or 5432}{parts.path}"
        sound = given.startswith(PLAIN) and bool(parts.path.strip("/"))
    except ValueError:
        sound = False
    if not sound:  # the text may hold a password anywhere
        raise UsageError(
            f"{SETTING}: expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, found something else (not shown, for "
            "it may hold a password). Characters such as @ / : in a password are written %40 %2F %3A."
        )
    try:
        psycopg2.connect(given, connect_timeout=PATIENCE).close()
    except psycopg2.Error as error:
        found = str(error).strip() or type(error).__name__
        for secret in {parts.password or "", unquote(parts.password or "")} - {""}:
            found = found.replace(secret, "***")
        raise LemmataError(
            f"{SETTING}: expected the database {place}; found: {found}. Correct the URL, or create the user and the "
            f"database there; unset {SETTING} to use SQLite."
        ) from None
