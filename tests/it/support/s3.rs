//! Object stores that run on this machine, one of each kind for a whole process of tests or benchmarks.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, Region};
use genesis_replicate::clock;
use genesis_replicate::store::{Claims, Keys, S3Address, S3Store};
use tokio::runtime::Runtime;

/// The bucket that every server holds.
const BUCKET: &str = "genesis";

const KEY_ID: &str = "GK0123456789abcdef01234567";
const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// An object store on a free port of the loopback. It ends with this process, however that ends.
#[derive(Debug)]
pub struct Server {
    /// Where it is: `http://127.0.0.1:port`.
    pub endpoint: String,
    /// What names are worth there.
    pub claims: Claims,
    /// It lives as long as its input is open.
    _child: Child,
}

impl Server {
    /// The program of the emulator.
    pub const MINISTACK: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/target/ministack/bin/ministack");

    /// An emulator of AWS, which `.ci/run tools` installs.
    pub fn ministack() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(|| {
            let program = Path::new(Self::MINISTACK);
            assert!(program.is_file(), "{} is missing: run .ci/run tools", program.display());
            Self::start(Claims::Exclusive, |port, data| {
                let mut command = guarded(program, data);
                let settings = [
                    ("AUTH", "true"),
                    ("S3_PERSIST", "1"),
                    ("BIND_HOST", "127.0.0.1"),
                    ("MINISTACK_HOST", "127.0.0.1"),
                    ("AWS_ACCESS_KEY_ID", KEY_ID),
                    ("AWS_SECRET_ACCESS_KEY", SECRET),
                ];
                command.envs(settings).env("S3_DATA_DIR", data);
                command.env("GATEWAY_PORT", port.to_string());
                command
            })
        })
    }

    /// A real object store, where `.ci/garage` has installed it. Says so where it has not: such a test
    /// proves nothing then.
    pub fn garage() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        let start = || {
            let tried = Command::new("garage").arg("--version").output();
            tried.is_ok_and(|done| done.status.success()).then(|| {
                Self::start(Claims::Shared, |port, data| {
                    let config = data.join("garage.toml");
                    let text = garage_config(port, data);
                    File::create(&config).unwrap().write_all(text.as_bytes()).unwrap();
                    let mut command = guarded(Path::new("garage"), data);
                    command.arg("-c").arg(config).args([
                        "server",
                        "--single-node",
                        "--default-bucket",
                    ]);
                    command.env("GARAGE_DEFAULT_ACCESS_KEY", KEY_ID);
                    command.env("GARAGE_DEFAULT_SECRET_KEY", SECRET);
                    command.env("GARAGE_DEFAULT_BUCKET", BUCKET);
                    command
                })
            })
        };
        let server = SERVER.get_or_init(start).as_ref();
        if server.is_none() {
            eprintln!("skipped: there is no garage here; .ci/garage installs it");
        }
        server
    }

    /// An address in it that no other test uses: of this process, nor of another that found the same
    /// port.
    pub fn address(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        format!("s3://{BUCKET}/test/{pid}-{number}?endpoint={}", self.endpoint)
    }

    /// A store at an address.
    pub fn store(address: &str) -> S3Store {
        S3Store::with_keys(address.parse().unwrap(), Keys::new(KEY_ID, SECRET))
    }

    /// What a process is told about who it is.
    pub fn credentials() -> [(&'static str, &'static str); 2] {
        [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)]
    }

    /// Puts something at an address that is no object of a replica.
    pub fn litter(&self, address: &str, name: &str) {
        let address: S3Address = address.parse().unwrap();
        let client = client(&self.endpoint);
        let key = address.key(name);
        let put = async move { client.put_object().bucket(BUCKET).key(key).send().await.unwrap() };
        apart(put);
    }

    /// Uploads that were begun below an address, and neither completed nor given up.
    pub fn unfinished_uploads(&self, address: &str) -> usize {
        let address: S3Address = address.parse().unwrap();
        let (client, prefix) = (client(&self.endpoint), address.prefix);
        let listed = apart(async move {
            client.list_multipart_uploads().bucket(BUCKET).prefix(prefix).send().await.unwrap()
        });
        listed.uploads().len()
    }

    fn start(claims: Claims, command: impl Fn(u16, &Path) -> Command) -> Self {
        // Somebody else may take the port before the server does.
        for _ in 0..3 {
            let port = free_port();
            let data = data_folder(port);
            let mut child = command(port, &data).spawn().unwrap();
            let endpoint = format!("http://127.0.0.1:{port}");
            if is_ready(&endpoint, &mut child) {
                return Self { endpoint, claims, _child: child };
            }
        }
        panic!("no object store could be started");
    }
}

/// A command that ends, and takes its folder with it, when its input is closed: at the latest when this
/// process ends.
fn guarded(program: &Path, data: &Path) -> Command {
    const GUARD: &str = r#"
        data=$1; shift
        "$@" </dev/null >"$data/log" 2>&1 & server=$!
        (while kill -0 $server 2>/dev/null; do sleep 0.2; done; kill $$ 2>/dev/null) &
        read -r _
        kill -9 $server; rm -rf "$data"
    "#;
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "guard"]).arg(data).arg(program);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn garage_config(port: u16, data: &Path) -> String {
    let (rpc, admin, data) = (free_port(), free_port(), data.display());
    format!(
        "metadata_dir = '{data}/meta'\ndata_dir = '{data}/data'\ndb_engine = 'lmdb'\n\
         replication_factor = 1\nrpc_bind_addr = '127.0.0.1:{rpc}'\n\
         rpc_public_addr = '127.0.0.1:{rpc}'\nrpc_secret = '{SECRET}'\n\
         [s3_api]\ns3_region = 'us-east-1'\napi_bind_addr = '127.0.0.1:{port}'\n\
         root_domain = '.localhost'\n\
         [admin]\napi_bind_addr = '127.0.0.1:{admin}'\nadmin_token = 'none'\n"
    )
}

/// Waits until the bucket is there; false when the server ends.
fn is_ready(endpoint: &str, child: &mut Child) -> bool {
    let client = client(endpoint);
    let deadline = clock::monotonic() + Duration::from_mins(1);
    loop {
        let client = client.clone();
        let is_there = apart(async move {
            client.create_bucket().bucket(BUCKET).send().await.ok();
            client.head_bucket().bucket(BUCKET).send().await.is_ok()
        });
        if is_there {
            return true;
        }
        if child.try_wait().unwrap().is_some() || clock::monotonic() > deadline {
            return false;
        }
        clock::rest(Duration::from_millis(50));
    }
}

fn client(endpoint: &str) -> Client {
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(KEY_ID, SECRET, None, None, "test"))
        .endpoint_url(endpoint)
        .force_path_style(true);
    Client::from_conf(config.build())
}

/// Runs something asynchronous to its end, wherever this is called.
fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let thread = std::thread::spawn(|| Runtime::new().unwrap().block_on(work));
    thread.join().unwrap()
}

/// A port of the loopback that nobody uses now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn data_folder(port: u16) -> PathBuf {
    let name = format!("s3-{}-{port}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::DirBuilder::new().recursive(true).create(&folder).unwrap();
    folder
}
