use std::cell::RefCell;
use std::convert::Infallible;

use super::*;

/// Networks that see a face everywhere and count the pieces that they are given.
#[derive(Default)]
struct Eager {
    correction: [f32; 4],
    asked: RefCell<[usize; 3]>,
}

impl Eager {
    fn verdicts(&self, stage: usize, crops: &[Levels], side: u32) -> Vec<Verdict> {
        self.asked.borrow_mut()[stage] += crops.len();
        let verdict = |(index, crop): (usize, &Levels)| {
            assert_eq!(
                (crop.height, crop.width, crop.data.len()),
                (side, side, 3 * (side * side) as usize)
            );
            let probability = 0.75 + 0.2 * (index % 7) as f32 / 7.0;
            Verdict { probability, correction: self.correction, landmarks: [0.5; 10] }
        };
        crops.iter().enumerate().map(verdict).collect()
    }
}

impl Networks for Eager {
    type Error = Infallible;

    fn propose(&self, pieces: Vec<Levels>) -> Result<Vec<Proposals>, Infallible> {
        self.asked.borrow_mut()[0] += pieces.len();
        let proposals = |piece: Levels| {
            assert!(
                piece.height >= CELL && piece.width >= CELL,
                "P-Net needs pieces of at least 12×12"
            );
            assert_eq!(piece.data.len(), 3 * (piece.height * piece.width) as usize);
            let count = (places(piece.height) * places(piece.width)) as usize;
            Proposals {
                columns: places(piece.width) as usize,
                probability: vec![0.9; count],
                correction: self.correction.iter().flat_map(|&value| vec![value; count]).collect(),
            }
        };
        Ok(pieces.into_iter().map(proposals).collect())
    }

    fn refine(&self, crops: Vec<Levels>) -> Result<Vec<Verdict>, Infallible> {
        Ok(self.verdicts(1, &crops, REFINE_SIDE))
    }

    fn decide(&self, crops: Vec<Levels>) -> Result<Vec<Verdict>, Infallible> {
        Ok(self.verdicts(2, &crops, OUTPUT_SIDE))
    }
}

fn grey(width: u32, height: u32) -> Image {
    Image::new(width, height, vec![128; 3 * (width * height) as usize])
}

#[test]
fn the_pyramid_starts_at_faces_of_twenty_pixels_and_smaller_images_have_no_faces() {
    assert_eq!(scales(20, 1000), [0.6]);
    assert_eq!(scales(29, 29), [0.6, 0.6 * 0.709]);
    assert!(scales(19, 4000).is_empty() && scales(1, 1).is_empty());
    let eager = Eager::default();
    let Ok(faces) = detect(&grey(19, 300), &eager);
    assert!(faces.is_empty());
    assert_eq!(*eager.asked.borrow(), [0; 3]);
}

#[test]
fn tiles_cover_every_place_of_a_level_once_and_in_order() {
    // Levels with even and odd sides, with one tile and with several.
    for (width, height) in [(20, 20), (21, 37), (501, 470), (432, 440), (900, 25), (433, 1300)] {
        let Ok(mut found) = proposed(&grey(width, height), &[0.6], &Eager::default());
        let found = found.remove(0);
        let side = |of: u32| (f64::from(of) * 0.6 + 1.0) as u32;
        let (columns, rows) = (places(side(width)), places(side(height)));
        let corner = |place: u32| ((2 * place + 1) as f32 / 0.6_f32).floor();
        let expected: Vec<_> =
            (0..rows).flat_map(|y| (0..columns).map(move |x| [corner(x), corner(y)])).collect();
        let got: Vec<_> = found.iter().map(|c| [c.corners[0], c.corners[1]]).collect();
        assert_eq!(got, expected, "{width}×{height}");
    }
}

#[test]
fn places_match_the_convolutions_and_the_pooling_with_a_half_window() {
    // conv 3, pool 2 rounded up, conv 3, conv 3.
    for side in 12..600_u32 {
        assert_eq!(places(side), (side - 2).div_ceil(2) - 2 - 2);
        let covered: Vec<_> = (0..places(side))
            .step_by(TILE as usize)
            .map(|at| span(at, places(side), side))
            .collect();
        assert_eq!(covered[covered.len() - 1].end, side);
        for piece in covered {
            assert!(piece.start % 2 == 0 && places(piece.len() as u32) <= TILE);
        }
    }
}

