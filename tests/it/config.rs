//! The configuration: where it is found, what it chooses, and what it says of itself.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Ended, Process, Sandbox, Sqlite, contents_of, files_below, wait_until, write,
};

/// Names the configuration.
const VARIABLE: &str = "GENESIS_REPLICATE_CONFIG";

/// A sandbox with its own database and another, and a configuration of both.
fn two_databases() -> Sandbox {
    let sandbox = Sandbox::with_database();
    let create = "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES('other');";
    open_other(&sandbox).run(create);
    configure(
        &sandbox,
        "wal_limit = '1MB'
         [[db]]\npath = 'app/app.db'\nreplica = '${ROOM}/replica'
         [[db]]\npath = 'app/other.db'\nreplica = 'other-replica'\nstate_dir = 'other-state'",
    );
    sandbox
}

fn open_other(sandbox: &Sandbox) -> crate::support::Application {
    crate::support::Application::open(Sqlite::Shell, &sandbox.path("app/other.db"))
}

fn configure(sandbox: &Sandbox, text: &str) {
    let mut file = File::create(sandbox.path("genesis-replicate.toml")).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A command that finds the configuration where it runs.
fn command(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = Process::command(arguments);
    let room = sandbox.replica.parent().unwrap();
    command.current_dir(room).env("ROOM", room).env_remove(VARIABLE);
    command
}

fn run(sandbox: &Sandbox, arguments: &[&str]) -> Ended {
    sandbox.start(&mut command(sandbox, arguments)).wait()
}

fn restored(sandbox: &Sandbox, db: &str, output: &str) -> String {
    run(sandbox, &["restore", "--db", db, "--output", output]).expect_code(0);
    contents_of(&sandbox.path(output))
}

#[test]
fn an_application_with_several_databases() {
    let sandbox = two_databases();
    let script = "for db in app other; do
                      sqlite3 app/$db.db \"INSERT INTO t VALUES('to $db')\"
                  done; exit 3";
    let ended = run(&sandbox, &["exec", "--", "sh", "-c", script]).expect_code(3);
    // The log tells one from the other.
    ended.expect_words(&["app/app.db\"}: followed", "app/other.db\"}: everything committed"]);
    assert!(restored(&sandbox, "app/app.db", "out/a").contains("to app"));
    assert!(restored(&sandbox, "other.db", "out/b").contains("to other"));
    assert!(sandbox.path("other-state").is_dir() && sandbox.state().is_dir());
    assert!(!sandbox.path("app/.other.db-genesis").exists());

    let listed = run(&sandbox, &["list", "--db", "other.db", "--json"]).expect_code(0);
    let listing: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listing["generations"][0]["windows"][0]["last_txid"], 2);

    let emptied = run(&sandbox, &["checkpoint", "--truncate"]).expect_code(0);
    assert_eq!(emptied.stdout.matches("is empty").count(), 2, "{emptied:?}");
    let emptied = run(&sandbox, &["checkpoint", "--truncate", "--db", "other.db"]).expect_code(0);
    assert!(emptied.stdout.contains("app/other.db is empty"), "{emptied:?}");
    run(&sandbox, &["checkpoint", "--truncate", "--db", "none.db"])
        .expect_code(2)
        .expect_words(&["none.db", "app/app.db"]);
}

#[test]
fn one_of_several_databases() {
    let sandbox = two_databases();
    run(&sandbox, &["exec", "--db", "app/app.db", "--", "true"]).expect_code(0);
    assert!(sandbox.replica.exists() && !sandbox.path("other-replica").exists());

    // What the command line says wins.
    let elsewhere = ["--db", "app/other.db", "--replica", "elsewhere", "--state-dir", "there"];
    run(&sandbox, &[&["exec"], &elsewhere[..], &["--", "true"]].concat()).expect_code(0);
    assert!(!sandbox.path("other-replica").exists() && !sandbox.path("other-state").exists());
    assert!(sandbox.path("elsewhere/genesis.json").exists() && sandbox.path("there").exists());

    let unknown = run(&sandbox, &["exec", "--db", "none.db", "--", "true"]).expect_code(2);
    unknown.expect_words(&["none.db", "app/app.db", "app/other.db"]);
    let both = ["exec", "--state-dir", "x", "--", "true"];
    run(&sandbox, &both).expect_code(2).expect_words(&["--state-dir", "--db"]);
}

/// Where one cannot be followed nothing starts. What the others had is shipped and left to whoever wants it.
#[test]
fn one_of_several_that_cannot_be_followed() {
    let sandbox = two_databases();
    open_other(&sandbox).run("PRAGMA journal_mode=DELETE;");
    for arguments in [&["replicate"][..], &["exec", "--", "touch", "started"]] {
        let refused = run(&sandbox, arguments).expect_code(3);
        refused.expect_words(&[
            "other.db is not in WAL mode",
            "ending the others",
            "app/app.db\"}: everything committed is in the replica",
        ]);
        assert!(!sandbox.path("started").exists());
    }
    assert!(restored(&sandbox, "app.db", "out/a").contains("first"));
}

