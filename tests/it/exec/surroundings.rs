//! What an application finds around it: descriptors, the environment, and itself as the first process.

use std::process::{Command, Stdio};

use crate::support::{Ended, Process, Sandbox, contents_of};

fn exec(sandbox: &Sandbox, prefix: &[&str], application: &[&str]) -> Ended {
    let exec = sandbox.exec_command(&[], application);
    let mut words = prefix.iter().map(std::ffi::OsStr::new).chain([exec.get_program()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(exec.get_args()).env("DB", &sandbox.db);
    sandbox.start(&mut command).wait()
}

/// While its own database is open on the other side.
#[test]
fn no_descriptor_of_ours_is_inherited() {
    let sandbox = Sandbox::with_database();
    let look = ["sh", "-c", "ls /proc/$$/fd"];
    let ended = exec(&sandbox, &["setsid"], &look).expect_code(0);
    let alone = sandbox.start(Command::new("setsid").args(look).stdin(Stdio::inherit())).wait();
    assert_eq!(ended.stdout, alone.stdout);
}

/// Leaves children behind, signals the first process, commits in its handler, and looks for zombies.
const ORPHANS: &str = "
import os, signal, sqlite3, time
assert os.getppid() == 1, os.getppid()
connection = sqlite3.connect(os.environ['DB'], isolation_level=None, timeout=20)
for n in range(20):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.01 * n)
        os._exit(0)
    os.wait()
def states():
    found = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            found[pid] = open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found
deadline = time.monotonic() + 20
while len(states()) > 2:
    assert time.monotonic() < deadline, states()
    time.sleep(0.02)
def end(number, frame):
    connection.execute(\"INSERT INTO t VALUES('farewell')\")
    os._exit(128 + number)
signal.signal(signal.SIGTERM, end)
os.kill(1, signal.SIGTERM)
while True:
    time.sleep(0.01)
";

/// As in a container.
#[test]
fn as_the_first_process() {
    let unshare = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let may = Command::new(unshare[0]).args(&unshare[1..]).arg("true").status().unwrap();
    if !may.success() {
        eprintln!("skipped: this machine gives no namespaces");
        return;
    }
    let sandbox = Sandbox::with_database();
    exec(&sandbox, &unshare, &["python3", "-c", ORPHANS]).expect_code(143);
    assert!(contents_of(&sandbox.restore(&[]).0).contains("farewell"));
    exec(&sandbox, &unshare, &["sh", "-c", "kill -KILL $$"]).expect_code(137);
}

/// What the AWS libraries read of who asks, by their documentation.
const CREDENTIAL_VARIABLES: [&str; 14] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// Those that are set, of the variables that say who we are to an object store.
#[test]
fn no_credentials_of_ours_are_inherited() {
    let sandbox = Sandbox::with_database();
    let run = |replica: &str, more: &[&str]| {
        let db = sandbox.db.to_str().unwrap();
        let exec = ["exec", "--db", db, "--replica", replica, "--shutdown-timeout", "0s"];
        let mut command = Process::command([&exec, more, &["--", "env"]].concat());
        command.env("AWS_REGION", "eu-central-1").env("AWS_EC2_METADATA_DISABLED", "true");
        for variable in CREDENTIAL_VARIABLES {
            command.env(variable, "none");
        }
        sandbox.start(&mut command).wait()
    };
    let inherits = |ended: &Ended, name: &str| {
        ended.stdout.lines().any(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with('=')))
    };
    // Nobody is there; the application starts all the same.
    let bucket = "s3://bucket/app?endpoint=http://127.0.0.1:1";
    let withheld = run(bucket, &[]);
    assert!(inherits(&withheld, "AWS_REGION"));
    for variable in CREDENTIAL_VARIABLES {
        assert!(!inherits(&withheld, variable), "{variable}: {}", withheld.stdout);
    }
    withheld.expect_words(&CREDENTIAL_VARIABLES).expect_words(&["withheld from the application"]);
    for (replica, more) in
        [(bucket, &["--pass-credentials"][..]), (sandbox.replica.to_str().unwrap(), &[])]
    {
        let passed = run(replica, more);
        for variable in CREDENTIAL_VARIABLES {
            assert!(inherits(&passed, variable), "{variable}: {}", passed.stdout);
        }
        assert!(!passed.stderr.contains("withheld"));
    }
}
