//! How alike the photos of one person are: photos of a wrong person spoil every score of identity.
//!
//! A photo is compared with each other photo of its person as `ips` compares an image with a
//! reference image: by the largest cosine over all pairs of faces. The mean over the other photos
//! is the `ips` that the photo itself would get, if a generator had made it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::vector::cosine;
use crate::{stats::quantiles, tensor::Output};

/// Maximum number of photos of a person that are compared: the number of pairs is quadratic.
const MOST_PHOTOS: usize = 500;

/// Maximum number of comparisons of photos with other people.
const MOST_COMPARISONS: usize = 50_000_000;

/// Fewest people from whom the usual consistency is estimated.
const FEWEST_PEOPLE: usize = 8;

/// Least distance of an unusual person from the median: where all people are alike, the quartiles
/// are so close that rounding would be unusual.
const MARGIN: f64 = 0.05;

/// Reason for a person without consistency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoConsistency {
    /// The faces of the photos are not stored, or were found by another pack.
    FacesNotStored,
    /// No face was found in any photo.
    NoFace,
    /// Fewer than two photos have a face: there is nothing to compare.
    OnePhoto,
    /// There are more photos than are compared.
    TooManyPhotos,
}

/// Why the photos of a person should be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Disagreement {
    /// A photo is more like another person of the dataset than like the person's other photos.
    OutlierPhotos,
    /// The consistency is far below that of the other people of the dataset: below the first
    /// quartile by more than 1.5 interquartile ranges, and below the median by more than 0.05.
    LowConsistency,
}

/// A photo among those of its person.
#[derive(Debug, Clone, PartialEq)]
pub struct PhotoPlace {
    /// Mean similarity to the person's other photos; `None` without a face, or with nothing to
    /// compare with.
    pub similarity: Option<f64>,
    /// Index of another person whom the photo is more like, if there is one.
    pub closer_to: Option<usize>,
}

/// The photos of a person.
#[derive(Debug, Clone, PartialEq)]
pub struct PersonPhotos {
    /// Mean similarity of the photos to each other.
    pub consistency: Result<f64, NoConsistency>,
    /// One entry per photo.
    pub photos: Vec<PhotoPlace>,
    /// Why the photos should be looked at.
    pub disagreement: Option<Disagreement>,
}

/// The faces in a photo by embedding, one in a row; `None` if they are not known.
pub type PhotoFaces<'a> = Option<&'a Output>;

