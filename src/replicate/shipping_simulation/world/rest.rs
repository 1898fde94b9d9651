//! How it ends: nothing fails any more, and everything becomes durable.

use std::collections::BTreeSet;
use std::time::Duration;

use genesis_wal::name::ObjectName;

use super::World;
use crate::replicate::shipping_simulation::network::Weather;

/// How long it may take until everything is durable, once nothing fails any more.
const PATIENCE: Duration = Duration::from_mins(15);

impl World {
    /// Nothing fails any more: one host is left, and everything it has becomes durable.
    pub fn come_to_rest(&mut self) {
        {
            let mut sea = self.sea();
            (sea.weather, sea.listed_at_once) = (Weather::Calm, usize::MAX);
            sea.note(|| "calm".to_owned());
        }
        for number in 0..self.hosts.len() {
            if let Some(life) = &mut self.hosts[number].life {
                life.stopped_until = Duration::ZERO;
            }
            if number > 0 {
                self.hosts[number].finish();
            }
        }
        let deadline = self.now + PATIENCE;
        while self.hosts[1..].iter().any(|host| host.life.is_some()) {
            assert!(self.now < deadline, "the others do not end");
            self.pass(Duration::from_millis(500));
        }
        self.commit(0);
        let deadline = self.now + PATIENCE;
        while !self.is_durable(0) {
            assert!(self.now < deadline, "not everything has become durable");
            if self.hosts[0].life.is_none() {
                self.hosts[0].allowed.takeover = true;
                self.start(0, None);
            }
            self.pass(Duration::from_millis(500));
        }
    }

    /// Whether the current state of a host's database is durable.
    fn is_durable(&self, number: usize) -> bool {
        let host = &self.hosts[number];
        let Some((life, database)) = host.life.as_ref().zip(host.database.as_ref()) else {
            return false;
        };
        let notary = self.notary();
        let Some(last) = notary.last_of(life.process) else { return false };
        let database = database.lock().unwrap();
        let is_current = notary.states(last).any(|(_, pages)| pages == database.current());
        is_current && life.durable() >= Some(last.1)
    }

    /// Counts what has come of it.
    pub fn count(&mut self) {
        let names: Vec<ObjectName> = self
            .sea()
            .objects()
            .change(|objects| objects.keys().filter_map(|key| key.parse().ok()).collect());
        let is_merged = |name: &&ObjectName| matches!(name, ObjectName::Segment(s) if s.level > 0);
        self.tally.merged = names.iter().filter(is_merged).count() as u64;
        let line = |name: &ObjectName| match name {
            ObjectName::Manifest(manifest) => Some(manifest.generation),
            _ => None,
        };
        let lines: BTreeSet<_> = names.iter().filter_map(line).collect();
        self.tally.lines = lines.len() as u64;
        let notary = self.notary.lock().unwrap();
        (self.tally.coarse, self.tally.meanwhile) = (notary.coarse, notary.meanwhile);
        (self.tally.adopted, self.tally.confirmed) = (notary.adopted, notary.confirmed);
    }

    /// Without commits there are no requests; at the end nothing is left in the spool.
    pub fn end(&mut self) {
        let interval = self.hosts[0].settings.snapshot_interval;
        self.pass(interval + Duration::from_secs(30));
        let before = self.sea().requests;
        self.pass(Duration::from_hours(1));
        let after = self.sea().requests;
        assert_eq!(after - before, 0, "an idle database makes requests");
        let deadline = self.now + PATIENCE;
        self.hosts[0].finish();
        while self.hosts[0].life.is_some() {
            assert!(self.now < deadline, "it does not end");
            self.pass(Duration::from_secs(1));
        }
        let left = self.waiting_in_spool(0);
        assert!(left.is_empty(), "something waits in the spool: {left:?}");
    }
}
