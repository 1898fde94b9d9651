#!/usr/bin/env python3
"""Writes the golden files of one SQLite version, with that SQLite.

    make.py <shared library of SQLite>

The library is a distribution's `libsqlite3.so.0`, or one built from the `sqlite3.c` that the crate
libsqlite3-sys bundles: `cc -O1 -shared -fPIC -o libsqlite3.so sqlite3.c -ldl -lpthread -lm`.

For each scenario, under `<version>/<page size>-<scenario>`:

    .wal   the WAL, copied while the connection that wrote it was open
    .shm   the first 136 bytes of the wal-index, copied at the same moment
    .txt   what must be found in them, as SQLite and this script know it

    max_frame <n>       as a checkpoint reported it afterwards
    change <n>          commits that this script made
    commit <n>          one line per commit into this life of the WAL: PRAGMA page_count after it
    page <n> <crc-32>   one line per page of the database file, after that checkpoint

Before it ends, the script rewrites each WAL as a big-endian machine would have written it, and
checks that SQLite recovers the same database from it.
"""

import ctypes
import pathlib
import struct
import sys
import tempfile
import zlib

HERE = pathlib.Path(__file__).parent
INDEX_LEN = 136
ROW = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_char_p),
    ctypes.POINTER(ctypes.c_char_p),
)


class Connection:
    """A connection through the C interface of the given library."""

    def __init__(self, sqlite, path):
        self.sqlite = sqlite
        self.path = path
        self.handle = ctypes.c_void_p()
        self.check(sqlite.sqlite3_open(str(path).encode(), ctypes.byref(self.handle)))

    def check(self, code):
        if code != 0:
            self.sqlite.sqlite3_errmsg.restype = ctypes.c_char_p
            raise RuntimeError(self.sqlite.sqlite3_errmsg(self.handle).decode())

    def run(self, sql):
        rows = []

        def row(_context, columns, values, _names):
            rows.append([values[i].decode() for i in range(columns)])
            return 0

        self.check(self.sqlite.sqlite3_exec(self.handle, sql.encode(), ROW(row), None, None))
        return rows

    def number(self, sql):
        return int(self.run(sql)[0][0])

    def close(self):
        self.check(self.sqlite.sqlite3_close(self.handle))


class Application(Connection):
    """A connection that keeps the record of what it did."""

    def __init__(self, sqlite, path, page_size):
        super().__init__(sqlite, path)
        self.page_size = page_size
        self.change = 0
        self.commits = []
        self.run(f"PRAGMA page_size={page_size}")

    def begin_wal(self):
        self.run("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0")

    def commit(self, sql):
        self.run(f"BEGIN; {sql}; COMMIT")
        self.change += 1
        self.commits.append(self.number("PRAGMA page_count"))

    def roll_back(self, sql):
        self.run(f"BEGIN; {sql}; ROLLBACK")

    def restart_wal(self):
        assert self.run("PRAGMA wal_checkpoint(RESTART)")[0][0] == "0"
        self.commits = []

    def insert(self, rows, pages_each=0.75):
        """SQL that inserts `rows` rows, each of them this share of a page."""
        length = int(self.page_size * pages_each)
        values = ", ".join(f"(zeroblob({length - 8}) || 'row {n:4}')" for n in range(rows))
        return f"INSERT INTO t(b) VALUES {values}"


