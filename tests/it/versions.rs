//! The versions below which a dependency has a known fault, checked against `Cargo.lock`. The
//! advisory database has to be fetched; this list does not.

/// Package, the oldest version that is good enough, and what is wrong before it.
const MINIMUM: [(&str, Version, &str); 5] = [
    ("age", Version(0, 11, 1), "RUSTSEC-2024-0433: a plugin's name can run any program"),
    (
        "aws-lc-sys",
        Version(0, 39, 0),
        "RUSTSEC-2026-0044 and -0048: certificate checks can be bypassed",
    ),
    ("libsqlite3-sys", Version(0, 40, 0), "bundles an SQLite before 3.54.1"),
    (
        "lz4_flex",
        Version(0, 12, 1),
        "RUSTSEC-2026-0041: a damaged block unpacks to what the buffer held before",
    ),
    ("rustls", Version(0, 23, 46), "older than what this project was tested with"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u64, u64, u64);

impl Version {
    /// Reads `major.minor.patch`; what follows a `-` or `+` is left out.
    fn parse(text: &str) -> Option<Self> {
        let release = text.split(['-', '+']).next()?;
        let mut numbers = release.split('.').map(|number| number.parse().ok());
        let version = Self(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }
}

/// Name and version of each package in a `Cargo.lock`.
fn packages(lock: &str) -> impl Iterator<Item = (&str, Version)> {
    lock.split("[[package]]").skip(1).map(|package| {
        let field = |name: &str| {
            let mut lines = package.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
            value.and_then(|value| value.strip_suffix('"')).unwrap()
        };
        (field("name"), Version::parse(field("version")).unwrap())
    })
}

/// What is in `lock` and too old, in words.
fn outdated(lock: &str) -> Vec<String> {
    let mut outdated = Vec::new();
    for (name, version) in packages(lock) {
        for (_, minimum, fault) in MINIMUM.iter().filter(|(of, ..)| *of == name) {
            if version < *minimum {
                outdated.push(format!("{name} {version:?} < {minimum:?}: {fault}"));
            }
        }
    }
    outdated
}

#[test]
fn minimum_versions() {
    let lock = include_str!("../../Cargo.lock");
    assert!(packages(lock).any(|(name, _)| name == "libsqlite3-sys"));
    assert_eq!(outdated(lock), Vec::<String>::new());
}

#[test]
fn an_old_version_is_named() {
    let lock = "version = 4\n\n[[package]]\nname = \"lz4_flex\"\nversion = \"0.12.0+x\"\n\n\
                [[package]]\nname = \"rustls\"\nversion = \"0.24.0\"\n";
    let [only] = &outdated(lock)[..] else {
        panic!("{:?}", outdated(lock));
    };
    assert!(only.starts_with("lz4_flex Version(0, 12, 0) <"), "{only}");
}
