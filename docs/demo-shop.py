"""The shop of docs/demo: takes 2,000 orders, one transaction each, then deletes them all."""

import datetime
import random
import sqlite3
import sys
import time

database, note = sys.argv[1:]
shop = sqlite3.connect(database, timeout=5, isolation_level=None)
shop.execute("PRAGMA journal_mode=WAL")
shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER)")
for number in range(2000):
    customer = random.choice(["Ada", "Edgar", "Grace", "Donald"])
    shop.execute("INSERT INTO orders (customer, cents) VALUES (?, ?)", (customer, number * 7))
    time.sleep(0.001)

# Commit times are when a commit is first seen, which takes some milliseconds.
time.sleep(0.5)
with open(note, "w") as out:
    out.write(datetime.datetime.now(datetime.timezone.utc).isoformat())
time.sleep(0.5)
shop.execute("DELETE FROM orders")
print("the shop took 2,000 orders and deleted them all")
