//! A sample to record, and the result.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::db::{Argument, Reader, Row, StoreError, hashes_to_json};
use super::run_name::RunName;
use crate::content::ContentHash;
use crate::pack_id::PackId;

/// A sample to record, with its scores of one pack.
#[derive(Clone, Debug)]
pub struct NewSample {
    /// Id if the sample is new: a fresh `UUIDv7`, so that rows are stored in order of time.
    pub id: Uuid,
    /// Time of recording, stored in UTC to the microsecond.
    pub created: OffsetDateTime,
    /// Run it belongs to, created if it is new; `None` for a sample that no leaderboard counts.
    pub run: Option<RunName>,
    /// Name within the run; `None` to identify it by its content.
    pub name: Option<String>,
    /// What the scores depend on; a repetition must have the same content.
    pub inputs: SampleInputs,
    /// Width of the image in pixels.
    pub width: u32,
    /// Height of the image in pixels.
    pub height: u32,
    /// Pack that the scores were computed with.
    pub pack: PackId,
    /// Version of the service that computed them.
    pub service_version: String,
    /// Scores in any order, at most one per metric.
    pub scores: Vec<NewScore>,
    /// What is kept beside the scores.
    pub extras: Extras,
}

impl NewSample {
    /// Returns the name within the run.
    pub(super) fn name(&self) -> Cow<'_, str> {
        self.name.as_deref().map_or_else(|| self.inputs.content.to_hex().into(), Cow::from)
    }
}

/// What the scores of a sample depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleInputs {
    /// Hash of all of it.
    pub content: ContentHash,
    /// Prompt, if one was sent.
    pub prompt: Option<String>,
    /// Hash of the generated image's file.
    pub image: ContentHash,
    /// Hashes of the reference images' files, in order.
    pub references: Vec<ContentHash>,
    /// Hashes of the auxiliary images' files, in order.
    pub auxiliary: Vec<ContentHash>,
    /// Metadata, stored as it was sent: attributes, detectables, relations, categories.
    pub metadata: serde_json::Value,
}

impl SampleInputs {
    /// Columns of a table with inputs, in the order of [`arguments`](Self::arguments).
    pub(super) const COLUMNS: &str =
        "content, prompt, image, reference_hashes, auxiliary_hashes, metadata";

    /// Returns the reference and auxiliary images.
    pub fn photos(&self) -> impl Iterator<Item = &ContentHash> {
        self.references.iter().chain(&self.auxiliary)
    }

    pub(super) fn arguments(&self) -> [Argument; 6] {
        [
            self.content.into(),
            self.prompt.clone().into(),
            self.image.into(),
            hashes_to_json(&self.references).into(),
            hashes_to_json(&self.auxiliary).into(),
            self.metadata.to_string().into(),
        ]
    }

    pub(super) fn read<R: Row>(row: &Reader<'_, R>) -> Result<Self, StoreError> {
        let list = |column: &'static str| {
            let digits: Vec<String> = row.json(column)?;
            let hash = |hex: &String| {
                ContentHash::from_hex(hex)
                    .ok_or_else(|| row.corrupt(column, "contains a value that is not a hash"))
            };
            digits.iter().map(hash).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            content: row.hash("content")?,
            prompt: row.optional_text("prompt")?,
            image: row.hash("image")?,
            references: list("reference_hashes")?,
            auxiliary: list("auxiliary_hashes")?,
            metadata: row.json("metadata")?,
        })
    }
}

/// What is kept beside the scores of a sample. The store does not interpret it.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// The evidence, if it is kept.
    pub evidence: Option<Bytes>,
    /// Thumbnails of images that have none, or an old one.
    pub thumbnails: Vec<NewThumbnail>,
    /// Time at which scoring began: nothing is kept of an image that was deleted since. `None` for
    /// a pending sample, which is gone if one of its images was deleted on request.
    pub began: Option<OffsetDateTime>,
    /// Faces that the run needs when it is finished: a pending sample is recorded only if they are
    /// stored ([`FacesNotStored`](super::StoreError::FacesNotStored)).
    pub faces: Option<NeededFaces>,
}

/// Images whose faces must be stored.
#[derive(Clone, Debug)]
pub struct NeededFaces {
    /// Hashes of the images' files.
    pub images: Vec<ContentHash>,
    /// Digest of the graphs that searched them.
    pub graphs: ContentHash,
}

/// A thumbnail to store.
#[derive(Clone, Debug)]
pub struct NewThumbnail {
    /// Hash of the image's file.
    pub image: ContentHash,
    /// The thumbnail as WebP.
    pub webp: Bytes,
}

/// Result of recording a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Id of the sample: the given one, or that of the sample recorded before.
    pub sample: Uuid,
    /// Id of the run, if it belongs to one.
    pub run: Option<Uuid>,
    /// Change that was made.
    pub outcome: RecordOutcome,
}

/// Effect of storing the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Outcome)]
pub enum RecordOutcome {
    /// The sample is new.
    Created,
    /// The sample had all these scores already: nothing was written, and the first numbers stay.
    Repeated,
    /// The sample existed: scores of further metrics or of another pack were added, and scores of
    /// another version of a metric were replaced, in the summaries too.
    Rescored,
}

/// One metric's score of a new sample.
#[derive(Clone, Debug)]
pub struct NewScore {
    /// Code of the metric.
    pub metric: String,
    /// Version of the metric's definition.
    pub metric_version: u32,
    /// Number, or the reason why there is none.
    pub value: ScoreValue,
    /// Flags for a reader of the number (`truncated`, …).
    pub flags: Vec<String>,
}

/// Value of a metric for a sample: a number, or the reason why there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum ScoreValue {
    /// A finite number.
    Number(f64),
    /// Null, with the reason's code (`no_face_in_reference`, `no_detectables`, …); never counted as
    /// 0.
    Null {
        /// Code of the reason.
        reason: String,
    },
}

impl ScoreValue {
    /// Returns the number, if there is one.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(*value),
            Self::Null { .. } => None,
        }
    }
}