/// Compares the photos of each person with each other, and with the other people.
#[must_use]
pub fn photo_consistency(people: &[Vec<PhotoFaces<'_>>]) -> Vec<PersonPhotos> {
    let compared: Vec<Compared> = people.iter().map(|photos| Compared::new(photos)).collect();
    let photos: usize = people.iter().map(Vec::len).sum();
    let others = photos.saturating_mul(people.len()) <= MOST_COMPARISONS;
    let mut found: Vec<PersonPhotos> = compared
        .iter()
        .enumerate()
        .map(|(at, of)| {
            let closer_to = |photo: usize| {
                if others { closer_to(&compared, at, photo) } else { None }
            };
            let places = of.similarities.iter().enumerate();
            let photos: Vec<_> = places
                .map(|(photo, similarity)| PhotoPlace {
                    similarity: *similarity,
                    closer_to: closer_to(photo),
                })
                .collect();
            let has_outlier = photos.iter().any(|photo| photo.closer_to.is_some());
            PersonPhotos {
                consistency: of.consistency,
                photos,
                disagreement: has_outlier.then_some(Disagreement::OutlierPhotos),
            }
        })
        .collect();
    if let Some(fence) = fence(&found) {
        for person in &mut found {
            if person.disagreement.is_none() && person.consistency.is_ok_and(|of| of < fence) {
                person.disagreement = Some(Disagreement::LowConsistency);
            }
        }
    }
    found
}

/// Returns the consistency below which a person is unusual (Tukey's lower fence, with a margin).
fn fence(people: &[PersonPhotos]) -> Option<f64> {
    let mut values: Vec<f64> = people.iter().filter_map(|person| person.consistency.ok()).collect();
    if values.len() < FEWEST_PEOPLE {
        return None;
    }
    let quartiles = quantiles(&mut values, 5)?;
    let fence = quartiles[1] - 1.5 * (quartiles[3] - quartiles[1]);
    Some(fence.min(quartiles[2] - MARGIN))
}

/// Returns the person whom a photo is more like than its own person's other photos.
fn closer_to(people: &[Compared], person: usize, photo: usize) -> Option<usize> {
    let of = &people[person];
    of.consistency.ok()?;
    let face = of.faces[photo].as_deref()?;
    let rest: Vec<f32> = of.sum.iter().zip(face).map(|(sum, face)| sum - face).collect();
    let own = cosine(face, &rest);
    let others =
        people.iter().enumerate().filter(|(at, other)| *at != person && !other.sum.is_empty());
    let likeness = others.map(|(at, other)| (at, cosine(face, &other.sum)));
    let (closest, value) = likeness.max_by(|a, b| a.1.total_cmp(&b.1))?;
    (value > own).then_some(closest)
}

/// The photos of a person, compared with each other.
struct Compared {
    consistency: Result<f64, NoConsistency>,
    similarities: Vec<Option<f64>>,
    /// The face of each photo that is most like the faces in the other photos, of length 1.
    faces: Vec<Option<Vec<f32>>>,
    /// Sum of these faces; empty without any.
    sum: Vec<f32>,
}

impl Compared {
    fn new(photos: &[PhotoFaces<'_>]) -> Self {
        let none = |reason| Self {
            consistency: Err(reason),
            similarities: vec![None; photos.len()],
            faces: vec![None; photos.len()],
            sum: Vec::new(),
        };
        if photos.len() > MOST_PHOTOS {
            return none(NoConsistency::TooManyPhotos);
        }
        if photos.iter().all(Option::is_none) {
            return none(NoConsistency::FacesNotStored);
        }
        let rows: Vec<Vec<&[f32]>> = photos.iter().map(|photo| rows(*photo)).collect();
        let with_face: Vec<usize> = (0..rows.len()).filter(|at| !rows[*at].is_empty()).collect();
        if with_face.is_empty() {
            return none(NoConsistency::NoFace);
        }
        let (mut similarities, mut faces) = (vec![None; photos.len()], vec![None; photos.len()]);
        for &at in &with_face {
            let others = with_face.iter().filter(|other| **other != at).map(|other| &rows[*other]);
            let (similarity, face) = place(&rows[at], others);
            similarities[at] = similarity;
            faces[at] = Some(unit(face));
        }
        let mut sum = vec![0.0; faces[with_face[0]].as_ref().map_or(0, Vec::len)];
        for face in faces.iter().flatten() {
            for (sum, value) in sum.iter_mut().zip(face) {
                *sum += value;
            }
        }
        let known: Vec<f64> = similarities.iter().flatten().copied().collect();
        let consistency = if known.is_empty() {
            Err(NoConsistency::OnePhoto)
        } else {
            Ok(known.iter().sum::<f64>() / known.len() as f64)
        };
        Self { consistency, similarities, faces, sum }
    }
}

/// Returns the mean similarity of a photo with these faces to other photos, and the face that is
/// most like those of the others.
fn place<'a, 'b>(
    faces: &[&'a [f32]],
    others: impl Iterator<Item = &'b Vec<&'b [f32]>>,
) -> (Option<f64>, &'a [f32]) {
    let (mut total, mut count) = (0.0, 0);
    let mut by_face = vec![0.0; faces.len()];
    for other in others {
        let mut best = f64::NEG_INFINITY;
        for (sum, face) in by_face.iter_mut().zip(faces) {
            let likeness = other.iter().map(|other| cosine(face, other));
            let closest = likeness.fold(f64::NEG_INFINITY, f64::max);
            *sum += closest;
            best = best.max(closest);
        }
        total += best;
        count += 1;
    }
    // Faces are ordered by size: of equals the largest.
    let own = (0..faces.len()).rev().max_by(|a, b| by_face[*a].total_cmp(&by_face[*b]));
    ((count > 0).then(|| total / f64::from(count)), faces[own.unwrap_or(0)])
}

fn rows(photo: PhotoFaces<'_>) -> Vec<&[f32]> {
    let Some(output) = photo else { return Vec::new() };
    match output.shape.get(1) {
        Some(&width) if width > 0 => output.data.chunks_exact(width).collect(),
        _ => Vec::new(),
    }
}

/// Returns a vector of the same direction with length 1.
fn unit(vector: &[f32]) -> Vec<f32> {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-8);
    vector.iter().map(|x| x / norm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faces whose embeddings point at these angles, in degrees.
    fn photo(angles: &[f32]) -> Output {
        let data: Vec<f32> =
            angles.iter().flat_map(|a| [a.to_radians().cos(), a.to_radians().sin()]).collect();
        Output { shape: vec![angles.len(), 2], data }
    }

    fn found(people: &[Vec<Option<Output>>]) -> Vec<PersonPhotos> {
        let people: Vec<Vec<PhotoFaces<'_>>> =
            people.iter().map(|photos| photos.iter().map(Option::as_ref).collect()).collect();
        photo_consistency(&people)
    }

    fn person(angles: &[f32]) -> Vec<Option<Output>> {
        angles.iter().map(|angle| Some(photo(&[*angle]))).collect()
    }

    fn is_cosine(value: Option<f64>, degrees: &[f64]) -> bool {
        let mean =
            degrees.iter().map(|of| of.to_radians().cos()).sum::<f64>() / degrees.len() as f64;
        (value.unwrap() - mean).abs() < 1e-6
    }

    #[test]
    fn a_photo_is_compared_with_the_others_of_its_person() {
        // The second photo has a further face, which is like no other.
        let photos = vec![Some(photo(&[0.0])), Some(photo(&[200.0, 10.0])), Some(photo(&[30.0]))];
        let found = &found(&[photos])[0];
        assert!(is_cosine(found.photos[0].similarity, &[10.0, 30.0]));
        assert!(is_cosine(found.photos[1].similarity, &[10.0, 20.0]));
        assert!(is_cosine(found.consistency.ok(), &[10.0, 30.0, 10.0, 20.0, 30.0, 20.0]));
        assert_eq!(found.disagreement, None);
    }

    #[test]
    fn a_photo_of_another_person_is_found_and_named() {
        let found = found(&[person(&[0.0, 5.0, 95.0]), person(&[90.0, 92.0])]);
        let closer: Vec<_> = found[0].photos.iter().map(|photo| photo.closer_to).collect();
        assert_eq!(closer, [None, None, Some(1)]);
        assert_eq!(found[0].disagreement, Some(Disagreement::OutlierPhotos));
        assert_eq!(found[1].disagreement, None);
    }

    #[test]
    fn a_person_far_below_the_others_is_unusual() {
        let mut people: Vec<_> =
            (0..9).map(|at| person(&[at as f32 * 30.0, at as f32 * 30.0 + 4.0])).collect();
        people.push(person(&[285.0, 315.0]));
        let found = found(&people);
        let unusual: Vec<_> = (0..10)
            .filter(|at| found[*at].disagreement == Some(Disagreement::LowConsistency))
            .collect();
        assert_eq!(unusual, [9]);
    }

    #[test]
    fn missing_numbers_have_reasons() {
        let people = [vec![None, None], vec![Some(photo(&[]))], person(&[0.0]), Vec::new()];
        let reasons: Vec<_> = found(&people).into_iter().map(|of| of.consistency).collect();
        assert_eq!(
            reasons,
            [
                Err(NoConsistency::FacesNotStored),
                Err(NoConsistency::NoFace),
                Err(NoConsistency::OnePhoto),
                Err(NoConsistency::FacesNotStored)
            ]
        );
        let many = vec![None; MOST_PHOTOS + 1];
        assert_eq!(found(&[many])[0].consistency, Err(NoConsistency::TooManyPhotos));
    }
}
