//! The target for object names.

use genesis_wal::name::ObjectName;

/// A key that a listing told. What parses is written again as it was, and leads nowhere else when it is
/// taken for a path.
pub fn object_name(data: &[u8]) {
    let Ok(key) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(name) = key.parse::<ObjectName>() else {
        return;
    };
    assert_eq!(name.to_string(), key);
    assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-.".contains(&byte)));
    for component in key.split('/') {
        assert!(!component.is_empty() && !component.starts_with('.'));
    }
}
