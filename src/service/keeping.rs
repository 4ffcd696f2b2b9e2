//! What is kept beside scores, as the operator has configured it (`docs/PRIVACY.md`).

use std::collections::{BTreeMap, HashSet};

use time::{Duration, OffsetDateTime};

use super::Evidence;
use crate::{
    clock,
    config::Config,
    content::ContentHash,
    scoring::{EncodedImage, Sample, Scorecard, Scoring},
    store::{Extras, NewThumbnail, Store},
};

/// Age after which a thumbnail that is needed again is stored anew, so that its retention restarts.
const OLD: Duration = Duration::DAY;

/// What is kept beside the scores of a sample.
#[derive(Debug, Clone, Copy)]
pub struct Keeping {
    evidence_days: u32,
    faces: bool,
    thumbnail_side: u32,
}

impl Keeping {
    /// Reads the configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            evidence_days: config.store.evidence_retention_days,
            faces: config.privacy.face_retention_days > 0,
            thumbnail_side: config.store.thumbnails,
        }
    }

    /// Returns true if thumbnails are kept.
    #[must_use]
    pub fn has_thumbnails(self) -> bool {
        self.thumbnail_side > 0
    }

    /// Returns the retention of evidence in days; 0 if none is kept.
    #[must_use]
    pub fn evidence_days(self) -> u32 {
        self.evidence_days
    }

    /// Collects what is kept of a scored sample. `began` is as in [`Extras`]. A thumbnail that
    /// fails is left out: it is no reason to lose scores.
    pub async fn extras(
        self,
        store: &Store,
        scoring: &Scoring,
        sample: &Sample,
        card: &Scorecard,
        began: Option<OffsetDateTime>,
    ) -> Extras {
        let evidence = || Evidence::of(card, scoring.pack()).to_stored(self.faces);
        let thumbnails = if self.has_thumbnails() {
            self.thumbnails(store, scoring, sample).await
        } else {
            Vec::new()
        };
        let evidence = if self.evidence_days > 0 { evidence() } else { None };
        Extras { evidence, thumbnails, began, faces: None }
    }

    async fn thumbnails(
        self,
        store: &Store,
        scoring: &Scoring,
        sample: &Sample,
    ) -> Vec<NewThumbnail> {
        let photos = sample.references.iter().chain(&sample.auxiliary);
        let images: BTreeMap<ContentHash, &EncodedImage> =
            std::iter::once(&sample.image).chain(photos).map(|image| (image.hash, image)).collect();
        let hashes: Vec<_> = images.keys().copied().collect();
        let known = store.with_thumbnail(&hashes, clock::now() - OLD).await;
        let known = known.unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to look thumbnails up");
            HashSet::new()
        });
        let mut thumbnails = Vec::new();
        for (hash, file) in images.into_iter().filter(|(hash, _)| !known.contains(hash)) {
            match scoring.thumbnail(file, self.thumbnail_side).await {
                Ok(webp) => thumbnails.push(NewThumbnail { image: hash, webp }),
                Err(error) => tracing::warn!(%error, image = %hash.to_hex(), "no thumbnail"),
            }
        }
        thumbnails
    }
}
