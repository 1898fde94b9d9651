//! Nothing that this program says, writes or shows tells the keys that it was given.

use std::process::Command;

use crate::support::{Process, Sandbox, Server, files_below, write};

const TOKEN: &str = "planted-session-token-0123456789";

/// How a process is given its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Environment,
    Profile,
    /// By a program, whose output holds them.
    Process,
}

/// Where keys are given, and everything that was said there.
struct Planted {
    sandbox: Sandbox,
    given: Given,
    /// The id and the secret.
    keys: [(&'static str, &'static str); 2],
    address: String,
    said: String,
}

impl Planted {
    fn new(given: Given) -> Self {
        let sandbox = Sandbox::with_database();
        let keys = Server::credentials();
        let [(_, id), (_, secret)] = keys;
        write(
            &sandbox.path("credentials"),
            format!(
                "[planted]\naws_access_key_id={id}\naws_secret_access_key={secret}\n\
                 aws_session_token={TOKEN}\n"
            ),
        );
        let answer = format!(
            r#"{{"Version": 1, "AccessKeyId": "{id}", "SecretAccessKey": "{secret}",
                "SessionToken": "{TOKEN}"}}"#
        );
        write(&sandbox.path("answer.json"), &answer);
        let program = format!("cat {}", sandbox.path("answer.json").display());
        write(&sandbox.path("config"), format!("[profile asked]\ncredential_process={program}\n"));
        let address = Server::ministack().address();
        write(
            &sandbox.path("genesis-replicate.toml"),
            format!("[[db]]\npath = 'app/app.db'\nreplica = '{address}'\n"),
        );
        Self { sandbox, given, keys, address, said: String::new() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Process::command(arguments);
        let file = |name: &str| self.sandbox.path(name);
        command.current_dir(file("")).env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_SHARED_CREDENTIALS_FILE", file("credentials"));
        command.env("AWS_CONFIG_FILE", file("config")).env("RUST_BACKTRACE", "full");
        match self.given {
            Given::Environment => command.envs(self.keys).env("AWS_SESSION_TOKEN", TOKEN),
            Given::Profile => command.env("AWS_PROFILE", "planted"),
            Given::Process => command.env("AWS_PROFILE", "asked"),
        };
        command
    }

    fn run(&mut self, arguments: &[&str], log: [&str; 2]) -> i32 {
        let [level, format] = log;
        let log = ["--log-level", level, "--log-format", format];
        let mut command = self.command(&[&log, arguments].concat());
        let ended = self.sandbox.start(&mut command).wait();
        self.said += &ended.stdout;
        self.said += &ended.stderr;
        ended.code
    }

    #[track_caller]
    fn expect_silence(&self) {
        let [_, (_, secret)] = self.keys;
        for planted in [secret, TOKEN] {
            let found = self.said.find(planted).map(|at| &self.said[at.saturating_sub(500)..at]);
            assert!(found.is_none(), "{:?}: {planted} after: {found:?}", self.given);
        }
        for folder in ["app", "out"] {
            let folder = self.sandbox.path(folder);
            for file in files_below(&folder) {
                let bytes = std::fs::read(folder.join(&file)).unwrap();
                let has =
                    |planted: &str| bytes.windows(planted.len()).any(|w| w == planted.as_bytes());
                assert!(!has(secret) && !has(TOKEN), "{file}");
            }
        }
    }
}

/// Shows what others see of the process that runs it, and what it inherits.
const LOOK: &str = "tr '\\0' ' ' </proc/$PPID/cmdline; tr '\\0' ' ' </proc/$PPID/comm; env; \
                    sqlite3 app/app.db \"INSERT INTO t VALUES('shipped')\"";

#[test]
fn at_no_level_and_in_no_output() {
    for given in [Given::Environment, Given::Profile, Given::Process] {
        let mut planted = Planted::new(given);
        let address = planted.address.clone();
        for (n, level) in ["error", "warn", "info", "debug", "trace"].into_iter().enumerate() {
            let log = [level, if n % 2 == 0 { "text" } else { "json" }];
            assert_eq!(planted.run(&["exec", "--", "sh", "-c", LOOK], log), 0, "{}", planted.said);
            let output = format!("out/{level}");
            let all = [
                &["restore", "--db", "app.db", "--output", &output, "--json"][..],
                &["restore", &address, "--output", &output, "--if-exists", "skip"],
                &["list", &address, "--json"],
                &["list", &address, "--transactions"],
                &["config", "show"],
                &["config", "show", "--json"],
                &["config", "check", "--json"],
                &["checkpoint", "--truncate", "--json"],
            ];
            for arguments in all {
                assert_eq!(planted.run(arguments, log), 0, "{arguments:?}: {}", planted.said);
            }
        }
        assert!(planted.said.contains("TRACE") && planted.said.contains("\"txid\""));
        planted.expect_silence();
    }
}

/// Failures tell more than success: a store that refuses, one that is not there, and an address that is
/// wrong.
#[test]
fn in_no_failure() {
    let mut planted = Planted::new(Given::Environment);
    planted.keys[0].1 = "GKffffffffffffffffffffffff";
    let [_, (_, secret)] = planted.keys;
    let refused = planted.address.clone();
    let nobody = "s3://bucket/app?endpoint=http://127.0.0.1:1";
    let within = format!("s3://id:{secret}@bucket/app");
    let endpoint = format!("s3://bucket/app?endpoint=https://id:{secret}@host");
    let wrong = [
        within,
        endpoint,
        format!("s3://id:{secret}/def@bucket"),
        format!("s3://bucket?endpoint=id:{secret}@host"),
        format!("s3://bucket/app?endpoint=ftp://a:{secret}@host"),
        format!("s3://bucket/app?access-key=id&secret-key={secret}"),
        format!("s3://bucket/app?{secret}"),
        format!("s3:id:{secret}@bucket"),
        format!("id:{secret}@s3://bucket"),
        format!("https://host/?secret={secret}"),
    ];
    for log in [["trace", "text"], ["trace", "json"]] {
        let addresses = wrong.iter().map(|address| (address.as_str(), 2));
        for (address, code) in addresses.chain([(refused.as_str(), 4)]) {
            assert_eq!(planted.run(&["list", address], log), code, "{}", planted.said);
            let exec = ["exec", "--db", "app/app.db", "--replica", address];
            let missing = [&exec, &["--shutdown-timeout", "100ms", "--", "true"][..]].concat();
            assert!([2, 75].contains(&planted.run(&missing, log)), "{}", planted.said);
        }
        let exec = ["exec", "--db", "app/app.db", "--replica", nobody];
        let exec = [&exec[..], &["--shutdown-timeout", "100ms", "--", "true"]].concat();
        assert_eq!(planted.run(&exec, log), 75);
    }
    // In a place where nothing is asked for.
    for arguments in [&["list", &refused, &wrong[0]][..], &[&wrong[0]]] {
        assert_eq!(planted.run(arguments, ["trace", "text"]), 2);
    }
    for address in wrong {
        let text = format!("[[db]]\npath = 'app/app.db'\nreplica = '{address}'\n");
        write(&planted.sandbox.path("genesis-replicate.toml"), &text);
        for command in ["check", "show"] {
            assert_eq!(planted.run(&["config", command], ["trace", "text"]), 2);
        }
    }
    assert!(planted.said.contains("do not belong into an address"), "{}", planted.said);
    planted.expect_silence();
}
