//! The address of a replica in an object store.
//!
//! `s3://bucket/prefix?endpoint=https://host&region=name&force-path-style=true&allow-http=true`, with
//! the query and each of its keys left out where it is not needed.

use std::fmt;
use std::str::FromStr;

/// Where a replica is in an object store, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Address {
    /// The bucket.
    pub bucket: String,
    /// What the replica's keys begin with: empty, or ending with a slash.
    pub prefix: String,
    /// The service, if it is not AWS.
    pub endpoint: Option<String>,
    /// The region, if the environment does not say it.
    pub region: Option<String>,
    /// The bucket is named in the path and not in the host.
    pub force_path_style: bool,
    /// Data may go over the network unencrypted.
    pub allow_http: bool,
}

const KEYS: [&str; 4] = ["endpoint", "region", "force-path-style", "allow-http"];

impl FromStr for S3Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("s3://").ok_or("it begins with s3://")?;
        if text.contains('@') {
            return Err(NO_SECRETS.to_owned());
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let mut address = Self {
            bucket: bucket_name(bucket)?,
            prefix: key_prefix(prefix)?,
            endpoint: None,
            region: None,
            force_path_style: false,
            allow_http: false,
        };
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&key) {
                return Err(format!("{key} is given twice"));
            }
            seen.push(key);
            address.set(key, &decoded(value)?)?;
        }
        address.check_endpoint()?;
        Ok(address)
    }
}

impl S3Address {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let truth = || match value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("{key} is true or false")),
        };
        match key {
            "endpoint" => {
                self.endpoint = Some(value.strip_suffix('/').unwrap_or(value).to_owned());
            }
            "region" if is_region(value) => self.region = Some(value.to_owned()),
            "region" => return Err("what it gives is no name of a region".to_owned()),
            "force-path-style" => self.force_path_style = truth()?,
            "allow-http" => self.allow_http = truth()?,
            other if SECRETS.iter().any(|word| other.to_ascii_lowercase().contains(word)) => {
                return Err(NO_SECRETS.to_owned());
            }
            other => {
                let nearest = nearest(other);
                // What is not like a name may be a secret that was put there.
                let named = if is_name(other) { format!(" {other}") } else { String::new() };
                return Err(format!("there is no such option{named}; did you mean {nearest}?"));
            }
        }
        Ok(())
    }

    fn check_endpoint(&self) -> Result<(), String> {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        if endpoint.contains('@') {
            return Err(NO_SECRETS.to_owned());
        }
        let authority = match endpoint.split_once("://") {
            Some(("https", authority)) => authority,
            Some(("http", authority)) if self.allow_http || is_loopback(authority) => authority,
            Some(("http", _)) => {
                return Err(
                    "an http endpoint would send the database over the network for all to \
                            read: use https, or add allow-http=true"
                        .to_owned(),
                );
            }
            _ => return Err("the endpoint begins with https://".to_owned()),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if authority.is_empty() || !authority.chars().all(is_plain) {
            return Err("the endpoint is a host, with a port if need be".to_owned());
        }
        Ok(())
    }

    /// Whether requests to the endpoint can be read on the way.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        self.endpoint.as_deref().is_some_and(is_in_the_clear)
    }

    /// Bucket and prefix alone, as `s3://bucket/prefix`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix.trim_end_matches('/'))
    }

    /// The key of an object by its name.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl fmt::Display for S3Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())?;
        let Self { endpoint, region, force_path_style, allow_http, .. } = self;
        let truth = |said: bool| said.then_some("true");
        let values =
            [endpoint.as_deref(), region.as_deref(), truth(*force_path_style), truth(*allow_http)];
        let said = KEYS.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?)));
        for (separator, (key, value)) in
            std::iter::once('?').chain(std::iter::repeat('&')).zip(said)
        {
            write!(f, "{separator}{key}={value}")?;
        }
        Ok(())
    }
}

const NO_SECRETS: &str = "credentials do not belong into an address, which others see: set \
                          AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile in AWS_PROFILE";

fn bucket_name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if (3..=63).contains(&text.len()) && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("what follows s3:// is no name of a bucket, as in s3://bucket/prefix".to_owned())
}

/// The longest key of S3 is 1024 bytes, and an object's name below the prefix up to 200.
const LONGEST_PREFIX: usize = 800;

fn key_prefix(text: &str) -> Result<String, String> {
    let folder = text.strip_suffix('/').unwrap_or(text);
    if folder.is_empty() && text.is_empty() {
        return Ok(String::new());
    }
    if let Some(strange) = folder.chars().find(|c| !is_plain_in_key(*c)) {
        return Err(format!(
            "the prefix holds {strange:?}; letters, digits and !-_.'()/ are what every store keeps"
        ));
    }
    if folder.len() > LONGEST_PREFIX
        || folder.split('/').any(|part| ["", ".", ".."].contains(&part))
    {
        return Err("what follows the bucket is no prefix, as in s3://bucket/prefix".to_owned());
    }
    Ok(format!("{folder}/"))
}

fn is_plain_in_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!-_.'()/".contains(c)
}

fn is_region(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=64).contains(&text.len()) && text.chars().all(is_plain)
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|ip| ip.is_loopback())
}

/// Whether what is sent to a URL can be read on the way.
pub(super) fn is_in_the_clear(url: &str) -> bool {
    let rest = url.strip_prefix("http://");
    rest.is_some_and(|rest| !is_loopback(rest.split('/').next().unwrap_or_default()))
}

