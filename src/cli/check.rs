//! `check`: what a place can do for a replica, and what is missing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::args::CheckArgs;
use super::databases::Configuration;
use super::exit::{Code, Failure};
use super::place::Place;
use super::{print, print_json};
use crate::check::{Finding, Outcome, examine};
use crate::store::retry::Persistence;

/// How long a place that fails is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn run(args: CheckArgs, configuration: &Configuration) -> Result<Code, Failure> {
    let place = configuration.replica(&args.source)?;
    let missing = missing_folders(&place);
    let findings = examine(place.examined(), Persistence::For(PATIENCE)).await;
    // Perhaps it was mistyped. One in which something is stays.
    for folder in missing {
        std::fs::remove_dir(folder).ok();
    }
    let is_usable = findings.iter().all(|finding| finding.outcome != Outcome::Failed);
    if args.json {
        let findings: Vec<_> = findings.iter().map(Shown::of).collect();
        print_json(&Report { replica: place.to_string(), usable: is_usable, findings })?;
    } else {
        print(&text(&place.to_string(), &findings, is_usable))?;
    }
    Ok(if is_usable { Code::DONE } else { Code::STORAGE })
}

/// The folders that are not there yet, the inner ones first.
fn missing_folders(place: &Place) -> Vec<PathBuf> {
    let Place::Folder(folder) = place else { return Vec::new() };
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    folder.ancestors().take_while(is_missing).map(Path::to_owned).collect()
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    replica: String,
    usable: bool,
    findings: Vec<Shown<'a>>,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    about: &'a str,
    outcome: Outcome,
    words: &'a str,
}

impl<'a> Shown<'a> {
    fn of(finding: &'a Finding) -> Self {
        Self { about: finding.about, outcome: finding.outcome, words: &finding.words }
    }
}

fn text(place: &str, findings: &[Finding], is_usable: bool) -> String {
    let line = |Finding { about, outcome, words }: &Finding| {
        let outcome = match outcome {
            Outcome::Ok => "ok",
            Outcome::Note => "note",
            Outcome::Failed => "FAILED",
        };
        format!("  {outcome:<6}  {about:<18}  {words}\n")
    };
    let lines: String = findings.iter().map(line).collect();
    let no = if is_usable { "a" } else { "no" };
    format!("{place}\n{lines}{no} replica can be kept here and restored\n")
}
