"""One process whose threads write and checkpoint at once, each on a connection of its own."""

import json
import sqlite3
import sys
import threading
import time

path, commits = sys.argv[1], int(sys.argv[2])
longest = []
writing = [True]


def connect(patience):
    return sqlite3.connect(path, isolation_level=None, timeout=patience)


def write(number):
    connection = connect(10)
    slowest = 0
    for n in range(commits):
        begun = time.perf_counter()
        connection.execute("INSERT INTO t VALUES (?)", (f"thread {number}, {n}: " + "x" * 200,))
        slowest = max(slowest, time.perf_counter() - begun)
        time.sleep(0.0005)
    longest.append(slowest)


def checkpoint(number):
    connection = connect(0)
    n = 0
    while writing:
        n += 1
        mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][(n + number) % 4]
        connection.execute("PRAGMA busy_timeout=%d" % [0, 5, 300][n % 3])
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        time.sleep(0.003)


def start(deed, count):
    threads = [threading.Thread(target=deed, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    return threads


checkpointers = start(checkpoint, 2)
for thread in start(write, 3):
    thread.join()
writing.clear()
for thread in checkpointers:
    thread.join()
assert len(longest) == 3, "a writer failed"
print(json.dumps({"busy": 0, "longest": max(longest)}))
