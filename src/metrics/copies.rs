//! Support metrics of identity: the score of the person's own images, and copying of the reference
//! image.
//!
//! An image that pastes the face of its reference image has the highest possible identity score and
//! shows nothing about the person. Two numbers distinguish it from the image of a method that knows
//! the person: the ceiling that another real image reaches, and the copy-paste measure of
//! `WithAnyone` (Xu et al. 2025, arXiv 2510.14975), which compares the distance to the very image
//! that was given with the distance to another image of the same person.

use super::{
    FeatureSet, FeatureSource, Flag, Input, MetricResult, NullReason, Score,
    identity::closest,
    vector::{EMBEDDING, cosine},
};

/// Angle in radians below which two faces come from the same image or nearly so: dividing by it
/// would be meaningless.
const SAME_FACE: f64 = 1e-3;

/// Value of ips with another image of the person in place of the generated one: the mean over the
/// other images, each the mean over the reference images with a face.
pub(super) fn ips_ceiling(features: &FeatureSet) -> MetricResult {
    let (references, others, flags) = photos(features)?;
    let matches: Vec<_> = others
        .iter()
        .flat_map(|other| {
            references.iter().filter_map(|reference| closest(features, *other, *reference))
        })
        .collect();
    if matches.is_empty() {
        return Err(NullReason::NoFaceInOtherPhoto);
    }
    let mean = matches.iter().map(|pair| pair.cosine).sum::<f64>() / matches.len() as f64;
    Ok(Score { flags, ..mean.into() })
}

/// (θ(image, other) − θ(image, reference)) / θ(other, reference): 1 if the generated face is the
/// reference's, −1 if it is the other image's, 0 if it is equally near to both. The mean over
/// reference images and other images with a face.
///
/// The generated face and the reference face are the most similar pair in the two images, and the
/// other image's face is the one most similar to the reference face: so all three are the person's
/// as far as embeddings can show.
pub(super) fn copy_paste(features: &FeatureSet) -> MetricResult {
    if faces(features, Input::Image) == 0 {
        return Err(NullReason::NoFaceInImage);
    }
    let (references, others, flags) = photos(features)?;
    let mut measures = Vec::new();
    for reference in references {
        let Some(pair) = closest(features, Input::Image, reference) else { continue };
        for &other in &others {
            let own = row(features, reference, pair.photo_face);
            let alike = |face: &usize| cosine(own, row(features, other, *face));
            let face = (0..faces(features, other)).max_by(|a, b| alike(a).total_cmp(&alike(b)));
            let Some(face) = face else { continue };
            let apart = alike(&face).clamp(-1.0, 1.0).acos();
            if apart < SAME_FACE {
                continue;
            }
            let generated = row(features, Input::Image, pair.image_face);
            let to_other = cosine(generated, row(features, other, face)).clamp(-1.0, 1.0).acos();
            let to_reference = pair.cosine.clamp(-1.0, 1.0).acos();
            // Sides of a spherical triangle: only rounding can exceed [−1, 1].
            measures.push(((to_other - to_reference) / apart).clamp(-1.0, 1.0));
        }
    }
    if measures.is_empty() {
        return Err(NullReason::NoOtherPhoto);
    }
    let mean = measures.iter().sum::<f64>() / measures.len() as f64;
    Ok(Score { flags, ..mean.into() })
}

/// Reference images, other images, and flags.
type Photos = (Vec<Input>, Vec<Input>, Vec<Flag>);

/// Returns the reference images with a face, the auxiliary images with a face that are not copies
/// of a reference image, and the flags.
fn photos(features: &FeatureSet) -> Result<Photos, NullReason> {
    let embeddings = |input| &features.get(FeatureSource::Faces, input, EMBEDDING).data;
    let all: Vec<Input> = features.reference_photos().collect();
    let references: Vec<Input> =
        all.iter().copied().filter(|photo| faces(features, *photo) > 0).collect();
    if references.is_empty() {
        return Err(NullReason::NoFaceInReference);
    }
    // The reference image is often among the auxiliary ones, as when all files of a folder are
    // sent.
    let others: Vec<Input> = features
        .photos()
        .filter(|photo| matches!(photo, Input::Auxiliary(_)))
        .filter(|photo| {
            faces(features, *photo) == 0
                || all.iter().all(|reference| embeddings(*reference) != embeddings(*photo))
        })
        .collect();
    if others.is_empty() {
        return Err(NullReason::NoOtherPhoto);
    }
    let with_face: Vec<Input> =
        others.iter().copied().filter(|photo| faces(features, *photo) > 0).collect();
    if with_face.is_empty() {
        return Err(NullReason::NoFaceInOtherPhoto);
    }
    let left_out = references.len() < all.len() || with_face.len() < others.len();
    Ok((references, with_face, if left_out { vec![Flag::FacelessPhotos] } else { Vec::new() }))
}

