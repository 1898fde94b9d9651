//! Work that may take long, on a thread where nobody waits for it but who asked.

use tokio::task::{JoinError, spawn_blocking};

/// Does it. In a simulation, which has one thread, it is done at once.
///
/// # Errors
/// When it panics.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    #[cfg(test)]
    if crate::simulated::machine().is_some() {
        return Ok(work());
    }
    spawn_blocking(work).await
}
