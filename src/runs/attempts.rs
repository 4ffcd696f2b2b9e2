//! Which samples are being scored, written down before each begins: what was under way when the process was killed is known to
//! the next one.
//!
//! A sample that kills the process (for want of memory, or by a defect of a library) would be the oldest again after each restart
//! and kill it again. So whatever was in flight at a death is tried alone first. Only who was alone when the process died is
//! charged with it, and gives up after [`DEATHS`]; a process that is killed at random hits nobody that often in a row.
//!
//! The note is a file in the spool folder, which one process owns. It is not synced: a killed process loses nothing by that,
//! and a power cut is no sample's fault.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How often a sample may end the process while nothing else was being scored.
pub(super) const DEATHS: u32 = 3;

/// The note of one spool folder.
pub(super) struct Attempts {
    path: PathBuf,
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
            let deaths = note.suspects.entry(sample).or_default();
            *deaths += u32::from(alone);
        }
        let attempts = Self { path, note: Mutex::new(note) };
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
        assert_eq!(second.suspected(a), Some(1));
        second.begin(a);
        second.end(a);
        assert_eq!(Attempts::open(folder.path()).unwrap().suspected(a), None);
    }

    #[test]
    fn a_note_that_was_cut_off_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("in-flight.json"), "{\"in_fli").unwrap();
        let [a] = ids();
        assert_eq!(Attempts::open(folder.path()).unwrap().suspected(a), None);
    }
}
