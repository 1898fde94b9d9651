//! The whole program on object stores.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use genesis_replicate::clock;
use serde_json::Value;

use crate::support::{
    Process, Proxy, Request, Sandbox, Server, Sqlite, contents_of, wait_until, write,
};

/// Every server that there is here.
fn servers() -> impl Iterator<Item = &'static Server> {
    [Some(Server::ministack()), Server::garage()].into_iter().flatten()
}

#[test]
fn a_writer_its_restarts_and_the_way_back() {
    for server in servers() {
        let sandbox = Sandbox::with_database().with_replica(&server.address());
        let mut application = sandbox.application(Sqlite::Python);
        let replicator = sandbox.replicate();
        for n in 0..20 {
            application.run(&format!("INSERT INTO t VALUES('first run {n}');"));
        }
        sandbox.wait_for_txid(21);
        replicator.kill();
        application.run("INSERT INTO t VALUES('while nobody looked');");
        let replicator = sandbox.replicate();
        application.run("INSERT INTO t VALUES('second run');");
        let ended = replicator.stop();
        let said =
            ended.expect_words(&["everything committed is in the replica", "asked of s3://"]);
        assert!(said.stderr.contains("PUT") && said.stderr.contains("LIST"), "{}", said.stderr);
        let (restored, _) = sandbox.restore(&["--txid", "11"]);
        let contents = contents_of(&restored);
        assert!(contents.contains("first run 9") && !contents.contains("first run 10"));
        assert_eq!(sandbox.generations().len(), 1);
        sandbox.assert_complete_after(application);
    }
}

#[test]
fn an_application_under_exec() {
    for server in servers() {
        let sandbox = Sandbox::with_database().with_replica(&server.address());
        let insert = "sqlite3 \"$DB\" \"INSERT INTO t VALUES('quick')\"; exit 3";
        let mut command = sandbox.exec_command(&[], &["sh", "-c", insert]);
        sandbox.start(command.env("DB", &sandbox.db)).wait().expect_code(3);
        sandbox.assert_complete();
    }
}

/// Packs of 32 MiB go up in parts.
#[test]
fn snapshots_of_a_large_database() {
    for server in servers() {
        let sandbox = Sandbox::with_database().with_replica(&server.address());
        let mut application = sandbox.application(Sqlite::Shell);
        application.run(
            "PRAGMA synchronous=OFF; CREATE TABLE big(n INTEGER PRIMARY KEY, photo BLOB);
             WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 11000)
             INSERT INTO big SELECT n, randomblob(3500) FROM c;",
        );
        let more = ["--snapshot-interval", "1s"];
        let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
        replicator.wait_until_followed();
        sandbox.wait_for_txid(1);
        application.run("UPDATE big SET photo = randomblob(3500) WHERE n % 100 = 0;");
        wait_until("a second snapshot", || {
            let listing = sandbox.list();
            let snapshots = listing["generations"][0]["snapshots"].as_array()?.len();
            (snapshots > 1).then_some(())
        });
        replicator.stop();
        sandbox.assert_complete_after(application);
    }
}

#[test]
fn a_database_without_commits_makes_no_requests() {
    let server = Server::ministack();
    let proxy = Proxy::before(server);
    let sandbox = Sandbox::with_database().with_replica(&proxy.address(&server.address()));
    let command = ["--log-level", "debug"];
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&command));
    replicator.wait_until_followed();
    replicator.wait_for_log("verified: a second look");
    replicator.wait_for_log("parked=true");
    let parked = replicator.logged("parked=true");
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('second');");
    replicator.wait_for_log("shipped first=2");
    replicator.wait_for_another("parked=true", parked);
    let before = proxy.requests();
    assert!(before.len() > 5, "{before:?}");
    clock::rest(Duration::from_secs(4));
    let asked = proxy.requests().split_off(before.len());
    assert!(asked.is_empty(), "{asked:?}");

    // It was not asleep; and one small commit is one request.
    application.run("INSERT INTO t VALUES('third');");
    sandbox.wait_for_txid(3);
    replicator.stop();
    let asked = proxy.requests().split_off(before.len());
    let is_segment = |request: &&Request| request.method == "PUT" && request.path.contains(".seg");
    let stored = asked.iter().filter(is_segment);
    assert_eq!(stored.count(), 1, "{asked:?}");
}

