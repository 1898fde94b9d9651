//! `check`: what is said of a place, and with what exit code.

use std::fs::File;

use serde_json::Value;

use crate::support::{Ended, Fault, Proxy, Sandbox, Server};

fn check(sandbox: &Sandbox, more: &[&str]) -> Ended {
    let mut arguments = vec!["check", sandbox.replica.to_str().unwrap()];
    arguments.extend(more);
    sandbox.run(&arguments)
}

/// Outcome and words about something.
fn finding(said: &Ended, about: &str) -> (String, String) {
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["about"] == about);
    let found = found.unwrap_or_else(|| panic!("nothing about {about}: {}", said.stdout));
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    (text("outcome"), text("words"))
}

/// Nothing but one outcome is found.
fn assert_all_ok_but(said: &Ended, about: &[&str]) {
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    for finding in report["findings"].as_array().unwrap() {
        let is_ok = finding["outcome"] == "ok";
        assert_eq!(is_ok, !about.contains(&finding["about"].as_str().unwrap()), "{}", said.stdout);
    }
}

#[test]
fn a_folder() {
    let sandbox = Sandbox::new();
    let said = check(&sandbox, &[]).expect_code(0);
    assert!(
        said.stdout.ends_with("\na replica can be kept here and restored\n"),
        "{}",
        said.stdout
    );
    assert!(!sandbox.replica.exists(), "it may be mistyped");
    let deeper = sandbox.path("none/such/folder");
    sandbox.run(&["check", deeper.to_str().unwrap()]).expect_code(0);
    assert!(!sandbox.path("none").exists());
    std::fs::create_dir(&sandbox.replica).unwrap();
    check(&sandbox, &[]).expect_code(0);
    assert_eq!(std::fs::read_dir(&sandbox.replica).unwrap().count(), 0);
    assert_all_ok_but(&check(&sandbox, &["--json"]).expect_code(0), &[]);
}

#[test]
fn a_file_in_the_way_of_a_folder() {
    let sandbox = Sandbox::new();
    File::create(&sandbox.replica).unwrap();
    let said = check(&sandbox, &["--json"]).expect_code(4);
    assert_eq!(finding(&said, "write").0, "failed");
    assert!(said.stdout.contains("\"usable\": false"), "{}", said.stdout);
}

#[test]
fn object_stores() {
    let sandbox = Sandbox::new().with_replica(&Server::ministack().address());
    assert_all_ok_but(&check(&sandbox, &["--json"]).expect_code(0), &[]);
    let said = check(&sandbox, &["--json"]).expect_code(0);
    assert_eq!(finding(&said, "parts").1, "objects can be stored in parts");
    // The marker is gone again.
    let said = check(&sandbox, &["--json"]).expect_code(0);
    assert_eq!(finding(&said, "list").1, "nothing is there yet");

    let Some(garage) = Server::garage() else { return };
    let sandbox = Sandbox::new().with_replica(&garage.address());
    let said = check(&sandbox, &["--json"]).expect_code(0);
    assert_all_ok_but(&said, &["conditional writes"]);
    assert!(finding(&said, "conditional writes").1.contains("not honoured"));
}

/// A permission that is missing is named.
#[test]
fn permissions() {
    let server = Server::ministack();
    let proxy = Proxy::before(server);
    let sandbox = Sandbox::new().with_replica(&proxy.address(&server.address()));
    for (method, part, about, outcome, code, words) in [
        ("DELETE", "DeleteObject", "remove", "note", 0, "s3:DeleteObject"),
        ("DELETE", "uploadId", "parts", "note", 0, "lifecycle rule"),
        ("POST", "uploads", "parts", "failed", 4, "s3:PutObject"),
        ("PUT", "", "write", "failed", 4, "s3:PutObject"),
        ("GET", "list-type", "list", "failed", 4, "s3:ListBucket"),
        ("GET", "GetObject", "read", "failed", 4, "s3:GetObject"),
    ] {
        proxy.disturb(move |request| {
            let is_meant = request.method == method && request.path.contains(part);
            if is_meant { Fault::Status(403, None) } else { Fault::None }
        });
        let said = check(&sandbox, &["--json"]).expect_code(code);
        let (found, text) = finding(&said, about);
        assert_eq!(found, outcome, "{}", said.stdout);
        assert!(text.contains(words), "{words} is not in: {text}");
    }
}

#[test]
fn places_that_cannot_be_reached() {
    let sandbox = Sandbox::new().with_replica("s3://genesis/x?endpoint=http://127.0.0.1:1");
    let said = check(&sandbox, &["--json"]).expect_code(4);
    assert_eq!(finding(&said, "list").0, "failed");
    sandbox
        .run(&["check", "s3://genesis/x?regio=x"])
        .expect_code(2)
        .expect_words(&["did you mean region"]);
    let elsewhere = Server::ministack().address().replace("s3://genesis/", "s3://elsewhere/");
    let sandbox = sandbox.with_replica(&elsewhere);
    let said = check(&sandbox, &["--json"]).expect_code(4);
    assert!(finding(&said, "list").1.contains("make the bucket first"), "{}", said.stdout);
}
