//! Finds out what a place can do for a replica, by doing it with a marker that is removed again.

use std::sync::Arc;

use bytes::Bytes;
use genesis_wal::name::{MARKERS_PREFIX, ObjectName};

use crate::durable;
use crate::store::retry::{Persistence, Retrying, persist};
use crate::store::{Body, Claims, Examine, Store, StoreError};

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// About what.
    pub about: &'static str,
    /// How it is.
    pub outcome: Outcome,
    /// In words.
    pub words: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Good enough: something to know.
    Note,
    /// A replica cannot be kept or restored like this.
    Failed,
}

/// A place under examination.
#[derive(Debug)]
struct Examination {
    /// For what is tried once.
    place: Arc<dyn Examine>,
    /// For what a bad moment shall not decide.
    store: Retrying,
    persistence: Persistence,
    findings: Vec<Finding>,
}

/// Tries everything. What a step needs of an earlier one that failed is not tried.
pub async fn examine(place: Arc<dyn Examine>, persistence: Persistence) -> Vec<Finding> {
    let store = Retrying::new(Arc::<dyn Examine>::clone(&place), persistence);
    let mut examination = Examination { place, store, persistence, findings: Vec::new() };
    // Where there is no answer, or nothing to try with, that has been said now.
    if examination.run().await.is_none() && examination.findings.is_empty() {
        examination.tell("random numbers", Outcome::Failed, "the kernel has none to give");
    }
    examination.findings
}

impl Examination {
    /// `None` when it ended before its end.
    async fn run(&mut self) -> Option<()> {
        let marker = ObjectName::Marker(durable::random().ok()?);
        let damaged = ObjectName::Marker(durable::random().ok()?);
        self.look_around().await?;
        let bytes = Bytes::from(marker.to_string());
        let written = self.store.create(&marker, Body::Bytes(bytes.clone())).await;
        self.note("write", written, |()| "objects can be stored".to_owned())?;
        self.read(&marker, &bytes).await;
        self.find(&marker).await;
        self.claim(&marker).await;
        self.damage(&damaged).await;
        self.parts(&damaged).await;
        self.remove([&marker, &damaged]).await;
        Some(())
    }

    async fn look_around(&mut self) -> Option<()> {
        let listed = self.store.list("").await;
        let words = |listed: &Vec<_>| match listed.len() {
            0 => "nothing is there yet".to_owned(),
            count => format!("{count} objects are there"),
        };
        let is_unreachable = listed.as_ref().is_err_and(|error| error.kind.is_passing());
        self.note("list", listed, |listed| words(&listed));
        (!is_unreachable).then_some(())
    }

    async fn read(&mut self, marker: &ObjectName, bytes: &Bytes) {
        let (good, bad) = ("what is stored is read", "what is read is not what was stored");
        let whole = self.store.get(marker).await.map(|found| found == bytes);
        self.judge("read", whole, good, (Outcome::Failed, bad));
        let range =
            self.store.get_range(marker, 3..9).await.map(|found| found == bytes.slice(3..9));
        self.judge("read ranges", range, good, (Outcome::Failed, bad));
    }

    async fn find(&mut self, marker: &ObjectName) {
        let there = self.store.exists(marker).await;
        let bad = (Outcome::Failed, "what is stored is not seen");
        self.judge("look", there, "what is stored is seen", bad);
        let listed = self.store.list(MARKERS_PREFIX).await;
        let listed = listed.map(|listed| listed.iter().any(|listed| listed.name == *marker));
        let bad =
            "what is stored is not listed at once: a restore right after a commit may miss it";
        self.judge("list at once", listed, "what is stored is listed", (Outcome::Note, bad));
    }

    async fn claim(&mut self, marker: &ObjectName) {
        let claims = self.store.claims(marker).await.map(|claims| claims == Claims::Exclusive);
        let good = "nothing that is stored can be replaced";
        let bad =
            "they are not honoured: that nothing is replaced rests on a look before each write";
        self.judge("conditional writes", claims, good, (Outcome::Note, bad));
    }

    async fn damage(&mut self, damaged: &ObjectName) {
        let Some(refused) = self.place.refuses_damage(damaged).await.transpose() else { return };
        let good = "what arrives damaged is refused";
        let bad =
            "what arrives damaged is stored: it is found when it is read, by our own checksums";
        self.judge("checksums", refused, good, (Outcome::Note, bad));
    }

    async fn parts(&mut self, name: &ObjectName) {
        let tried = persist(self.persistence, || self.place.takes_parts(name)).await;
        let Some(given_up) = tried.transpose() else { return };
        let bad =
            "they can be, but an upload that is given up is not: let a lifecycle rule do that";
        let good = "objects can be stored in parts";
        self.judge("parts", given_up, good, (Outcome::Note, bad));
    }

    async fn remove(&mut self, markers: [&ObjectName; 2]) {
        let mut left = Vec::new();
        for marker in markers {
            if let Err(error) = persist(self.persistence, || self.place.remove(marker)).await {
                left.push(format!("{} ({marker} is left)", crate::describe(&error)));
            }
        }
        if left.is_empty() {
            return self.tell("remove", Outcome::Ok, "the marker is gone again");
        }
        let words = left.join("; ");
        let words = format!("{words}; whoever only follows a database needs no permission to");
        self.tell("remove", Outcome::Note, &words);
    }

    fn tell(&mut self, about: &'static str, outcome: Outcome, words: &str) {
        self.findings.push(Finding { about, outcome, words: words.to_owned() });
    }

    /// Whether something is good, and what is said of it if not.
    fn judge(
        &mut self,
        about: &'static str,
        is_good: Result<bool, StoreError>,
        good: &str,
        (outcome, bad): (Outcome, &str),
    ) {
        match self.or_failed(about, is_good) {
            Some(true) => self.tell(about, Outcome::Ok, good),
            Some(false) => self.tell(about, outcome, bad),
            None => {}
        }
    }

    /// What was answered; no answer is a finding.
    fn or_failed<T>(&mut self, about: &'static str, answer: Result<T, StoreError>) -> Option<T> {
        answer.map_err(|error| self.tell(about, Outcome::Failed, &crate::describe(&error))).ok()
    }

    /// Notes an answer, in words.
    fn note<T>(
        &mut self,
        about: &'static str,
        answer: Result<T, StoreError>,
        words: impl FnOnce(T) -> String,
    ) -> Option<()> {
        let words = words(self.or_failed(about, answer)?);
        self.tell(about, Outcome::Ok, &words);
        Some(())
    }
}
