//! The machine: how fast its disk syncs, whether it is quiet, and what a process costs it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::Serialize;

use crate::clock;
use crate::statistics::percentile;

/// How long the machine is looked at, and how often, before a run begins whatever else it does.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: u32 = 60;

/// Quiet is a machine that uses less than this much of its processors.
const QUIET_PERCENT: u64 = 8;

/// How fast a folder's file system makes one page durable.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Disk {
    pub file_system: &'static str,
    pub sync_median_us: u64,
    pub sync_p99_us: u64,
}

impl Disk {
    /// Writes and syncs a page, 200 times.
    pub fn measure(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).context("no file for the sync probe")?;
        let mut times = Vec::new();
        for _ in 0..200 {
            let begun = clock::nanos();
            file.write_all_at(&[1; 4096], 0)?;
            file.sync_data()?;
            times.push((clock::nanos() - begun) / 1000);
        }
        times.sort_unstable();
        let file_system = file_system(&file)?;
        let (sync_median_us, sync_p99_us) = (percentile(&times, 500), percentile(&times, 990));
        Ok(Self { file_system, sync_median_us, sync_p99_us })
    }
}

fn file_system(file: &File) -> Result<&'static str> {
    Ok(match rustix::fs::fstatfs(file)?.f_type {
        0xEF53 => "ext2/3/4",
        0x0102_1994 => "tmpfs",
        0x9123_683E => "btrfs",
        0x5846_5342 => "xfs",
        0x794C_7630 => "overlayfs",
        _ => "another file system",
    })
}

/// Waits until nothing else uses the processors, for half a minute at most; whether it is so.
pub fn wait_for_quiet() -> Result<bool> {
    for _ in 0..LOOKS {
        let (busy, all) = processor_time()?;
        clock::rest(LOOK);
        let (busy_then, all_then) = processor_time()?;
        if (busy_then - busy) * 100 < (all_then - all) * QUIET_PERCENT {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Ticks that the processors were busy, and all of them.
fn processor_time() -> Result<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map_while(|t| t.parse().ok()).collect();
    let all = ticks.iter().take(8).sum::<u64>();
    let idle = ticks.iter().skip(3).take(2).sum::<u64>();
    Ok((all - idle, all))
}

/// The processor time that all threads of a process have taken, those that ended included.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))?;
    Ok(clock_gettime(clock)?.into())
}