fn faces(features: &FeatureSet, input: Input) -> usize {
    let embeddings = features.get(FeatureSource::Faces, input, EMBEDDING);
    if embeddings.data.is_empty() { 0 } else { embeddings.shape[0] }
}

fn row(features: &FeatureSet, input: Input, face: usize) -> &[f32] {
    let embeddings = features.get(FeatureSource::Faces, input, EMBEDDING);
    let width = embeddings.shape[1];
    &embeddings.data[face * width..(face + 1) * width]
}

#[cfg(test)]
mod tests {
    use super::super::identity::tests::{is_cosine, sample};
    use super::*;

    #[test]
    fn the_ceiling_is_the_mean_score_of_other_images() {
        let score = ips_ceiling(&sample(&[80.0], &[&[0.0]], &[&[20.0], &[40.0]])).unwrap();
        let expected = f64::midpoint(20_f64.to_radians().cos(), 40_f64.to_radians().cos());
        assert!((score.value - expected).abs() < 1e-6, "the image has no effect: {}", score.value);
        let score = ips_ceiling(&sample(&[], &[&[0.0, 90.0]], &[&[70.0], &[]])).unwrap();
        assert!(is_cosine(score.value, 20.0));
        assert_eq!(score.flags, [Flag::FacelessPhotos]);
    }

    #[test]
    fn a_copy_of_the_reference_does_not_count_as_another_image() {
        for metric in [ips_ceiling, copy_paste] {
            assert_eq!(
                metric(&sample(&[5.0], &[&[0.0]], &[&[0.0]])).unwrap_err(),
                NullReason::NoOtherPhoto
            );
            assert_eq!(
                metric(&sample(&[5.0], &[&[0.0]], &[])).unwrap_err(),
                NullReason::NoOtherPhoto
            );
        }
        let score = ips_ceiling(&sample(&[5.0], &[&[0.0]], &[&[0.0], &[30.0]])).unwrap();
        assert!(is_cosine(score.value, 30.0));
    }

    #[test]
    fn copy_paste_is_1_at_the_reference_minus_1_at_the_other_image_and_0_between() {
        for (image, expected) in [(0.0, 1.0), (40.0, -1.0), (20.0, 0.0), (10.0, 0.5), (100.0, -1.0)]
        {
            let found = copy_paste(&sample(&[image], &[&[0.0]], &[&[40.0]])).unwrap().value;
            assert!((found - expected).abs() < 2e-3, "{image}: {found}");
        }
    }

    #[test]
    fn the_subjects_faces_are_compared_and_not_bystanders() {
        // A bystander in each photo, far from the person.
        let features = sample(&[10.0, 170.0], &[&[0.0, 120.0]], &[&[200.0, 40.0]]);
        assert!((copy_paste(&features).unwrap().value - 0.5).abs() < 2e-3);
    }

    #[test]
    fn missing_faces_give_a_reason() {
        let reason = |image: &[f32], reference: &[f32], other: &[f32]| {
            copy_paste(&sample(image, &[reference], &[other])).unwrap_err()
        };
        assert_eq!(reason(&[], &[0.0], &[40.0]), NullReason::NoFaceInImage);
        assert_eq!(reason(&[0.0], &[], &[40.0]), NullReason::NoFaceInReference);
        assert_eq!(reason(&[0.0], &[0.0], &[]), NullReason::NoFaceInOtherPhoto);
        assert!(
            ips_ceiling(&sample(&[], &[&[0.0]], &[&[40.0]])).is_ok(),
            "the ceiling needs no image"
        );
    }

    #[test]
    fn a_near_copy_does_not_count_as_another_image() {
        let found = copy_paste(&sample(&[5.0], &[&[0.0]], &[&[0.01]]));
        assert_eq!(found.unwrap_err(), NullReason::NoOtherPhoto);
    }
}
