use super::*;

/// A portrait with a different colour at every place.
fn portrait() -> Image {
    let (width, height) = (40, 50);
    let pixels = (0..height * width).flat_map(|at| {
        let (x, y) = (at % width, at / width);
        [(x * 6) as u8, (y * 5) as u8, ((x + y) * 2) as u8]
    });
    Image::new(width, height, pixels.collect())
}

fn drawing(person: Option<&Person>, scene: Scene, quality: f64, seed: u64) -> Drawing {
    draw(&portrait(), 64, Description { person, scene, quality, seed })
}

fn distance(a: &Image, b: &Image) -> f64 {
    let sum: u64 = a.pixels.iter().zip(&b.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.pixels.len() as f64
}

#[test]
fn a_description_and_a_seed_give_the_same_pixels_again() {
    let person = Person::new(7, [true; 8]);
    let scene = Scene::Typed { activity: 0, place: 3 };
    let first = drawing(Some(&person), scene, 0.6, 11);
    let again = drawing(Some(&Person::new(7, [true; 8])), scene, 0.6, 11);
    assert_eq!(first.image, again.image);
    assert_ne!(first.image, drawing(Some(&person), scene, 0.6, 12).image);
}

#[test]
fn every_scene_of_the_vocabulary_can_be_drawn_and_differs_from_its_neighbours() {
    let person = Person::new(1, [false; 8]);
    for number in 0..64_usize {
        let (a, b) = (number / 8, number % 8);
        let other = (b + 1) % 8;
        for (scene, next) in [
            (Scene::Typed { activity: a, place: b }, Scene::Typed { activity: a, place: other }),
            (Scene::Written { mood: a, time: b }, Scene::Written { mood: a, time: other }),
        ] {
            let (one, two) =
                (drawing(Some(&person), scene, 1.0, 5), drawing(Some(&person), next, 1.0, 5));
            assert!(distance(&one.image, &two.image) > 2.0, "{scene:?} and {next:?}");
            assert!(one.face.is_some());
        }
    }
}

#[test]
fn objects_are_those_of_the_prompt_and_within_the_picture() {
    let person = Person::new(2, [false; 8]);
    for (activity, place) in (0..8).flat_map(|a| (0..8).map(move |p| (a, p))) {
        for seed in 0..20 {
            let drawn = drawing(Some(&person), Scene::Typed { activity, place }, 1.0, seed);
            let names: Vec<_> = drawn.objects.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [PLACES[place].object, ACTIVITIES[activity].object]);
            for (name, [left, top, right, bottom]) in drawn.objects {
                assert!(0.0 <= left && right <= 1.0 && 0.0 <= top && bottom <= 1.0, "{name}");
                assert!(right - left > 0.15 && bottom - top > 0.12, "{name} can be seen");
            }
        }
    }
}

#[test]
fn people_differ_from_each_other_more_than_their_own_photos_do() {
    let people: Vec<_> = (0..6).map(|seed| Person::new(seed, [seed % 2 == 0; 8])).collect();
    // Equal seeds of the drawing: only the person differs.
    for (a, one) in people.iter().enumerate() {
        for two in &people[a + 1..] {
            let (one, two) = (
                drawing(Some(one), Scene::Photo, 1.0, 3).image,
                drawing(Some(two), Scene::Photo, 1.0, 3).image,
            );
            assert!(distance(&one, &two) > 5.0);
        }
    }
}

#[test]
fn attributes_change_the_face() {
    let plain = Person::new(9, [false; 8]);
    for attribute in [0, 1, 4, 5, 6, 7] {
        let mut attributes = [false; 8];
        attributes[attribute] = true;
        let changed = drawing(Some(&Person::new(9, attributes)), Scene::Photo, 1.0, 1).image;
        let before = drawing(Some(&plain), Scene::Photo, 1.0, 1).image;
        assert_ne!(changed, before, "attribute {attribute}");
    }
}

#[test]
fn lower_quality_is_farther_from_the_clean_drawing() {
    let person = Person::new(3, [true; 8]);
    let of =
        |quality| drawing(Some(&person), Scene::Written { mood: 1, time: 1 }, quality, 4).image;
    let clean = of(1.0);
    let steps: Vec<_> = [0.9, 0.6, 0.3, 0.0].map(|q| distance(&of(q), &clean)).into();
    assert!(steps.is_sorted() && steps[0] > 0.5, "{steps:?}");
}

#[test]
fn prompts_name_what_is_drawn() {
    let scene = Scene::Typed { activity: 2, place: 1 };
    assert_eq!(scene.prompt(), "{} eating a pizza in front of a building");
    let scene = Scene::Written { mood: 3, time: 0 };
    assert_eq!(scene.prompt(), "{} as an astronaut far from home at dawn");
}