/// Each costs money: a run tells at its end what it asked, and nothing else was asked.
#[test]
fn requests_are_told_by_what_they_ask() {
    let server = Server::ministack();
    let proxy = Proxy::before(server);
    let sandbox = Sandbox::with_database().with_replica(&proxy.address(&server.address()));
    let command = ["--log-level", "debug", "--log-format", "json"];
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&command));
    replicator.wait_for_log("a new generation begins");
    let mut application = sandbox.application(Sqlite::Shell);
    for n in 2..=4 {
        application.run(&format!("INSERT INTO t VALUES('transaction {n}');"));
        replicator.wait_for_log(&format!("\"last\":{n}"));
    }
    let ended = replicator.stop();
    let lines = ended.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told = lines.filter_map(|line| Some(line["fields"]["requests"].as_str()?.to_owned()));
    assert_eq!(told.collect::<Vec<_>>(), [by_verb(&proxy.requests())], "{}", ended.stderr);

    // A restore asks for each object once.
    let before = proxy.requests().len();
    let (_, ended) = sandbox.try_restore(&["--log-format", "json"]);
    let asked = proxy.requests().split_off(before);
    let told = format!("\"requests\":\"{}\"", by_verb(&asked));
    assert!(ended.expect_code(0).stderr.contains(&told), "{told}");
    let objects: HashSet<_> = asked.iter().map(|request| &request.path).collect();
    assert_eq!(objects.len(), asked.len(), "{asked:#?}");
    assert!(objects.iter().filter(|path| path.contains(".seg")).count() > 1);
}

/// Requests as the program tells them.
fn by_verb(requests: &[Request]) -> String {
    let verb = |request: &Request| match request.method.as_str() {
        "GET" if request.path.contains("list-type=2") => "LIST".to_owned(),
        method => method.to_owned(),
    };
    let verbs: Vec<_> = requests.iter().map(verb).collect();
    let count = |verb: &str| verbs.iter().filter(|found| *found == verb).count();
    let told = ["PUT", "POST", "GET", "HEAD", "LIST", "DELETE"].map(|verb| (count(verb), verb));
    let told = told.iter().filter(|(count, _)| *count > 0);
    told.map(|(count, verb)| format!("{count} {verb}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn without_credentials_the_error_says_what_to_set() {
    let server = Server::ministack();
    let sandbox = Sandbox::with_database();
    let address = server.address();
    let mut command = Process::command(["list", &address]);
    // A machine whose metadata service takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metadata = format!("http://{}", silent.local_addr().unwrap());
    command.env("HOME", sandbox.path("nobody")).env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata);
    let begun = clock::monotonic();
    let ended = sandbox.start(&mut command).wait().expect_code(4);
    ended.expect_words(&["no credentials", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"]);
    assert!(clock::monotonic() < begun + Duration::from_secs(30));
}

/// Credentials that are replaced are found by a program that runs.
#[test]
fn credentials_that_are_rotated() {
    let server = Server::ministack();
    let sandbox = Sandbox::with_database();
    let profile = |id: &str| {
        let [_, (_, secret)] = Server::credentials();
        let text = format!("[default]\naws_access_key_id={id}\naws_secret_access_key={secret}\n");
        let path = sandbox.path("credentials");
        write(&path, text);
        path
    };
    let address = server.address();
    let mut command = Process::command(["exec", "--db"]);
    command.arg(&sandbox.db).args(["--replica", &address, "--", "cat"]);
    command.env("AWS_SHARED_CREDENTIALS_FILE", profile("GKnobody0000000000000000"));
    command.stdin(std::process::Stdio::piped());
    let mut exec = sandbox.start(&mut command);
    exec.wait_for_log("InvalidAccessKeyId");
    let [(_, id), _] = Server::credentials();
    profile(id);
    let sandbox = sandbox.with_replica(&address);
    sandbox.wait_for_txid(1);
    exec.close_input();
    exec.wait().expect_code(0);
}

/// The endpoint may come from the environment, too.
#[test]
fn nothing_goes_over_the_network_in_the_clear() {
    let sandbox = Sandbox::with_database();
    let mut command = Process::command(["list", "s3://backups/app?region=x"]);
    command.envs(Server::credentials()).env("AWS_ENDPOINT_URL", "http://192.0.2.1");
    let begun = clock::monotonic();
    let ended = sandbox.start(&mut command).wait().expect_code(4);
    ended.expect_words(&["the endpoint is http", "allow-http=true"]);
    assert!(clock::monotonic() < begun + Duration::from_secs(14));
}

/// The authorities are the system's, or those that `SSL_CERT_FILE` names; there is no way around them.
#[test]
fn who_the_store_is_must_be_proven() {
    let (folder, server) =
        (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls"), Server::ministack());
    let (_, port) = server.endpoint.rsplit_once(':').unwrap();
    let mut python = Command::new("python3");
    python.arg(format!("{folder}/server.py")).args([folder, port]).stdin(Stdio::piped());
    let sandbox = Sandbox::with_database();
    let tls = sandbox.start(&mut python);
    let port =
        wait_until("the port", || Some(tls.output().trim().to_owned()).filter(|p| !p.is_empty()));
    let address = server.address().replace(&server.endpoint, &format!("https://127.0.0.1:{port}"));
    let sandbox = sandbox.with_replica(&address);
    let check = |authorities: &str| {
        let mut command = Process::command(["check", &address]);
        sandbox.start(command.env("SSL_CERT_FILE", authorities)).wait()
    };
    check(&format!("{folder}/ca.pem")).expect_code(0);
    let refused = check(&format!("{folder}/certificate.pem")).expect_code(4);
    assert!(refused.stdout.contains("certificate"), "{}", refused.stdout);
}
