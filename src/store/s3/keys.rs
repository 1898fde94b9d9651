//! Credentials that are given, and told to nobody.

use std::fmt;

use aws_credential_types::Credentials;

/// An access key and its secret.
#[derive(Clone)]
pub struct Keys {
    id: String,
    secret: String,
}

impl Keys {
    /// A pair of them.
    #[must_use]
    pub fn new(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { id: id.into(), secret: secret.into() }
    }

    pub(super) fn credentials(&self) -> Credentials {
        Credentials::new(&self.id, &self.secret, None, None, "given")
    }
}

/// Without the secret.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_not_shown() {
        let shown = format!("{:?}", Keys::new("AKIA", "hunter2"));
        assert!(shown.contains("AKIA") && !shown.contains("hunter2"), "{shown}");
    }
}
