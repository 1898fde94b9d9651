# The application where there is no C compiler with SQLite's headers: writer.c says what it does.
import array, os, signal, sqlite3, sys, time

SECOND, ACCOUNTS, LOOK_AT_WAL = 1_000_000_000, 20_000, 512
path, command, *rest = sys.argv[1:]
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
db = sqlite3.connect(path, isolation_level=None, timeout=5)
state = 0x9E3779B97F4A7C15


def transact():
    global state
    mask = (1 << 64) - 1
    state = (state ^ state << 13) & mask
    state ^= state >> 7
    state = (state ^ state << 17) & mask
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO log(v) VALUES (?)", (bytes(100),))
        account = state % ACCOUNTS + 1
        db.execute("UPDATE account SET balance = balance + 1 WHERE id = ?", (account,))
        db.execute("COMMIT")
        return True
    except sqlite3.OperationalError:
        if db.in_transaction:
            db.execute("ROLLBACK")
        return False


def wal_size():
    try:
        return os.stat(path + "-wal").st_size
    except FileNotFoundError:
        return 0


def run(out, seconds, rate):
    commits, errors, wal, tries = array.array("Q"), 0, 0, 0
    started = time.monotonic_ns()
    while not stop:
        due = started + tries * SECOND // rate if rate else time.monotonic_ns()
        if due >= started + seconds * SECOND:
            break
        wait = due - time.monotonic_ns()
        if rate and wait > 0:
            time.sleep(wait / SECOND)
        begun = time.monotonic_ns()
        if begun >= started + 2 * seconds * SECOND:
            break
        if transact():
            commits.extend((due, begun, time.monotonic_ns()))
        else:
            errors += 1
        tries += 1
        if tries % LOOK_AT_WAL == 0:
            wal = max(wal, wal_size())
    wal = max(wal, wal_size())
    with open(out, "wb") as file:
        array.array("Q", (len(commits) // 3, errors, wal, 0)).tofile(file)
        commits.tofile(file)


if command == "init":
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE log(id INTEGER PRIMARY KEY, v BLOB)")
    db.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, pad BLOB)")
    db.execute("BEGIN")
    rows = ((n, os.urandom(60)) for n in range(1, ACCOUNTS + 1))
    db.executemany("INSERT INTO account VALUES (?, 0, ?)", rows)
    db.execute("COMMIT")
else:
    db.execute("PRAGMA synchronous = " + (rest[3] if command == "run" else "NORMAL"))
    if command == "run":
        run(rest[0], int(rest[1]), int(rest[2]))
    elif not transact():
        sys.exit("the commit failed")
db.close()
