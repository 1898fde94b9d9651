"""One process of a storm: writers that move money, hostile checkpointers, and everything that makes a
WAL hard to follow. Whoever meets a lock goes on with something else.
"""

import random
import sqlite3
import sys
import time

path, role, seed = sys.argv[1:]
rng = random.Random(int(seed))
connection = sqlite3.connect(path, isolation_level=None, timeout=60)
connection.execute("PRAGMA synchronous=NORMAL")
connection.execute("PRAGMA cache_size=10")
connection.execute("PRAGMA wal_autocheckpoint=%d" % rng.choice([0, 50, 1000]))
connection.execute("PRAGMA busy_timeout=2000")
reader = sqlite3.connect(path, isolation_level=None, timeout=2)


def transfer():
    one, other, cents = rng.randrange(500), rng.randrange(500), rng.randrange(100)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE account SET cents = cents - ? WHERE id = ?", (cents, one))
    connection.execute("UPDATE account SET cents = cents + ? WHERE id = ?", (cents, other))
    connection.execute("INSERT INTO entry(note) VALUES (?)", (rng.randbytes(rng.randrange(300)),))
    connection.execute("COMMIT")


def checkpoint():
    connection.execute("PRAGMA busy_timeout=%d" % rng.choice([0, 20, 200]))
    mode = rng.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
    connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
    connection.execute("PRAGMA busy_timeout=2000")


def spill():
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE account SET cents = cents")
    connection.executemany(
        "INSERT INTO entry(note) VALUES (?)", ((rng.randbytes(2000),) for _ in range(100))
    )
    connection.execute(rng.choice(["ROLLBACK", "COMMIT"]))


def shrink():
    connection.execute("DELETE FROM entry WHERE id % 3 = ?", (rng.randrange(3),))
    connection.execute(rng.choice(["VACUUM", "PRAGMA incremental_vacuum(20)"]))


def read_for_long():
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entry").fetchone()
    time.sleep(rng.random() * 0.05)
    reader.execute("COMMIT")


deeds = {
    "writer": [transfer],
    "checkpointer": [checkpoint],
    "chaos": [checkpoint, spill, read_for_long, transfer, shrink],
}[role]
while True:
    try:
        rng.choice(deeds)()
    except sqlite3.OperationalError:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if reader.in_transaction:
            reader.execute("ROLLBACK")
    time.sleep(rng.random() * 0.004)
