"""An application that commits at its own pace, reads its writes again, and tells how it fared."""

import json
import sqlite3
import sys
import time

path, settings = sys.argv[1], json.loads(sys.argv[2])
connection = sqlite3.connect(path, isolation_level=None, timeout=settings["patience"])
for pragma in settings["pragmas"]:
    connection.execute(f"PRAGMA {pragma}").fetchall()
connection.execute("CREATE TABLE IF NOT EXISTS mine(n INTEGER PRIMARY KEY, who TEXT, pad TEXT)")
done = busy = 0
times = []
while done < settings["commits"]:
    begun = time.perf_counter()
    try:
        row = (settings["who"], "x" * 200)
        connection.execute("INSERT INTO mine(who, pad) VALUES (?, ?)", row)
        done += 1
        if done % 50 == 0:
            count = "SELECT count(*) FROM mine WHERE who = ?"
            found = connection.execute(count, (settings["who"],)).fetchone()[0]
            assert found == done, f"{found} rows instead of {done}"
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        busy += 1
    times.append(time.perf_counter() - begun)
    time.sleep(settings["pause"])
connection.close()
print(json.dumps({"busy": busy, "longest": max(times)}))