/// A text in which bytes may be written as `%2F`.
///
/// # Errors
/// What is wrong with it.
pub fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.split_at_checked(2).and_then(|(digits, tail)| {
            rest = tail;
            u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        });
        bytes.push(digits.ok_or("a % is followed by two hex digits")?);
    }
    String::from_utf8(bytes).map_err(|_bytes| "what is written with % is no text".to_owned())
}

/// What stands in the names of options that would give a secret.
const SECRETS: [&str; 6] = ["key", "secret", "token", "password", "passwd", "credential"];

fn is_name(text: &str) -> bool {
    (1..=24).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '_')
}

/// The key that takes the fewest changes of letters.
fn nearest(typed: &str) -> &'static str {
    KEYS.into_iter().min_by_key(|key| strsim::levenshtein(typed, key)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<S3Address, String> {
        text.parse()
    }

    #[test]
    fn an_address_says_where_and_how() {
        let plain = S3Address {
            bucket: "backups".into(),
            prefix: "app/main/".into(),
            endpoint: None,
            region: None,
            force_path_style: false,
            allow_http: false,
        };
        assert_eq!(address("s3://backups/app/main"), Ok(plain.clone()));
        assert_eq!(address("s3://backups/app/main/"), Ok(plain.clone()));
        assert_eq!(plain.to_string(), "s3://backups/app/main");
        assert_eq!(plain.key("genesis.json"), "app/main/genesis.json");
        let full = S3Address {
            endpoint: Some("https://sgp1.digitaloceanspaces.com".into()),
            region: Some("sgp1".into()),
            force_path_style: true,
            ..plain
        };
        let query = "region=sgp1&force-path-style=true";
        for endpoint in
            ["https://sgp1.digitaloceanspaces.com/", "https%3a%2F%2Fsgp1.digitaloceanspaces.com"]
        {
            let text = format!("s3://backups/app/main?endpoint={endpoint}&{query}");
            assert_eq!(address(&text), Ok(full.clone()));
        }
        assert_eq!(address(&full.to_string()), Ok(full.clone()));
        assert_eq!(full.place(), "s3://backups/app/main");
        assert_eq!(address("s3://backups").unwrap().prefix, "");
        assert_eq!(address("s3://backups/").unwrap().key("x"), "x");
    }

    #[test]
    fn what_is_mistyped_is_named() {
        for (text, word) in [
            ("s3://backups/app?regoin=x", "did you mean region"),
            ("s3://backups/app?end_point=https://x", "did you mean endpoint"),
            ("s3://backups/app?path-style=true", "did you mean force-path-style"),
            ("s3://backups/app?region=a&region=b", "twice"),
            ("s3://backups/app?force-path-style=yes", "true or false"),
            ("s3://backups/app?force-path-style", "true or false"),
            ("s3://backups/app?region=", "no name of a region"),
            ("s3://backups/app?endpoint=host", "https://"),
            ("s3://backups/app?endpoint=https://", "https://"),
            ("s3://backups/app?endpoint=https:///", "is a host"),
            ("s3://backups/app?endpoint=https://host/path", "is a host"),
            ("s3://backups/app?endpoint=https%3", "two hex digits"),
            ("s3://B/app", "no name of a bucket"),
            ("s3:///app", "no name of a bucket"),
            ("s3://backups//app", "no prefix"),
            ("s3://backups/a/../b", "no prefix"),
            ("s3://backups/a//", "no prefix"),
            ("s3://backups/a b", "' '"),
            ("s3://backups/a#b", "'#'"),
        ] {
            let error = address(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_are_refused_and_not_repeated() {
        for text in [
            "s3://AKIA:hunter2@backups/app",
            "s3://AKIA:hunter2/def@backups",
            "s3://backups/app?endpoint=https://a:hunter2@host",
            "s3://backups/app?endpoint=AKIA:hunter2@host",
            "s3://backups/app?endpoint=ftp://a:hunter2@host",
            "s3://backups/app?endpoint=ftp://a:hunter2%40host",
            "s3://backups/app?access-key=AKIA&secret-key=hunter2",
            "s3://backups/app?SecretAccessKey=hunter2",
            "s3://backups/app?session_token=hunter2",
        ] {
            let error = address(text).unwrap_err();
            assert!(
                error.contains("AWS_SECRET_ACCESS_KEY") && !error.contains("hunter2"),
                "{text}: {error}"
            );
        }
        for text in [
            "s3://hunter2:X/app",
            "s3://backups/app/../hunter2",
            "s3://backups/app?hunter2",
            "s3://backups/app?region=hunter2/+",
            "s3://backups/app?endpoint=hunter2",
            "s3://backups/app?endpoint=https://hunter2/x",
            "s3://backups/app?endpoint=hunter2%4",
            "s3://backups/app?endpoint=hunter2%ff",
            "s3://backups/app?force-path-style=hunter2",
        ] {
            let error = address(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn http_is_for_this_machine_or_for_those_who_insist() {
        for host in ["127.0.0.1:9000", "localhost", "s3.localhost:1", "[::1]:9000"] {
            let local = address(&format!("s3://backups/app?endpoint=http://{host}")).unwrap();
            assert!(!local.is_in_the_clear(), "{host}");
        }
        for host in ["10.0.0.1:9000", "localhost.example.com", "127.0.0.1.example.com"] {
            let text = format!("s3://backups/app?endpoint=http://{host}");
            assert!(address(&text).unwrap_err().contains("allow-http=true"), "{host}");
            assert!(address(&format!("{text}&allow-http=true")).unwrap().is_in_the_clear());
        }
    }
}
