//! Upload of samples that the server does not have yet.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::multipart::Form;
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::{Item, contents::address};
use crate::client::{Client, ClientError, SampleState, file_part};
use crate::content::ContentHash;
use crate::sync::lock;

/// Problem codes that concern the whole run, so that further samples would fail too.
const OF_THE_RUN: [&str; 3] = ["run_finished", "pack_conflict", "not_found"];

/// An upload to a run.
#[derive(Debug)]
pub struct Upload {
    client: Client,
    run: Uuid,
    /// Content hashes of the samples on the server, by name.
    there: HashMap<String, String>,
    photos: Mutex<HashMap<PathBuf, Arc<Photo>>>,
}

/// Result of an upload.
#[derive(Debug, Default)]
pub struct Uploaded {
    /// Number of samples sent now.
    pub sent: usize,
    /// Number of samples that the server already had.
    pub present: usize,
    /// Samples refused by the server, by name.
    pub failures: Vec<Failure>,
}

/// A sample that could not be sent.
#[derive(Debug)]
pub struct Failure {
    /// The sample's name.
    pub name: String,
    /// Reason of the failure.
    pub why: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "problem: {}: {}", self.name, self.why)
    }
}

/// A photo of the dataset, shared by many samples.
#[derive(Debug)]
struct Photo {
    path: PathBuf,
    hash: ContentHash,
    /// Whether the server has the photo for this run. If it does not, the lock is held while the
    /// photo is sent, so that it is sent once.
    there: Arc<tokio::sync::Mutex<bool>>,
}

/// Reason that a sample was not sent.
enum Stopped {
    Sample(String),
    Run(ClientError),
}

impl From<ClientError> for Stopped {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Problem { code, detail, .. } if !OF_THE_RUN.contains(&code.as_str()) => {
                Self::Sample(format!("{code}: {detail}"))
            }
            _ => Self::Run(error),
        }
    }
}

