//! Logs: lines on standard error, as text or as JSON.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The libraries that speak to object stores. What fails there is told by our own errors, and what they
/// log in detail may hold secrets.
const CAPPED: [&str; 4] = ["aws_", "hyper", "rustls", "h2"];

/// Starts logging to standard error. Later calls change nothing.
pub fn start(level: LevelFilter, format: LogFormat) {
    use std::io::IsTerminal;
    let layer = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter(level));
    let started = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
}

/// What is logged at this level.
fn filter(level: LevelFilter) -> Targets {
    let capped = CAPPED.into_iter().map(|target| (target, level.min(LevelFilter::ERROR)));
    Targets::new().with_default(level).with_targets(capped)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_never_log_in_detail() {
        let filter = filter(LevelFilter::TRACE);
        assert!(filter.would_enable("genesis_replicate::store", &Level::TRACE));
        for target in
            ["aws_config::imds", "aws_smithy_runtime", "hyper_util::client", "rustls::client"]
        {
            assert!(filter.would_enable(target, &Level::ERROR), "{target}");
            assert!(!filter.would_enable(target, &Level::WARN), "{target}");
        }
        assert!(!super::filter(LevelFilter::OFF).would_enable("aws_config", &Level::ERROR));
    }
}
