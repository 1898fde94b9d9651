//! What a database holds, as text, and whether two are the same.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

/// The schema and every row of every table.
pub fn contents(connection: &Connection) -> String {
    let mut text = String::new();
    let schema = "SELECT type, name, coalesce(sql, '') FROM sqlite_schema ORDER BY rowid";
    let mut tables = Vec::new();
    let mut statement = connection.prepare(schema).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (kind, name): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        writeln!(text, "{kind} {name}: {}", row.get::<_, String>(2).unwrap()).unwrap();
        if kind == "table" {
            tables.push(name);
        }
    }
    for table in tables {
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            write!(text, "{table}").unwrap();
            for column in 0..columns {
                match row.get_ref(column).unwrap() {
                    ValueRef::Text(value) => write!(text, " '{}'", String::from_utf8_lossy(value)),
                    other => write!(text, " {other:?}"),
                }
                .unwrap();
            }
            text.push('\n');
        }
    }
    text
}

/// The contents of a restored database, which must be sound.
#[track_caller]
pub fn contents_of(path: &Path) -> String {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    // Nothing is left beside the file, and a WAL beside it would not be read.
    let uri = format!("file:{}?immutable=1", path.display());
    let connection = Connection::open_with_flags(uri, flags).unwrap();
    let check = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    assert_eq!(connection.query_row("PRAGMA integrity_check", [], check).unwrap(), "ok");
    contents(&connection)
}

/// How many rows the table `t` has.
pub fn rows(connection: &Connection) -> u64 {
    let count = connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    count.unwrap().cast_unsigned()
}

/// How many frames the WAL has.
pub fn wal_frames(connection: &Connection) -> u64 {
    let row = |row: &rusqlite::Row<'_>| row.get::<_, i64>(1);
    let frames = connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], row);
    frames.unwrap().cast_unsigned()
}

/// How many rows the table `t` of a restored database has.
pub fn rows_of(path: &Path) -> u64 {
    rows(&Connection::open(path).unwrap())
}

/// Compares long texts without printing all of them.
#[track_caller]
pub fn assert_same(found: &str, expected: &str, what: &str) {
    if found != expected {
        let line = |(n, (f, e)): (usize, (&str, &str))| {
            let cut = |text: &str| text.chars().take(200).collect::<String>();
            (f != e).then(|| format!("line {n}: {}\nis not: {}", cut(f), cut(e)))
        };
        let first = found.lines().zip(expected.lines()).enumerate().find_map(line);
        let lengths = format!("{} bytes instead of {}", found.len(), expected.len());
        panic!("{what}: {}", first.unwrap_or(lengths));
    }
}

/// Whether two files hold the same bytes. They are read by a process of its own: to close a file of
/// a database here would drop the locks of every connection in this process.
pub fn same_bytes(one: &Path, other: &Path) -> bool {
    Command::new("cmp").arg("--quiet").args([one, other]).status().unwrap().success()
}