impl Upload {
    /// Lists the samples of a run that the server already has.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn begin(client: &Client, run: Uuid) -> Result<Self, ClientError> {
        let there = client.accepted_samples(run, None).await?;
        let there = there.into_iter().filter(|sample| sample.state != SampleState::Failed);
        Ok(Self {
            client: client.clone(),
            run,
            there: there.map(|sample| (sample.name, sample.content)).collect(),
            photos: Mutex::default(),
        })
    }

    /// Sends samples, at most `at_once` concurrently, and calls `done` after each with the number
    /// of failures so far.
    ///
    /// # Errors
    /// Errors that concern all samples: the server does not respond, the run is finished, another
    /// pack is loaded. Failures of single samples are in the result.
    pub async fn send(
        &self,
        items: &[Item],
        at_once: usize,
        mut done: impl FnMut(usize),
    ) -> Result<Uploaded, ClientError> {
        let mut result = Uploaded::default();
        let mut uploads = stream::iter(items)
            .map(|item| async move {
                match self.send_one(item).await {
                    Ok(sent) => Ok((item, Ok(sent))),
                    Err(Stopped::Sample(why)) => Ok((item, Err(why))),
                    Err(Stopped::Run(error)) => Err(error),
                }
            })
            .buffer_unordered(at_once.max(1));
        while let Some((item, outcome)) = uploads.try_next().await? {
            match outcome {
                Ok(true) => result.sent += 1,
                Ok(false) => result.present += 1,
                Err(why) => result.failures.push(Failure { name: item.name.clone(), why }),
            }
            done(result.failures.len());
        }
        result.failures.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(result)
    }

    /// Sends a sample unless the server has it, and returns whether it was sent.
    async fn send_one(&self, item: &Item) -> Result<bool, Stopped> {
        let image = read(&item.image).await?;
        let reference = self.photo(&item.reference).await?;
        let mut auxiliary = Vec::new();
        for path in &item.auxiliary {
            auxiliary.push(self.photo(path).await?);
        }
        let hashes: Vec<ContentHash> = auxiliary.iter().map(|photo| photo.hash).collect();
        let address = address(item, ContentHash::of(&image), reference.hash, &hashes);
        if self.there.get(&item.name).is_some_and(|there| *there == address.to_hex()) {
            return Ok(false);
        }
        loop {
            let mut locks = lock_in_order(&reference, &auxiliary).await;
            let by_hash = locks.iter().all(|there| **there);
            if by_hash {
                locks.clear();
            }
            let photos = Photos::read(&reference, &auxiliary, by_hash).await?;
            let form = || form(item, &image, &photos);
            match self.client.put_sample(self.run, &item.name, form).await {
                Ok(was_there) => {
                    for lock in &mut locks {
                        **lock = true;
                    }
                    return Ok(!was_there);
                }
                // The server has deleted photos or uses another spool folder: they are sent again.
                Err(error) if by_hash && error.code() == Some("image_unknown") => {
                    for mut there in lock_in_order(&reference, &auxiliary).await {
                        *there = false;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns a photo with its hash, which is computed once.
    async fn photo(&self, path: &Path) -> Result<Arc<Photo>, Stopped> {
        let known = || lock(&self.photos);
        if let Some(photo) = known().get(path) {
            return Ok(Arc::clone(photo));
        }
        let hash = ContentHash::of(&read(path).await?);
        let photo = || Arc::new(Photo { path: path.to_owned(), hash, there: Arc::default() });
        // Two samples may get here concurrently: all share the first photo.
        Ok(Arc::clone(known().entry(path.to_owned()).or_insert_with(photo)))
    }
}

/// Locks photos in order of their paths, to avoid deadlocks between samples.
async fn lock_in_order(
    reference: &Arc<Photo>,
    auxiliary: &[Arc<Photo>],
) -> Vec<OwnedMutexGuard<bool>> {
    let all: BTreeMap<&Path, &Arc<Photo>> =
        auxiliary.iter().chain([reference]).map(|photo| (photo.path.as_path(), photo)).collect();
    let mut locks = Vec::new();
    for photo in all.into_values() {
        locks.push(Arc::clone(&photo.there).lock_owned().await);
    }
    locks
}

async fn read(path: &Path) -> Result<Bytes, Stopped> {
    crate::read::bytes_in_background(path)
        .await
        .map(Bytes::from)
        .map_err(|error| Stopped::Sample(format!("cannot read {}: {error}", path.display())))
}

/// Photos of a sample as they are sent: either all as hashes or all as files.
struct Photos {
    reference: Sent,
    auxiliary: Vec<Sent>,
}

enum Sent {
    Hash(ContentHash),
    File(Bytes),
}

impl Photos {
    async fn read(
        reference: &Photo,
        auxiliary: &[Arc<Photo>],
        by_hash: bool,
    ) -> Result<Self, Stopped> {
        let mut sent = Vec::new();
        for photo in auxiliary.iter().map(AsRef::as_ref).chain([reference]) {
            sent.push(if by_hash {
                Sent::Hash(photo.hash)
            } else {
                Sent::File(read(&photo.path).await?)
            });
        }
        let reference = sent.pop().expect("the reference is the last");
        Ok(Self { reference, auxiliary: sent })
    }
}

fn form(item: &Item, image: &Bytes, photos: &Photos) -> Form {
    let file = |bytes: &Bytes| file_part(bytes, "image");
    let metadata = serde_json::to_string(&item.metadata).expect("plain data always serialises");
    let mut form = Form::new().text("prompt", item.prompt.clone()).text("metadata", metadata);
    let all = [("reference", &photos.reference)].into_iter();
    for (name, photo) in all.chain(photos.auxiliary.iter().map(|photo| ("auxiliary", photo))) {
        form = match photo {
            Sent::Hash(hash) => form.text(format!("{name}_hash"), hash.to_hex()),
            Sent::File(bytes) => form.part(name, file(bytes)),
        };
    }
    form.part("image", file(image))
}
