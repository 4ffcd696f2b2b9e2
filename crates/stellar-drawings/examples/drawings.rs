//! Writes drawings with what is known of them: the pictures that the demo pack's weights are
//! trained on, and others that they are tested with.
//!
//! ```sh
//! cargo run --release -p stellar-drawings --example drawings -- FOLDER [PEOPLE] [TESTED]
//! ```
//!
//! `FOLDER/train.jsonl` and `FOLDER/test.jsonl` have a line for each picture. No person of one is
//! in the other.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};
use serde_json::json;
use stellar_drawings::{ACTIVITIES, Description, MOODS, PLACES, Person, Scene, TIMES, draw};
use stellar_stats::Rng;
use stellar_vision::{DecodeLimits, Image, decode};

/// Width and height of a picture, as in the synthetic dataset.
const SIDE: u32 = 160;
/// Pictures of each person: photos, and generated ones of either kind of prompt.
const PHOTOS: usize = 4;
const SCENES: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: drawings FOLDER [PEOPLE] [TESTED]")?);
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (people, tested) = (number(400)?, number(60)?);
    let portrait =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packs/demo/goldens/astronaut-face.jpg");
    let portrait = decode(&fs::read(portrait)?, &DecodeLimits::default())?;
    write(&folder, "train", &portrait, people, 1 << 40)?;
    write(&folder, "test", &portrait, tested, 1 << 41)
}

fn write(
    folder: &Path,
    split: &str,
    portrait: &Image,
    people: usize,
    seed: u64,
) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder.join(split))?;
    let mut lines = BufWriter::new(File::create(folder.join(format!("{split}.jsonl")))?);
    let mut rng = Rng::new(seed);
    for at in 0..people {
        let attributes = [(); 8].map(|()| rng.below(2) == 1);
        let person = Person::new(seed + at as u64, attributes);
        for nth in 0..PHOTOS + 2 * SCENES {
            let scene = scene(nth, &mut rng);
            // Photos are good, generated pictures are of every quality, most of them fair.
            let worst = if nth < PHOTOS { 0.9 } else { 0.2 };
            let quality = 1.0 - (1.0 - worst) * rng.unit();
            let drawing = rng.next_u64();
            let of = Description { person: Some(&person), scene, quality, seed: drawing };
            let drawn = draw(portrait, SIDE, of);
            let file = format!("{split}/{at:04}-{nth:02}.png");
            save(&folder.join(&file), &drawn.image)?;
            let line = json!({
                "file": file, "person": at, "attributes": attributes, "quality": quality,
                "kind": kind(scene), "scene": numbers(scene), "prompt": scene.prompt(),
                "objects": drawn.objects, "face": drawn.face,
            });
            writeln!(lines, "{line}")?;
        }
    }
    lines.flush()?;
    Ok(())
}

fn scene(nth: usize, rng: &mut Rng) -> Scene {
    if nth < PHOTOS {
        Scene::Photo
    } else if nth < PHOTOS + SCENES {
        Scene::Typed { activity: rng.below(ACTIVITIES.len()), place: rng.below(PLACES.len()) }
    } else {
        Scene::Written { mood: rng.below(MOODS.len()), time: rng.below(TIMES.len()) }
    }
}

fn kind(scene: Scene) -> &'static str {
    match scene {
        Scene::Photo => "photo",
        Scene::Typed { .. } => "typed",
        Scene::Written { .. } => "written",
    }
}

fn numbers(scene: Scene) -> [usize; 2] {
    match scene {
        Scene::Photo => [0, 0],
        Scene::Typed { activity, place } => [activity, place],
        Scene::Written { mood, time } => [mood, time],
    }
}

fn save(path: &Path, image: &Image) -> Result<(), Box<dyn Error>> {
    let encoder = PngEncoder::new(BufWriter::new(File::create(path)?));
    encoder.write_image(&image.pixels, image.width, image.height, ExtendedColorType::Rgb8)?;
    Ok(())
}
