"""Runs transaction after transaction, and writes the number of each acknowledged one to a ledger.

A killed process takes nothing with it that it wrote, so the ledger need not be synced.
"""

import os
import random
import signal
import sqlite3
import sys
import time

path, ledger_path, steps, seed = sys.argv[1:]
steps = [step for step in steps.split(";")]
rng = random.Random(int(seed))
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
connection = sqlite3.connect(path, isolation_level=None, timeout=10)
connection.execute("PRAGMA cache_size=5")
connection.execute("PRAGMA synchronous=NORMAL")
ledger = os.open(ledger_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
n = connection.execute("SELECT n FROM progress").fetchone()[0]
while not stopping:
    n += 1
    connection.execute("BEGIN IMMEDIATE")
    for step in steps:
        connection.execute(step, {"n": n})
    connection.execute("COMMIT")
    os.write(ledger, n.to_bytes(8, "little"))
    if rng.random() < 0.02:
        # Without patience: whoever reads keeps a checkpoint from ending.
        connection.execute("PRAGMA busy_timeout=10")
        mode = rng.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        connection.execute("PRAGMA busy_timeout=10000")
    time.sleep(rng.random() * 0.003)
connection.close()
