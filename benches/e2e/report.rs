//! What was measured, as a table and as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::figure::{Figure, Target, target};
use crate::machine::Disk;
use crate::scenario::Scenario;
use crate::side::Side;
use crate::statistics::Spread;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub writer: String,
    pub pairs: u32,
    pub scenarios: Vec<Measured>,
}

/// What was measured of one scenario.
#[derive(Debug, Serialize)]
pub struct Measured {
    name: &'static str,
    title: &'static str,
    disk: Disk,
    /// Runs that began although the machine was not quiet.
    pub disturbed: u32,
    rows: Vec<Row>,
}

/// One figure of one side.
#[derive(Debug, Serialize)]
struct Row {
    figure: &'static str,
    unit: &'static str,
    side: String,
    /// One value a pair.
    values: Vec<f64>,
    /// Each divided by the one without a replicator of the same pair.
    ratios: Vec<f64>,
    target: Option<Target>,
    reached: Option<bool>,
}

impl Measured {
    pub fn new(scenario: &Scenario, disk: Disk) -> Self {
        let (name, title) = (scenario.name, scenario.title);
        Self { name, title, disk, disturbed: 0, rows: Vec::new() }
    }

    /// Takes what a run of one side yielded. That of [`Side::Without`] comes first in every pair, if it
    /// takes part.
    pub fn take(&mut self, side: &Side, figures: &[Figure]) {
        for figure in figures {
            let without = self.row(figure.name, &Side::Without).and_then(|row| row.values.last());
            let ratio = without.filter(|base| **base != 0.0).map(|base| figure.value / base);
            if self.row(figure.name, side).is_none() {
                self.rows.push(self.new_row(figure, side));
            }
            let name = side.name();
            let row = self.rows.iter_mut().find(|r| r.figure == figure.name && r.side == name);
            if let Some(row) = row {
                row.values.push(figure.value);
                row.ratios.extend(ratio.filter(|_| *side != Side::Without));
            }
        }
    }

    fn new_row(&self, figure: &Figure, side: &Side) -> Row {
        let target = target(self.name, figure.name).filter(|_| *side == Side::With);
        let (values, ratios) = (Vec::new(), Vec::new());
        let Figure { name, unit, .. } = *figure;
        Row { figure: name, unit, side: side.name(), values, ratios, target, reached: None }
    }

    /// The medians of the Litestreams, the oldest first.
    fn litestreams(&self, figure: &str) -> Vec<f64> {
        let of_litestream = |row: &&Row| row.figure == figure && row.side.starts_with("litestream");
        let rows = self.rows.iter().filter(of_litestream);
        rows.filter_map(|row| Spread::of(&row.values)).map(|spread| spread.median).collect()
    }

    fn row(&self, figure: &str, side: &Side) -> Option<&Row> {
        let name = side.name();
        self.rows.iter().find(|row| row.figure == figure && row.side == name)
    }

    /// Sorts the rows by figure, and judges them.
    pub fn finish(mut self) -> Self {
        let mut figures: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !figures.contains(&row.figure) {
                figures.push(row.figure);
            }
        }
        let sum = |row: &Row| row.values.iter().sum::<f64>();
        let judge = |row: &Row| {
            let without = self.row(row.figure, &Side::Without).map_or(0.0, sum);
            row.target
                .and_then(|target| row.reaches(target, without, &self.litestreams(row.figure)))
        };
        let judged: Vec<_> = self.rows.iter().map(judge).collect();
        for (row, reached) in self.rows.iter_mut().zip(judged) {
            row.reached = reached;
        }
        self.rows.sort_by_key(|row| figures.iter().position(|figure| *figure == row.figure));
        self
    }

    /// The table.
    pub fn table(&self) -> String {
        let Self { name, title, disk, disturbed, rows } = self;
        let Disk { file_system, sync_median_us, sync_p99_us } = disk;
        let mut text = format!(
            "\n{name}: {title}\n{file_system}, sync of a page {sync_median_us} µs, p99 {sync_p99_us} µs"
        );
        if *disturbed > 0 {
            write!(text, "; {disturbed} runs began on a machine that was not quiet").ok();
        }
        let (range, ratio) = ("least to greatest", "÷ without");
        let columns = format!("{:>10} {range:>21}  {ratio:>9} {range:>17}  to reach", "median");
        writeln!(text, "\n  {:32} {:17} {columns}", "figure", "side").ok();
        let mut before = "";
        for row in rows {
            let label = if row.figure == before { String::new() } else { row.label() };
            before = row.figure;
            writeln!(text, "  {label:32} {}", row.text()).ok();
        }
        text
    }
}

impl Row {
    fn label(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" ({})", self.unit) };
        format!("{}{unit}", self.figure)
    }

    fn text(&self) -> String {
        let spread = |values: &[f64]| {
            Spread::of(values).map_or_else(Default::default, |s| {
                (short(s.median), format!("{} to {}", short(s.least), short(s.greatest)))
            })
        };
        let ((median, range), (ratio, ratios)) = (spread(&self.values), spread(&self.ratios));
        let side = &self.side;
        let mut text = format!("{side:17} {median:>10} {range:>21}  {ratio:>9} {ratios:>17}");
        if let Some(target) = self.target {
            let verdict = match self.reached {
                Some(true) => "reached",
                Some(false) => "MISSED",
                None => "not measured",
            };
            write!(text, "  {}: {verdict}", describe(target)).ok();
        }
        text.trim_end().to_owned()
    }

    /// Whether a target is reached; `None` where nothing says so.
    fn reaches(&self, target: Target, without: f64, litestreams: &[f64]) -> Option<bool> {
        let values = Spread::of(&self.values)?;
        let share = |other: f64| values.median / other;
        let ratio = Spread::of(&self.ratios).map(|spread| spread.median);
        match target {
            Target::AtMost(most) => Some(values.median <= most),
            Target::NeverAbove(most) => Some(values.greatest <= most),
            Target::RatioAtLeast(least) => ratio.map(|ratio| ratio >= least),
            Target::RatioAtMost(most) => ratio.map(|ratio| ratio <= most),
            Target::OfLitestreamAtMost(most) => litestreams.first().map(|l| share(*l) <= most),
            Target::OfBestLitestreamAtMost(most) => {
                litestreams.iter().copied().min_by(f64::total_cmp).map(|best| share(best) <= most)
            }
            Target::NotMoreThanWithout => Some(self.values.iter().sum::<f64>() <= without),
            Target::All => Some(self.values.iter().all(|value| *value >= 100.0)),
        }
    }
}

fn describe(target: Target) -> String {
    match target {
        Target::AtMost(most) => format!("≤ {most}"),
        Target::NeverAbove(most) => format!("always ≤ {most}"),
        Target::RatioAtLeast(least) => format!("ratio ≥ {least}"),
        Target::RatioAtMost(most) => format!("ratio ≤ {most}"),
        Target::OfLitestreamAtMost(most) => format!("≤ {most} of Litestream's"),
        Target::OfBestLitestreamAtMost(most) => format!("≤ {most} of the better Litestream's"),
        Target::NotMoreThanWithout => "no more than without".to_owned(),
        Target::All => "all".to_owned(),
    }
}

/// Three digits are enough to read.
fn short(value: f64) -> String {
    match value.abs() {
        small if small < 9.995 => format!("{value:.2}"),
        small if small < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