def commits(app):
    """Commits of one page and of many, one of which spilled while it was open."""
    app.begin_wal()
    app.commit("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    app.commit(app.insert(1))
    app.commit(app.insert(5))
    app.run("PRAGMA cache_size=2; PRAGMA cache_spill=1")
    app.commit(f"{app.insert(4)}; UPDATE t SET b = b || 'x'")
    app.commit("UPDATE t SET b = 'short' WHERE a = 1")


def rollback(app):
    """Behind mxFrame stand frames of a rolled-back transaction, with the salts of this WAL."""
    app.begin_wal()
    app.commit("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    app.commit(app.insert(4))
    app.run("PRAGMA cache_size=2; PRAGMA cache_spill=1")
    app.roll_back("UPDATE t SET b = zeroblob(length(CAST(b AS BLOB)))")


def restart(app):
    """Behind mxFrame stand frames of the WAL's life before, with other salts."""
    app.begin_wal()
    app.commit("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    app.commit(app.insert(1, pages_each=0.2))
    app.commit(app.insert(1, pages_each=0.2))
    app.restart_wal()
    app.commit("UPDATE t SET b = 'one' WHERE a = 1")
    app.commit("UPDATE t SET b = 'two' WHERE a = 2")


def shrink(app):
    """The database gets smaller, by a transaction that had spilled pages it cuts off."""
    app.run("PRAGMA auto_vacuum=FULL")
    app.begin_wal()
    app.commit("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    app.commit(app.insert(6))
    app.run("PRAGMA cache_size=2; PRAGMA cache_spill=1")
    app.commit("UPDATE t SET b = b || 'x'; DELETE FROM t WHERE a > 2")
    assert app.commits[-1] < app.commits[-2]


SCENARIOS = {
    512: [commits, rollback, restart, shrink],
    4096: [commits, rollback, restart, shrink],
    65536: [restart],
}


def beside(path, suffix):
    return path.with_name(path.name + suffix)


def write(sqlite, folder, target, page_size, scenario):
    """Plays one scenario and writes its three files."""
    app = Application(sqlite, folder / "app.db", page_size)
    scenario(app)
    wal = beside(app.path, "-wal").read_bytes()
    shm = beside(app.path, "-shm").read_bytes()[:INDEX_LEN]
    recovered = recover_big_endian(sqlite, folder / "big.db", app, wal)
    _, max_frame, backfilled = app.run("PRAGMA wal_checkpoint(PASSIVE)")[0]
    assert max_frame == backfilled == recovered
    database = app.path.read_bytes()
    app.close()
    lines = [f"max_frame {max_frame}", f"change {app.change}"]
    lines += [f"commit {pages}" for pages in app.commits]
    for at in range(0, len(database), page_size):
        crc = zlib.crc32(database[at : at + page_size])
        lines.append(f"page {at // page_size + 1} {crc:08x}")
    stem = target / f"{page_size}-{scenario.__name__}"
    stem.with_suffix(".wal").write_bytes(wal)
    stem.with_suffix(".shm").write_bytes(shm)
    stem.with_suffix(".txt").write_text("\n".join(lines) + "\n")


def recover_big_endian(sqlite, path, app, wal):
    """Lets SQLite recover a big-endian copy of the WAL, compares what it reads with what `app`
    reads, and returns how many frames it recovered."""
    path.write_bytes(app.path.read_bytes())
    beside(path, "-wal").write_bytes(big_endian(wal, app.page_size))
    other = Connection(sqlite, path)
    for sql in ("SELECT a, hex(b) FROM t", "PRAGMA page_count", "PRAGMA integrity_check"):
        assert other.run(sql) == app.run(sql), sql
    frames = other.run("PRAGMA wal_checkpoint(PASSIVE)")[0][1]
    other.close()
    return frames


def big_endian(wal, page_size):
    """The WAL with the big-endian magic and checksums, as far as its salts go."""
    head = struct.pack(">I", 0x377F0683) + wal[4:24]
    sums = checksum((0, 0), head)
    out = head + struct.pack(">II", *sums)
    for at in range(32, len(wal), page_size + 24):
        frame = wal[at : at + page_size + 24]
        if frame[8:16] != wal[16:24]:
            break
        sums = checksum(checksum(sums, frame[:8]), frame[24:])
        out += frame[:16] + struct.pack(">II", *sums) + frame[24:]
    return out


def checksum(sums, data):
    first, second = sums
    words = struct.unpack(f">{len(data) // 4}I", data)
    for x, y in zip(words[::2], words[1::2]):
        first = (first + x + second) & 0xFFFFFFFF
        second = (second + y + first) & 0xFFFFFFFF
    return first, second


def main():
    sqlite = ctypes.CDLL(sys.argv[1])
    sqlite.sqlite3_libversion.restype = ctypes.c_char_p
    target = HERE / sqlite.sqlite3_libversion().decode()
    target.mkdir(exist_ok=True)
    for page_size, scenarios in SCENARIOS.items():
        for scenario in scenarios:
            with tempfile.TemporaryDirectory() as folder:
                write(sqlite, pathlib.Path(folder), target, page_size, scenario)


if __name__ == "__main__":
    main()
