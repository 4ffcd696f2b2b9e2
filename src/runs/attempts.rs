//! Which samples are being scored, written down before each begins: what was under way when the process was killed is known to
//! the next one.
//!
//! A sample that kills the process (for want of memory, or by a defect of a library) would be the oldest again after each restart
//! and kill it again. So whatever was in flight at a death is a suspect, and is tried alone. Only a suspect that was alone when the
//! process died again is charged with it, and is given up after [`DEATHS`].
//!
//! A process that is killed at random must not charge anybody that often. So a suspect that was charged is tried again only when the
//! process has lived for a while: others go first, models are warm, and the moment in which a kill would hit it is short.
//!
//! The note is a file in the spool folder, which one process owns. It is not synced: a killed process loses nothing by that,
//! and a power cut is no sample's fault.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How often a sample may end the process while nothing else was being scored. On a machine so busy that kills at random hit an
/// attempt in seven, three deaths condemned six of 2,000 suspects (`docs/RELIABILITY.md`); six would condemn one of 100,000.
pub(super) const DEATHS: u32 = 6;

/// How long the process must have lived before it tries a sample again that was charged.
const REST: Duration = Duration::from_secs(4);

/// The note of one spool folder.
pub(super) struct Attempts {
    path: PathBuf,
    opened: Instant,
    note: Mutex<Note>,
}

#[derive(Default, Serialize, Deserialize)]
struct Note {
    /// Being scored now.
    in_flight: Vec<Uuid>,
    /// Were being scored when the process died, and how often they were alone then.
    suspects: BTreeMap<Uuid, u32>,
}

impl Attempts {
    /// Reads what an earlier process left, and takes its samples in flight for suspects.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("in-flight.json");
        let mut note: Note = match fs::read(&path) {
            // A note that was cut off by a power failure says nothing.
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Note::default(),
            Err(error) => return Err(error),
        };
        let in_flight = std::mem::take(&mut note.in_flight);
        let alone = in_flight.len() == 1;
        for sample in in_flight {
            // One that was no suspect was alone by chance: requests may have been scored beside it.
            note.suspects.entry(sample).and_modify(|deaths| *deaths += u32::from(alone)).or_default();
        }
        let attempts = Self { path, opened: Instant::now(), note: Mutex::new(note) };
        attempts.write(&attempts.note());
        Ok(attempts)
    }

    fn note(&self) -> MutexGuard<'_, Note> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often a sample ended the process while it was alone; none if it is to be scored beside others.
    pub(super) fn suspected(&self, sample: Uuid) -> Option<u32> {
        self.note().suspects.get(&sample).copied()
    }

    /// Whether a sample that was charged is not to be tried yet.
    pub(super) fn rests(&self, sample: Uuid) -> bool {
        match self.suspected(sample) {
            Some(1..DEATHS) => self.opened.elapsed() < REST,
            _ => false,
        }
    }

    /// Writes down that a sample is being scored.
    pub(super) fn begin(&self, sample: Uuid) {
        let mut note = self.note();
        note.in_flight.push(sample);
        self.write(&note);
    }

    /// Writes down that the process survived a sample.
    pub(super) fn end(&self, sample: Uuid) {
        let mut note = self.note();
        note.in_flight.retain(|each| *each != sample);
        note.suspects.remove(&sample);
        self.write(&note);
    }

    fn write(&self, note: &Note) {
        let text = serde_json::to_vec(note).expect("plain data always serialises");
        let beside = self.path.with_extension("new");
        if let Err(error) = fs::write(&beside, text).and_then(|()| fs::rename(&beside, &self.path)) {
            tracing::warn!(%error, "what is being scored could not be written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids<const N: usize>() -> [Uuid; N] {
        std::array::from_fn(|_| Uuid::now_v7())
    }

    #[test]
    fn what_was_in_flight_at_a_death_is_suspected_and_only_who_was_alone_is_charged() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c] = ids();
        let first = Attempts::open(folder.path()).unwrap();
        for sample in [a, b, c] {
            first.begin(sample);
        }
        first.end(c);
        let second = Attempts::open(folder.path()).unwrap();
        assert_eq!([a, b, c].map(|sample| second.suspected(sample)), [Some(0), Some(0), None]);
        second.begin(a);
        for death in 1..=DEATHS {
            let next = Attempts::open(folder.path()).unwrap();
            assert_eq!([a, b].map(|sample| next.suspected(sample)), [Some(death), Some(0)]);
            next.begin(a);
        }
    }

    #[test]
    fn whom_the_process_survived_is_suspected_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let [a] = ids();
        Attempts::open(folder.path()).unwrap().begin(a);
        let second = Attempts::open(folder.path()).unwrap();
        assert_eq!(second.suspected(a), Some(0), "it was alone by chance");
        second.begin(a);
        second.end(a);
        assert_eq!(Attempts::open(folder.path()).unwrap().suspected(a), None);
    }

    #[test]
    fn a_sample_that_was_charged_rests_until_the_process_has_lived_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let [a] = ids();
        Attempts::open(folder.path()).unwrap().begin(a);
        for death in 0..=DEATHS {
            let mut now = Attempts::open(folder.path()).unwrap();
            assert_eq!(now.suspected(a), Some(death));
            assert_eq!(now.rests(a), (1..DEATHS).contains(&death), "{death}");
            now.opened = Instant::now().checked_sub(REST).unwrap();
            assert!(!now.rests(a));
            now.begin(a);
        }
    }

    #[test]
    fn a_note_that_was_cut_off_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("in-flight.json"), "{\"in_fli").unwrap();
        let [a] = ids();
        assert_eq!(Attempts::open(folder.path()).unwrap().suspected(a), None);
    }
}
