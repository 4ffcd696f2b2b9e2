//! Record of the samples in flight, written before each attempt begins, so that the next process
//! knows what was in flight when this one was killed.
//!
//! Every sample in flight at a crash becomes a suspect (`suspects.rs`) and is retried alone. Only a
//! suspect that was alone when the process died again is charged with the crash, and it is given up
//! after [`DEATHS_ALONE`].
//!
//! The note is a file in the folder `store.spool`, which one process owns, also if images are in a
//! bucket. It is not synced: a killed process loses nothing by that, and a power failure is not the
//! fault of any sample.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::suspects::Suspect;
use crate::sync::lock;

/// Number of crashes with only this sample in flight after which it is given up. On a machine so
/// busy that random kills hit one attempt in seven, a limit of three failed six of 2,000 suspects
/// (`docs/RELIABILITY.md`); a limit of six would fail one of 100,000.
pub(super) const DEATHS_ALONE: u32 = 6;

/// Note of the samples in flight of one spool folder.
pub(super) struct Note {
    path: PathBuf,
    opened: Instant,
    samples: Mutex<Samples>,
}

#[derive(Default, Serialize, Deserialize)]
struct Samples {
    /// Samples in flight.
    in_flight: Vec<Uuid>,
    /// Samples that were in flight at a crash, each with the number of crashes charged to it.
    suspects: BTreeMap<Uuid, u32>,
}

impl Note {
    /// Reads the note of the previous process, and turns its samples in flight into suspects.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("in-flight.json");
        let mut note: Samples = match fs::read(&path) {
            // A note truncated by a power failure is ignored.
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Samples::default(),
            Err(error) => return Err(error),
        };
        let in_flight = std::mem::take(&mut note.in_flight);
        let alone = in_flight.len() == 1;
        for sample in in_flight {
            // A sample that was not a suspect was alone by chance: interactive requests may have
            // been in flight too.
            note.suspects
                .entry(sample)
                .and_modify(|deaths| *deaths += u32::from(alone))
                .or_default();
        }
        let this = Self { path, opened: Instant::now(), samples: Mutex::new(note) };
        this.write(&this.note());
        Ok(this)
    }

    fn note(&self) -> MutexGuard<'_, Samples> {
        lock(&self.samples)
    }

    /// Returns what a sample is suspected of; `None` if it may run next to others.
    pub(super) fn suspected(&self, sample: Uuid) -> Option<Suspect> {
        let deaths = self.note().suspects.get(&sample).copied()?;
        Some(Suspect::new(deaths, DEATHS_ALONE, self.opened))
    }

    /// Records that an attempt begins.
    pub(super) fn begin(&self, sample: Uuid) {
        let mut note = self.note();
        note.in_flight.push(sample);
        self.write(&note);
    }

    /// Records that the process survived an attempt, or that the sample was given up.
    pub(super) fn end(&self, sample: Uuid) {
        let mut note = self.note();
        note.in_flight.retain(|each| *each != sample);
        note.suspects.remove(&sample);
        self.write(&note);
    }

    /// Records that a sample is left. It stays a suspect if no attempt had begun.
    pub(super) fn leave(&self, sample: Uuid) {
        if self.note().in_flight.contains(&sample) {
            self.end(sample);
        }
    }

    fn write(&self, note: &Samples) {
        let text = serde_json::to_vec(note).expect("plain data always serialises");
        let temporary = self.path.with_extension("new");
        if let Err(error) =
            fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &self.path))
        {
            tracing::warn!(%error, "failed to write the note of samples in flight");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::suspects::REST, *};

    /// Crashes that a sample is charged with; `None` if it is no suspect.
    fn deaths(note: &Note, sample: Uuid) -> Option<u32> {
        note.suspected(sample).map(|suspect| suspect.deaths)
    }

    fn ids<const N: usize>() -> [Uuid; N] {
        std::array::from_fn(|_| Uuid::now_v7())
    }

    #[test]
    fn a_suspect_that_is_left_untried_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ids();
        let first = Note::open(folder.path()).unwrap();
        first.begin(a);
        first.begin(b);
        let second = Note::open(folder.path()).unwrap();
        second.leave(a);
        assert_eq!(deaths(&second, a), Some(0));
        second.begin(b);
        second.leave(b);
        assert_eq!(deaths(&second, b), None, "the process survived its attempt");
    }

    #[test]
    fn samples_in_flight_at_a_crash_are_suspects_and_only_a_lone_suspect_is_charged() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c] = ids();
        let first = Note::open(folder.path()).unwrap();
        for sample in [a, b, c] {
            first.begin(sample);
        }
        first.end(c);
        let second = Note::open(folder.path()).unwrap();
        assert_eq!([a, b, c].map(|sample| deaths(&second, sample)), [Some(0), Some(0), None]);
        second.begin(a);
        for death in 1..=DEATHS_ALONE {
            let next = Note::open(folder.path()).unwrap();
            assert_eq!([a, b].map(|sample| deaths(&next, sample)), [Some(death), Some(0)]);
            next.begin(a);
        }
    }

    #[test]
    fn a_sample_that_the_process_survived_is_no_longer_a_suspect() {
        let folder = tempfile::tempdir().unwrap();
        let [a] = ids();
        Note::open(folder.path()).unwrap().begin(a);
        let second = Note::open(folder.path()).unwrap();
        assert_eq!(deaths(&second, a), Some(0), "it was alone by chance");
        second.begin(a);
        second.end(a);
        assert_eq!(deaths(&Note::open(folder.path()).unwrap(), a), None);
    }

    #[test]
    fn a_charged_sample_rests_until_the_process_has_run_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let [a] = ids();
        Note::open(folder.path()).unwrap().begin(a);
        for death in 0..=DEATHS_ALONE {
            let now = Note::open(folder.path()).unwrap();
            let suspect = now.suspected(a).unwrap();
            assert_eq!(suspect.deaths, death);
            assert_eq!(suspect.gives_up, death == DEATHS_ALONE);
            let rests = (1..DEATHS_ALONE).contains(&death).then_some(now.opened + REST);
            assert_eq!(suspect.rests_until, rests, "{death}");
            now.begin(a);
        }
    }

    #[test]
    fn a_truncated_note_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("in-flight.json"), "{\"in_fli").unwrap();
        let [a] = ids();
        assert_eq!(deaths(&Note::open(folder.path()).unwrap(), a), None);
    }
}
