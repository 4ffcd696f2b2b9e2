//! How to read a score of identity: what the subject's own photos get, and whether the image repeats its reference.
//!
//! An image that pastes the reference's face has the highest identity there is and shows nothing of the person. Two numbers
//! tell it from one that knows the person: the ceiling that another real photo reaches, and the copy-paste measure of
//! `WithAnyone` (Xu et al. 2025, arXiv 2510.14975), which asks whether the face is nearer to the very photo that was given than to
//! another of the same person.

use super::{
    FeatureSet, Flag, Input, MetricResult, NullReason, Score,
    identity::{FACES, closest},
    vector::{EMBEDDING, cosine},
};

/// Photos whose faces are nearer than this angle, in radians, are the same photo or nearly so: dividing by it says nothing.
const SAME_FACE: f64 = 1e-3;

/// What ips gives another photo of the subject in place of the image: the mean over the other photos, each the mean over the
/// references with a face.
pub(super) fn ips_ceiling(features: &FeatureSet) -> MetricResult {
    let (references, others, flags) = photos(features)?;
    let matches: Vec<_> = others
        .iter()
        .flat_map(|other| references.iter().filter_map(|reference| closest(features, *other, *reference)))
        .collect();
    if matches.is_empty() {
        return Err(NullReason::NoFaceInOtherPhoto);
    }
    let mean = matches.iter().map(|pair| pair.cosine).sum::<f64>() / matches.len() as f64;
    Ok(Score { flags, ..mean.into() })
}

/// (θ(image, other) − θ(image, reference)) / θ(other, reference): 1 where the image's face is the reference's, −1 where it is
/// the other photo's, 0 where it is as near to both; the mean over references and other photos with a face.
///
/// The image's face is the one most like a face of the reference, the reference's face that one, and the other photo's face the
/// one most like it: so all three are the subject's as far as faces tell.
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
            // The sides of a triangle on the sphere: rounding alone could leave [−1, 1].
            measures.push(((to_other - to_reference) / apart).clamp(-1.0, 1.0));
        }
    }
    if measures.is_empty() {
        return Err(NullReason::NoOtherPhoto);
    }
    let mean = measures.iter().sum::<f64>() / measures.len() as f64;
    Ok(Score { flags, ..mean.into() })
}

/// References, other photos, and remarks.
type Photos = (Vec<Input>, Vec<Input>, Vec<Flag>);

/// References with a face; auxiliary photos with a face that are no copies of a reference; and what to remark.
fn photos(features: &FeatureSet) -> Result<Photos, NullReason> {
    let embeddings = |input| &features.get(FACES, input, EMBEDDING).data;
    let all: Vec<Input> = features.reference_photos().collect();
    let references: Vec<Input> = all.iter().copied().filter(|photo| faces(features, *photo) > 0).collect();
    if references.is_empty() {
        return Err(NullReason::NoFaceInReference);
    }
    // The reference itself often stands among the auxiliary photos, as all files of a folder.
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
    let with_face: Vec<Input> = others.iter().copied().filter(|photo| faces(features, *photo) > 0).collect();
    if with_face.is_empty() {
        return Err(NullReason::NoFaceInOtherPhoto);
    }
    let left_out = references.len() < all.len() || with_face.len() < others.len();
    Ok((references, with_face, if left_out { vec![Flag::FacelessPhotos] } else { Vec::new() }))
}

fn faces(features: &FeatureSet, input: Input) -> usize {
    let embeddings = features.get(FACES, input, EMBEDDING);
    if embeddings.data.is_empty() { 0 } else { embeddings.shape[0] }
}

fn row(features: &FeatureSet, input: Input, face: usize) -> &[f32] {
    let embeddings = features.get(FACES, input, EMBEDDING);
    let width = embeddings.shape[1];
    &embeddings.data[face * width..(face + 1) * width]
}

#[cfg(test)]
mod tests {
    use super::super::identity::tests::{is_cosine, sample};
    use super::*;

    #[test]
    fn the_ceiling_is_what_other_photos_reach() {
        let score = ips_ceiling(&sample(&[80.0], &[&[0.0]], &[&[20.0], &[40.0]])).unwrap();
        let expected = f64::midpoint(20_f64.to_radians().cos(), 40_f64.to_radians().cos());
        assert!((score.value - expected).abs() < 1e-6, "the image plays no part: {}", score.value);
        let score = ips_ceiling(&sample(&[], &[&[0.0, 90.0]], &[&[70.0], &[]])).unwrap();
        assert!(is_cosine(score.value, 20.0));
        assert_eq!(score.flags, [Flag::FacelessPhotos]);
    }

    #[test]
    fn a_copy_of_the_reference_among_the_photos_is_no_other_photo() {
        for metric in [ips_ceiling, copy_paste] {
            assert_eq!(metric(&sample(&[5.0], &[&[0.0]], &[&[0.0]])).unwrap_err(), NullReason::NoOtherPhoto);
            assert_eq!(metric(&sample(&[5.0], &[&[0.0]], &[])).unwrap_err(), NullReason::NoOtherPhoto);
        }
        let score = ips_ceiling(&sample(&[5.0], &[&[0.0]], &[&[0.0], &[30.0]])).unwrap();
        assert!(is_cosine(score.value, 30.0));
    }

    #[test]
    fn a_pasted_reference_is_one_another_photo_minus_one_and_the_middle_zero() {
        for (image, expected) in [(0.0, 1.0), (40.0, -1.0), (20.0, 0.0), (10.0, 0.5), (100.0, -1.0)] {
            let found = copy_paste(&sample(&[image], &[&[0.0]], &[&[40.0]])).unwrap().value;
            assert!((found - expected).abs() < 2e-3, "{image}: {found}");
        }
    }

    #[test]
    fn the_subjects_faces_are_compared_and_not_bystanders() {
        // A bystander in each photo, far from the subject.
        let features = sample(&[10.0, 170.0], &[&[0.0, 120.0]], &[&[200.0, 40.0]]);
        assert!((copy_paste(&features).unwrap().value - 0.5).abs() < 2e-3);
    }

    #[test]
    fn what_is_missing_is_said() {
        let reason = |image: &[f32], reference: &[f32], other: &[f32]| {
            copy_paste(&sample(image, &[reference], &[other])).unwrap_err()
        };
        assert_eq!(reason(&[], &[0.0], &[40.0]), NullReason::NoFaceInImage);
        assert_eq!(reason(&[0.0], &[], &[40.0]), NullReason::NoFaceInReference);
        assert_eq!(reason(&[0.0], &[0.0], &[]), NullReason::NoFaceInOtherPhoto);
        assert!(ips_ceiling(&sample(&[], &[&[0.0]], &[&[40.0]])).is_ok(), "the ceiling needs no image");
    }

    #[test]
    fn nearly_the_same_face_is_no_measure() {
        let found = copy_paste(&sample(&[5.0], &[&[0.0]], &[&[0.01]]));
        assert_eq!(found.unwrap_err(), NullReason::NoOtherPhoto);
    }
}
