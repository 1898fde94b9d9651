/* The application: one connection of the system's SQLite that commits small transactions and notes
 * when each began and ended.
 *
 *     writer DB init                           a database with 20,000 accounts
 *     writer DB run OUT SECONDS RATE SYNC      commits for so long; RATE 0 is as fast as it goes
 *     writer DB once                           one commit
 *
 * `run` ends early at SIGTERM. OUT: four u64 {commits, errors, largest WAL, 0}, then for each commit
 * three u64 {due, begun, ended}, in nanoseconds of CLOCK_MONOTONIC. Paced, the commits are due on an
 * absolute schedule: what is late is made up for. Automatic checkpoints are left as they are. */
#include <signal.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>

#define ACCOUNTS 20000
#define SECOND 1000000000ull
#define LOOK_AT_WAL 512

static volatile sig_atomic_t told_to_stop;
static sqlite3 *db;

struct commit {
    uint64_t due, begun, ended;
};

static void on_term(int signal) {
    (void)signal;
    told_to_stop = 1;
}

static void must(int result, const char *what) {
    if (result == SQLITE_OK) return;
    fprintf(stderr, "%s: %s\n", what, db ? sqlite3_errmsg(db) : "no memory");
    exit(1);
}

static void run_sql(const char *sql) {
    must(sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

static sqlite3_stmt *prepare(const char *sql) {
    sqlite3_stmt *statement;
    must(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), sql);
    return statement;
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static void sleep_until(uint64_t due) {
    struct timespec time = {due / SECOND, due % SECOND};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

static uint64_t wal_size(const char *path) {
    char wal[4096];
    struct stat found;
    snprintf(wal, sizeof wal, "%s-wal", path);
    return stat(wal, &found) == 0 ? found.st_size : 0;
}

static sqlite3_stmt *begin, *insert, *update, *commit;

static void prepare_all(void) {
    begin = prepare("BEGIN IMMEDIATE");
    insert = prepare("INSERT INTO log(v) VALUES (?1)");
    update = prepare("UPDATE account SET balance = balance + 1 WHERE id = ?1");
    commit = prepare("COMMIT");
    static const char text[100] = "a row of the log";
    sqlite3_bind_blob(insert, 1, text, sizeof text, SQLITE_STATIC);
}

static int step(sqlite3_stmt *statement) {
    int result = sqlite3_step(statement);
    sqlite3_reset(statement);
    return result == SQLITE_DONE;
}

/* A row into the log, and a change of a random account. */
static int transact(void) {
    static uint64_t random = 0x9E3779B97F4A7C15ull;
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    sqlite3_bind_int64(update, 1, random % ACCOUNTS + 1);
    if (step(begin) && step(insert) && step(update) && step(commit)) return 1;
    if (!sqlite3_get_autocommit(db)) run_sql("ROLLBACK");
    return 0;
}

static void init(void) {
    char fill[256];
    run_sql("PRAGMA journal_mode = WAL");
    run_sql("CREATE TABLE log(id INTEGER PRIMARY KEY, v BLOB);"
            "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, pad BLOB)");
    snprintf(fill, sizeof fill,
             "INSERT INTO account WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c "
             "WHERE x < %d) SELECT x, 0, randomblob(60) FROM c", ACCOUNTS);
    run_sql(fill);
}

static void run(const char *path, const char *out, uint64_t seconds, uint64_t rate) {
    uint64_t room = seconds * (rate ? rate : 200000) + 1;
    struct commit *commits = malloc(room * sizeof *commits);
    FILE *file = fopen(out, "wb");
    if (!commits || !file) must(SQLITE_NOMEM, "out");
    uint64_t head[4] = {0}, started = now(), tries = 0;
    while (!told_to_stop && head[0] < room) {
        uint64_t due = rate ? started + tries * SECOND / rate : now();
        if (due >= started + seconds * SECOND) break;
        if (rate) sleep_until(due);
        if (told_to_stop) break;
        uint64_t begun = now();
        if (begun >= started + 2 * seconds * SECOND) break;
        if (transact())
            commits[head[0]++] = (struct commit){due, begun, now()};
        else
            head[1]++;
        if (++tries % LOOK_AT_WAL == 0 && wal_size(path) > head[2]) head[2] = wal_size(path);
    }
    if (wal_size(path) > head[2]) head[2] = wal_size(path);
    fwrite(head, sizeof head, 1, file);
    fwrite(commits, sizeof *commits, head[0], file);
    if (fclose(file)) must(SQLITE_FULL, "out");
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    signal(SIGTERM, on_term);
    prctl(PR_SET_TIMERSLACK, 1);
    must(sqlite3_open(argv[1], &db), "open");
    sqlite3_busy_timeout(db, 5000);
    if (strcmp(argv[2], "init") == 0) {
        init();
    } else {
        prepare_all();
        char sync[64];
        snprintf(sync, sizeof sync, "PRAGMA synchronous = %s", argc == 7 ? argv[6] : "NORMAL");
        run_sql(sync);
        if (argc == 7)
            run(argv[1], argv[3], strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
        else if (!transact())
            must(SQLITE_BUSY, "commit");
    }
    sqlite3_stmt *all[] = {begin, insert, update, commit};
    for (int i = 0; i < 4; i++) sqlite3_finalize(all[i]);
    return sqlite3_close(db) == SQLITE_OK ? 0 : 1;
}