/// Each has its own fate while they run; the exit code tells of the worst.
#[test]
fn a_database_that_goes_away_while_another_stays() {
    let sandbox = two_databases();
    let mut process = sandbox.start(&mut command(&sandbox, &["replicate"]));
    wait_until("both are followed", || {
        (process.log().matches("followed: what is").count() == 2).then_some(())
    });
    wait_until("both are in their replicas", || {
        let folders = [sandbox.replica.clone(), sandbox.path("other-replica")];
        let has = |folder: &Path| files_below(folder).iter().any(|f| f.ends_with(".manifest"));
        folders.iter().all(|folder| has(folder)).then_some(())
    });
    std::fs::remove_file(sandbox.path("app/other.db")).unwrap();
    process.wait_for_log("NOT protected any more; the others are");
    sandbox.application(Sqlite::Shell).run("INSERT INTO t VALUES('still there');");
    process.signal(Signal::TERM);
    let ended = process.wait().expect_code(75);
    let told = ended.stderr.lines().find(|line| line.starts_with("genesis-replicate: "));
    assert!(told.unwrap().contains("app/other.db: "), "{}", ended.stderr);
    assert!(restored(&sandbox, "app.db", "out/a").contains("still there"));
}

#[test]
fn where_it_is_found() {
    let sandbox = two_databases();
    let elsewhere = sandbox.path("elsewhere.toml");
    let db = "[[db]]\npath = 'x.db'\nreplica = 'r'";
    write(&elsewhere, db);
    let shown = |named: Option<&str>, variable: &str| {
        let named = named.map_or(vec![], |file| vec!["--config", file]);
        let mut command = command(&sandbox, &[&["config", "show"], &named[..]].concat());
        sandbox.start(command.env(VARIABLE, variable)).wait()
    };
    let first_line = |ended: Ended| ended.expect_code(0).stdout.lines().next().unwrap().to_owned();
    let (here, there) = (sandbox.path("genesis-replicate.toml"), elsewhere.to_str().unwrap());
    assert_eq!(first_line(shown(None, "")), format!("# {}", here.display()));
    assert_eq!(first_line(shown(None, there)), format!("# {there}"));
    assert_eq!(first_line(shown(Some("elsewhere.toml"), "none")), format!("# {there}"));
    shown(Some("none.toml"), there).expect_code(2).expect_words(&["none.toml"]);
    shown(None, "none.toml").expect_code(2).expect_words(&["none.toml"]);

    std::fs::remove_file(here).unwrap();
    shown(None, "").expect_code(2).expect_words(&["no configuration", VARIABLE]);
    run(&sandbox, &["replicate"]).expect_code(2).expect_words(&["--db and --replica"]);
    run(&sandbox, &["replicate", "--db", "x"]).expect_code(2).expect_words(&["--replica"]);
}

/// What is shown says the same, and says all of it.
#[test]
fn what_is_shown_is_a_configuration() {
    let sandbox = two_databases();
    let shown = run(&sandbox, &["config", "show"]).expect_code(0).stdout;
    for expected in ["wal_limit = \"1MB\"", "sync_interval = \"80ms\"", "set_wal = false"] {
        assert_eq!(shown.matches(expected).count(), 2, "{shown}");
    }
    let state = format!("state_dir = {:?}", sandbox.path("other-state").display().to_string());
    assert!(shown.contains(&state), "{shown}");
    configure(&sandbox, &shown);
    assert_eq!(run(&sandbox, &["config", "show"]).expect_code(0).stdout, shown);

    let json = run(&sandbox, &["config", "show", "--json"]).expect_code(0).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["shutdown_timeout"], &json["db"][1]["wal_limit"]),
        (&"30s".into(), &"1MB".into())
    );
    for key in json["db"][0].as_object().unwrap().keys() {
        assert_eq!(shown.matches(&format!("\n{key} = ")).count(), 2, "{key}");
    }
}

#[test]
fn what_cannot_work_is_found_before() {
    let sandbox = two_databases();
    let checked = run(&sandbox, &["config", "check"]).expect_code(0).stdout;
    assert!(checked.contains(&format!("app/app.db -> {}", sandbox.replica.display())), "{checked}");
    File::create(sandbox.path("file")).unwrap();
    configure(
        &sandbox,
        "[[db]]\npath = 'nowhere/app.db'\nreplica = 'replica'
         [[db]]\npath = 'app'\nreplica = 'file/replica'
         [[db]]\npath = 'app/later.db'\nreplica = 'later'
         [[db]]\npath = 'app/other.db'\nreplica = 'app/.other.db-genesis/replica'",
    );
    open_other(&sandbox).run("PRAGMA journal_mode=DELETE;");
    let checked = run(&sandbox, &["config", "check"]).expect_code(2).expect_words(&["5 problems"]);
    for problem in [
        "no folder",
        "it is a folder",
        "file is not a folder",
        "it is waited for",
        "it is not in WAL mode",
        "within the folder of local state",
    ] {
        assert!(checked.stdout.contains(problem), "{problem}: {}", checked.stdout);
    }
    configure(&sandbox, "[[db]]\npath = 'a'\n  replika = 'b'");
    let refused = run(&sandbox, &["config", "check"]).expect_code(2);
    refused.expect_words(&["genesis-replicate.toml:3:3: ", "`replika`", "`replica`?"]);
}
