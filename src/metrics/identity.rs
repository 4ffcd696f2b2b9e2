//! Identity preservation: similarity of the faces in the generated image to those in images of the
//! person.
//!
//! The feature of an image is the list of its faces with their embeddings. As in the toolkit, every
//! face that the detector finds counts, including background faces and false positives.

use super::{
    Explanation, FaceMatch, FeatureSet, FeatureSource, Flag, Input, MetricResult, NullReason,
    Score,
    vector::{EMBEDDING, cosine},
};

/// Largest cosine over all pairs of faces, averaged over the reference images with a face.
pub(super) fn ips(features: &FeatureSet) -> MetricResult {
    let photos = features.reference_photos();
    identity(features, photos, |values| values.iter().sum::<f64>() / values.len() as f64)
}

/// Smallest of these values over all images of the person with a face.
pub(super) fn sis(features: &FeatureSet) -> MetricResult {
    identity(features, features.photos(), |values| {
        values.iter().copied().fold(f64::INFINITY, f64::min)
    })
}

fn identity(
    features: &FeatureSet,
    photos: impl Iterator<Item = Input>,
    summary: impl Fn(&[f64]) -> f64,
) -> MetricResult {
    let faces = |input| features.get(FeatureSource::Faces, input, EMBEDDING);
    let photos: Vec<Input> = photos.collect();
    let with_face: Vec<Input> =
        photos.iter().copied().filter(|photo| !faces(*photo).data.is_empty()).collect();
    if with_face.is_empty() {
        return Err(NullReason::NoFaceInReference);
    }
    let mut flags = Vec::new();
    if with_face.len() < photos.len() {
        flags.push(Flag::FacelessPhotos);
    }
    if faces(Input::Image).data.is_empty() {
        flags.push(Flag::NoFaceInImage);
        return Ok(Score { flags, ..0.0.into() });
    }
    let matches: Vec<FaceMatch> =
        with_face.into_iter().filter_map(|photo| closest(features, Input::Image, photo)).collect();
    let cosines: Vec<f64> = matches.iter().map(|pair| pair.cosine).collect();
    let value = summary(&cosines);
    Ok(Score { value, flags, explanation: Explanation::Matches(matches) })
}

/// Returns the most similar pair of faces of two images, if both have a face.
pub(super) fn closest(features: &FeatureSet, image: Input, photo: Input) -> Option<FaceMatch> {
    let rows = |input| {
        let embeddings = features.get(FeatureSource::Faces, input, EMBEDDING);
        embeddings.data.chunks_exact(embeddings.shape[1]).enumerate()
    };
    rows(image)
        .flat_map(|(image_face, a)| {
            rows(photo).map(move |(photo_face, b)| FaceMatch {
                photo,
                image_face,
                photo_face,
                cosine: cosine(a, b),
            })
        })
        .max_by(|a, b| a.cosine.total_cmp(&b.cosine))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tensor::{Features, Output};

    /// Faces whose embeddings point at these angles, in degrees.
    fn faces(angles: &[f32]) -> Arc<Features> {
        let data: Vec<f32> =
            angles.iter().flat_map(|a| [a.to_radians().cos(), a.to_radians().sin()]).collect();
        let embeddings = Output { shape: vec![angles.len(), 2], data };
        Arc::new(Features::new(vec![(EMBEDDING.into(), embeddings)]))
    }

    pub(in super::super) fn sample(
        image: &[f32],
        references: &[&[f32]],
        auxiliary: &[&[f32]],
    ) -> FeatureSet {
        let mut set = FeatureSet::new(references.len()).with_auxiliary(auxiliary.len());
        set.insert(FeatureSource::Faces, Input::Image, faces(image));
        for (index, angles) in references.iter().enumerate() {
            set.insert(FeatureSource::Faces, Input::Reference(index), faces(angles));
        }
        for (index, angles) in auxiliary.iter().enumerate() {
            set.insert(FeatureSource::Faces, Input::Auxiliary(index), faces(angles));
        }
        set
    }

    pub(in super::super) fn is_cosine(value: f64, degrees: f64) -> bool {
        (value - degrees.to_radians().cos()).abs() < 1e-6
    }

    fn matches(score: &Score) -> &[FaceMatch] {
        let Explanation::Matches(matches) = &score.explanation else { panic!("{score:?}") };
        matches
    }

    #[test]
    fn the_most_similar_pair_of_faces_counts_and_is_reported() {
        let score = ips(&sample(&[0.0, 100.0], &[&[180.0, 60.0, 110.0]], &[])).unwrap();
        assert!(is_cosine(score.value, 10.0));
        let pair = matches(&score)[0];
        assert_eq!((pair.photo, pair.image_face, pair.photo_face), (Input::Reference(0), 1, 2));
        assert!(score.flags.is_empty());
    }

    #[test]
    fn several_references_are_averaged_and_those_without_a_face_left_out() {
        let score = ips(&sample(&[0.0], &[&[0.0], &[], &[90.0]], &[])).unwrap();
        assert!((score.value - 0.5).abs() < 1e-6);
        assert_eq!(score.flags, [Flag::FacelessPhotos]);
        assert_eq!(matches(&score).len(), 2);
    }

    #[test]
    fn stability_is_the_minimum_over_all_images_of_the_person() {
        assert!(is_cosine(
            sis(&sample(&[0.0], &[&[80.0]], &[&[10.0], &[30.0]])).unwrap().value,
            80.0
        ));
        let score = sis(&sample(&[0.0], &[&[20.0]], &[&[], &[120.0, 30.0]])).unwrap();
        assert!(is_cosine(score.value, 30.0));
        assert_eq!(score.flags, [Flag::FacelessPhotos]);
        assert!(
            is_cosine(sis(&sample(&[0.0], &[], &[&[120.0]])).unwrap().value, 120.0),
            "not raised to 0"
        );
    }

    #[test]
    fn a_generated_image_without_a_face_scores_0_and_photos_without_one_give_null() {
        for metric in [ips, sis] {
            let score = metric(&sample(&[], &[&[10.0]], &[])).unwrap();
            assert!(score.value.abs() < 1e-12 && score.explanation == Explanation::Nothing);
            assert_eq!(score.flags, [Flag::NoFaceInImage]);
            assert_eq!(
                metric(&sample(&[0.0], &[&[]], &[])).unwrap_err(),
                NullReason::NoFaceInReference
            );
            assert_eq!(
                metric(&sample(&[], &[&[]], &[])).unwrap_err(),
                NullReason::NoFaceInReference
            );
        }
        assert_eq!(
            sis(&sample(&[0.0], &[&[]], &[&[]])).unwrap_err(),
            NullReason::NoFaceInReference
        );
    }
}
