//! What a run yields, and what is to be reached.

use serde::Serialize;

/// One number of one run.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub value: f64,
}

/// A figure.
pub fn figure(name: &'static str, unit: &'static str, value: f64) -> Figure {
    Figure { name, unit, value }
}

/// What is to be reached, by the median where nothing else is said.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    AtMost(f64),
    /// Not even once.
    NeverAbove(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
    /// By the medians, of what the oldest Litestream takes.
    OfLitestreamAtMost(f64),
    /// By the medians, of what the best Litestream takes.
    OfBestLitestreamAtMost(f64),
    /// No more than without the replicator, in sum.
    NotMoreThanWithout,
    All,
}

/// Scenario, figure, target.
const TARGETS: [(&str, &str, Target); 53] = [
    ("flat-out", "commits", Target::RatioAtLeast(1.2)),
    ("flat-out", "WAL, greatest", Target::NeverAbove(64.0)),
    ("flat-out", "commit to replica, worst", Target::NeverAbove(1000.0)),
    ("flat-out", "last commit to replica", Target::NeverAbove(1000.0)),
    ("paced", "commit p99.9", Target::RatioAtMost(0.5)),
    ("paced-tmpfs", "commit p99.9", Target::RatioAtMost(1.2)),
    ("holds", "write lock held, p99", Target::AtMost(3.0)),
    ("holds", "pauses over 10 ms", Target::NotMoreThanWithout),
    ("operator", "checkpoints that succeeded", Target::All),
    ("operator", "checkpoint, median", Target::AtMost(50.0)),
    ("operator", "checkpoint, worst", Target::NeverAbove(500.0)),
    ("detection", "detected at 50 commits/s, median", Target::AtMost(0.1)),
    ("detection", "detected at 50 commits/s, p99", Target::AtMost(5.0)),
    ("detection", "detected at 300 commits/s, median", Target::AtMost(1.0)),
    ("durable", "commit to replica, median", Target::AtMost(60.0)),
    ("cpu", "processor at 300 commits/s", Target::AtMost(5.0)),
    ("cpu", "processor when idle", Target::AtMost(0.1)),
    ("volume-counter", "shipped for a lone commit", Target::OfLitestreamAtMost(0.1)),
    ("volume-insert", "shipped for a lone commit", Target::OfLitestreamAtMost(0.25)),
    ("volume-blob", "shipped for a lone commit", Target::OfLitestreamAtMost(0.5)),
    ("volume-counter", "processor for a MB of WAL", Target::OfBestLitestreamAtMost(0.5)),
    ("volume-insert", "processor for a MB of WAL", Target::OfBestLitestreamAtMost(0.5)),
    ("volume-blob", "processor for a MB of WAL", Target::OfBestLitestreamAtMost(0.5)),
    ("restore", "copied or restored", Target::RatioAtMost(1.3)),
    ("restore", "memory, greatest", Target::NeverAbove(256.0)),
    ("restore-transactions", "restored", Target::AtMost(1000.0)),
    ("restore-transactions", "memory, greatest", Target::NeverAbove(256.0)),
    ("snapshot", "copied or stored", Target::RatioAtMost(1.25)),
    ("snapshot", "memory, greatest", Target::NeverAbove(256.0)),
    ("snapshot", "second, bytes ÷ first", Target::AtMost(0.03)),
    ("snapshot", "second, time ÷ first", Target::AtMost(0.05)),
    ("paced-snapshot", "commit p99.9", Target::RatioAtMost(1.0)),
    ("paced-snapshot", "failed commits", Target::NotMoreThanWithout),
    ("flat-out-snapshot", "commits", Target::RatioAtLeast(0.9)),
    ("flat-out-snapshot", "failed commits", Target::NotMoreThanWithout),
    ("restart", "start to followed", Target::NeverAbove(1000.0)),
    ("restart", "shipped by an unchanged restart", Target::NeverAbove(0.0)),
    ("network-20", "lone commit to store, median", Target::AtMost(150.0)),
    ("network-20", "requests when idle", Target::NeverAbove(0.0)),
    ("network-100", "commit to store, p99", Target::AtMost(1500.0)),
    ("network-100", "requests when idle", Target::NeverAbove(0.0)),
    ("network-restore-20", "downloaded or restored", Target::RatioAtMost(1.3)),
    ("network-restore-20", "memory, greatest", Target::NeverAbove(256.0)),
    ("network-restore-100", "downloaded or restored", Target::RatioAtMost(1.3)),
    ("network-restore-100", "memory, greatest", Target::NeverAbove(256.0)),
    ("network-segments-100", "requests", Target::NeverAbove(250.0)),
    ("network-segments-100", "memory, greatest", Target::NeverAbove(256.0)),
    ("flat-out", "failed commits", Target::NotMoreThanWithout),
    ("paced", "failed commits", Target::NotMoreThanWithout),
    ("paced-full", "failed commits", Target::NotMoreThanWithout),
    ("paced-tmpfs", "failed commits", Target::NotMoreThanWithout),
    ("holds", "failed commits", Target::NotMoreThanWithout),
    ("operator", "failed commits", Target::NotMoreThanWithout),
];

/// What a figure of a scenario is to reach.
pub fn target(scenario: &str, figure: &str) -> Option<Target> {
    let found = TARGETS.iter().find(|(s, f, _)| *s == scenario && *f == figure);
    found.map(|(_, _, target)| *target)
}