#[test]
fn detection_terminates_if_everything_is_a_face() {
    let eager = Eager { correction: [0.01, -0.02, 0.03, 0.04], ..Eager::default() };
    let Ok(faces) = detect(&grey(900, 700), &eager);
    let [_, refined, decided] = *eager.asked.borrow();
    assert!((1..=MAX_CANDIDATES).contains(&refined) && (1..=MAX_CANDIDATES).contains(&decided));
    assert!(!faces.is_empty());
    let areas: Vec<_> = faces.iter().map(|face| area(face.corners)).collect();
    assert!(areas.is_sorted_by(|a, b| a >= b), "largest first");
}

#[test]
fn boxes_beyond_the_image_are_dropped_with_their_verdicts() {
    // Corrections move every box by three sides: most leave the image, where the package fails.
    let eager = Eager { correction: [3.0, 0.0, 3.0, 0.0], ..Eager::default() };
    let Ok(faces) = detect(&grey(200, 100), &eager);
    for face in &faces {
        assert!(face.corners.iter().all(|value| value.is_finite()));
    }
    assert_eq!(region([-50.0, 10.0, -1.0, 60.0], 100, 100), None);
    assert_eq!(region([150.0, 10.0, 190.0, 60.0], 100, 100), None);
    assert_eq!(region([f32::NAN; 4], 100, 100), None);
    let whole = Rect { left: 0, top: 0, width: 100, height: 80 };
    assert_eq!(region([-1e30, -7.0, 1e30, 1e9], 100, 80), Some(whole));
}

#[test]
fn crops_count_pixels_from_one_and_truncate_towards_zero() {
    let rect = |left, top, width, height| Some(Rect { left, top, width, height });
    assert_eq!(region([10.9, 20.2, 30.9, 41.0], 100, 100), rect(9, 19, 21, 22));
    assert_eq!(region([-0.9, -3.0, 5.5, 4.0], 100, 100), rect(0, 0, 5, 4));
}

#[test]
fn the_embedding_crop_has_a_margin_of_nine_tenths_of_a_pixel() {
    // 0.9 · 159.1 / 159.1 = 0.9 pixels of margin, half of it on each side.
    let rect = crop_rect([10.5, 20.4, 169.6, 179.5], 400, 400).unwrap();
    assert_eq!((rect.left, rect.top, rect.width, rect.height), (10, 19, 160, 160));
    let edge = crop_rect([-20.0, -5.0, 50.0, 30.0], 40, 25).unwrap();
    assert_eq!((edge.left, edge.top, edge.width, edge.height), (0, 0, 40, 25));
    assert_eq!(crop_rect([50.0, 0.0, 60.0, 10.0], 40, 25), None);
    assert_eq!(crop_rect([5.1, 5.0, 5.2, 9.0], 40, 25), None);
    assert_eq!(crop_rect([f32::NAN; 4], 40, 25), None);
    let face = Face { corners: [3.0, 3.0, 30.0, 20.0], probability: 0.9, landmarks: [[0.0; 2]; 5] };
    let crop = crop(&grey(40, 25), &face).unwrap();
    assert_eq!((crop.width, crop.height), (160, 160));
}

#[test]
fn squares_preserve_the_centre_and_the_longer_side() {
    let equal = |a: Corners, b: Corners| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(equal(square([10.0, 10.0, 20.0, 30.0]), [5.0, 10.0, 25.0, 30.0]));
    let corners = [0.0, 0.0, 9.0, 19.0];
    let candidate = Candidate { corners, probability: 0.9, correction: [0.1, 0.1, -0.1, 0.0] };
    assert!(equal(corrected(&candidate, 1.0), [1.0, 2.0, 8.0, 19.0]));
    assert!(equal(corrected(&candidate, 0.0), [0.9, 1.9, 8.1, 19.0]));
}
