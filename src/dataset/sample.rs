//! A small made-up download, with prompts and generated pictures, to try every command with.
//!
//! The files are laid out as CelebA-Dialog, Stellar and its toolkit lay them out; people and pictures are drawn from a
//! seed. Nothing in them is of a real person, and no score of theirs means anything.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};
use serde_json::json;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::stellar::TEST_IDENTITIES;
use crate::metrics::ATTRIBUTES;
use crate::stats::Rng;

/// Width and height of every picture, in pixels.
const SIDE: u32 = 96;

/// How much to make up.
#[derive(Debug, Clone, Copy)]
pub struct SampleSize {
    /// People, with two photos each; at most 200, all of the test split.
    pub identities: usize,
    /// Prompts of each person, half of them as in Stellar-T and half as in Stellar-H; at most 128.
    pub prompts: usize,
}

/// Where things were put.
#[derive(Debug, Clone)]
pub struct SampleFolders {
    /// What `prepare` takes as the download.
    pub download: PathBuf,
    /// What `prepare` takes as the prompts.
    pub prompts: PathBuf,
    /// A run of a made-up generator.
    pub generations: PathBuf,
}

const ACTIVITIES: [(&str, &str, &str); 8] = [
    ("riding a horse", "horse", "sports"),
    ("holding an umbrella", "umbrella", "everyday"),
    ("eating a pizza", "pizza", "culinary"),
    ("playing a guitar", "guitar", "arts"),
    ("driving a car", "car", "everyday"),
    ("carrying a surfboard", "surfboard", "sports"),
    ("reading a book", "book", "leisure"),
    ("wearing a hat", "hat", "everyday"),
];

const PLACES: [(&str, &str); 8] = [
    ("next to a tree", "tree"),
    ("in front of a building", "building"),
    ("on a mountain", "mountain"),
    ("under a bridge", "bridge"),
    ("near a boat", "boat"),
    ("beside a bicycle", "bicycle"),
    ("in a garden", "garden"),
    ("by a window", "window"),
];

const MOODS: [&str; 8] = [
    "A watercolour of {} lost in thought",
    "{} laughing at a long-forgotten joke",
    "A film poster with {} as the hero",
    "{} as an astronaut far from home",
    "A mosaic of {} in the style of Ravenna",
    "{} dancing as if nobody watched",
    "A postcard from {} on holiday",
    "{} waiting for the last train",
];

const TIMES: [&str; 8] = [
    "at dawn",
    "at noon",
    "on a rainy evening",
    "by moonlight",
    "in early spring",
    "in the heat of summer",
    "in late autumn",
    "on the first day of snow",
];

/// Draws everything below `root`, which need not exist.
///
/// # Errors
/// A size that there are no words for, or a file that cannot be written.
pub fn make_sample(root: &Path, size: SampleSize) -> io::Result<SampleFolders> {
    let half = size.prompts / 2;
    if size.identities == 0 || size.identities > TEST_IDENTITIES || half == 0 || half > 64 {
        let message = "1 to 200 identities with 2 to 128 prompts can be made up";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let at = |name: &str| root.join(name);
    let folders =
        SampleFolders { download: at("download"), prompts: at("prompts"), generations: at("generations") };
    let people: Vec<Person> = (0..size.identities).map(Person::new).collect();
    download(&folders.download, &people)?;
    prompts(&folders.prompts, &people, half)?;
    generations(&folders.generations, &people, half)?;
    Ok(folders)
}

/// Somebody made up.
struct Person {
    /// The number in CelebA, which grows with the place among the folders.
    number: i64,
    /// The numbers of the two photos, in no order.
    pictures: [u32; 2],
    attributes: [bool; 8],
    seed: u64,
}

impl Person {
    fn new(at: usize) -> Self {
        let mut rng = Rng::new(at as u64);
        // Both values of every attribute appear among any four people in a row.
        let attributes = std::array::from_fn(|bit| (at >> (bit % 2)) % 2 == usize::from(bit % 3 == 0));
        let first = 2 * ((at * 37) % 200) as u32;
        Self { number: 11 * at as i64 + 5, pictures: [first + 1, first], attributes, seed: rng.next_u64() }
    }

    /// This person in front of a background that follows from `scene`.
    fn portrait(&self, scene: u64) -> Vec<u8> {
        let mut face = Rng::new(self.seed);
        let skin = [120 + face.below(110), 90 + face.below(90), 70 + face.below(80)];
        let hair = [face.below(120), face.below(90), face.below(70)];
        let (width, eyes) = (0.22 + 0.1 * face.unit(), 0.07 + 0.05 * face.unit());
        let mut place = Rng::new(self.seed ^ scene.wrapping_mul(0x9e37_79b9));
        let (sky, ground) = (place.next_u64().to_le_bytes(), place.next_u64().to_le_bytes());
        let (x0, y0) = (0.4 + 0.2 * place.unit(), 0.42 + 0.12 * place.unit());
        let mut pixels = Vec::with_capacity((3 * SIDE * SIDE) as usize);
        for y in 0..SIDE {
            for x in 0..SIDE {
                let (u, v) = (f64::from(x) / f64::from(SIDE) - x0, f64::from(y) / f64::from(SIDE) - y0);
                let inside = |cx: f64, cy: f64, rx: f64, ry: f64| {
                    ((u - cx) / rx).powi(2) + ((v - cy) / ry).powi(2) < 1.0
                };
                let eye = inside(-eyes, -0.05, 0.025, 0.02) || inside(eyes, -0.05, 0.025, 0.02);
                let colour = if eye || inside(0.0, 0.14, 0.08, 0.02) {
                    [40, 25, 30]
                } else if inside(0.0, 0.0, width, 0.3) && v > -0.16 {
                    skin.map(|level| (level as f64 * (1.0 - 0.4 * u.abs())) as u8)
                } else if inside(0.0, -0.06, width + 0.05, 0.32) {
                    hair.map(|level| level as u8)
                } else {
                    let share = f64::from(y) / f64::from(SIDE);
                    std::array::from_fn(|at| {
                        (f64::from(sky[at]) * (1.0 - share) + f64::from(ground[at]) * share) as u8
                    })
                };
                pixels.extend_from_slice(&colour);
            }
        }
        pixels
    }
}

fn png(pixels: &[u8]) -> io::Result<Vec<u8>> {
    let mut file = Vec::new();
    let encoder = PngEncoder::new(&mut file);
    encoder.write_image(pixels, SIDE, SIDE, ExtendedColorType::Rgb8).map_err(io::Error::other)?;
    Ok(file)
}

fn jpeg(pixels: &[u8]) -> io::Result<Vec<u8>> {
    let side = SIDE as usize;
    let image = turbojpeg::Image {
        pixels,
        width: side,
        pitch: 3 * side,
        height: side,
        format: turbojpeg::PixelFormat::RGB,
    };
    let file = turbojpeg::compress(image, 92, turbojpeg::Subsamp::Sub2x2).map_err(io::Error::other)?;
    Ok(file.to_vec())
}

fn download(folder: &Path, people: &[Person]) -> io::Result<()> {
    for name in ["mask", "identity", "classification_label"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut images = ZipWriter::new(File::create(folder.join("image.zip"))?);
    let mut masks = ZipWriter::new(File::create(folder.join("mask/CelebAMask-HQ-mask-color-palette.zip"))?);
    let mut attributes = format!("{}\n{}\n", 2 * people.len(), ATTRIBUTES.join(" "));
    let mut finegrained = String::from("image_name\tBangs\tEyeglasses\tNo_Beard\tSmiling\tYoung\t\n");
    let mut identities = String::new();
    for person in people {
        for (which, picture) in person.pictures.into_iter().enumerate() {
            let pixels = person.portrait(1_000_000 + which as u64);
            images.start_file(format!("image/{picture}.jpg"), stored)?;
            images.write_all(&jpeg(&pixels)?)?;
            let mask: Vec<u8> =
                pixels.chunks(3).flat_map(|rgb| [if rgb[0] > 90 { 255 } else { 0 }; 3]).collect();
            masks.start_file(format!("masks/CelebAMask-HQ-mask-color-palette/{picture}.png"), stored)?;
            masks.write_all(&png(&mask)?)?;
            let _ = write!(attributes, "{picture}.jpg ");
            for present in person.attributes {
                attributes.push_str(if present { "  1" } else { " -1" });
            }
            attributes.push('\n');
            let _ = writeln!(finegrained, "{picture}.jpg\t{}\t0\t5\t{}\t2\t", picture % 6, which);
            let _ = writeln!(identities, "{picture}.jpg {}", person.number);
        }
    }
    images.finish()?;
    masks.finish()?;
    fs::write(folder.join("classification_label/CelebAMask-HQ-attribute-anno.txt"), attributes)?;
    fs::write(folder.join("classification_label/combined_annotation_hq.txt"), finegrained)?;
    fs::write(folder.join("identity/identity_CelebA-HQ.txt"), identities)
}

/// The `nth` prompt of a person with its objects and categories; everybody begins elsewhere.
fn typed_prompt(person: usize, nth: usize) -> (String, [&'static str; 2], &'static str) {
    let nth = (nth + 5 * person) % 64;
    let (activity, object, category) = ACTIVITIES[nth % 8];
    let (place, landmark) = PLACES[nth / 8];
    (format!("{{}} {activity} {place}"), [object, landmark], category)
}

fn written_prompt(person: usize, nth: usize) -> String {
    let nth = (nth + 3 * person) % 64;
    format!("{} {}", MOODS[nth % 8], TIMES[nth / 8])
}

fn prompts(folder: &Path, people: &[Person], half: usize) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let (mut typed, mut written) = (serde_json::Map::new(), serde_json::Map::new());
    let mut ids = String::from("file,split\n");
    for (at, person) in people.iter().enumerate() {
        let all: Vec<_> = (0..half).map(|nth| typed_prompt(at, nth)).collect();
        let prompts: Vec<&str> = all.iter().map(|(text, ..)| text.as_str()).collect();
        let detectables: Vec<_> = all.iter().map(|(_, objects, _)| objects).collect();
        let categories: Vec<_> = all.iter().map(|(.., category)| [category]).collect();
        let name = format!("{at:03}");
        let of = json!({"prompts": prompts, "detectables": detectables, "categories": categories});
        typed.insert(name.clone(), of);
        let prompts: Vec<String> = (0..half).map(|nth| written_prompt(at, nth)).collect();
        written.insert(name, json!({"prompts": prompts}));
        for picture in person.pictures {
            let _ = writeln!(ids, "{picture}.jpg,test");
        }
    }
    let mut objects: Vec<&str> = ACTIVITIES.iter().map(|(_, object, _)| *object).collect();
    objects.extend(PLACES.iter().map(|(_, object)| *object));
    fs::write(folder.join("celebahq_ids.txt"), ids)?;
    fs::write(folder.join("stellar_t.json"), serde_json::to_vec(&typed)?)?;
    fs::write(folder.join("stellar_h.json"), serde_json::to_vec(&written)?)?;
    fs::write(folder.join("objects.txt"), objects.join("\n") + "\n")
}

/// Pictures of each person for each prompt, the two photos taking turns, with the toolkit's JSON beside them.
fn generations(folder: &Path, people: &[Person], half: usize) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (at, person) in people.iter().enumerate() {
        let named = ATTRIBUTES.iter().zip(person.attributes);
        let attributes: serde_json::Map<_, _> =
            named.map(|(name, present)| ((*name).to_owned(), json!(if present { 1 } else { -1 }))).collect();
        for nth in 0..2 * half {
            let (prompt, detectables, categories) = if nth < half {
                let (prompt, objects, category) = typed_prompt(at, nth);
                (prompt, objects.to_vec(), vec![category])
            } else {
                (written_prompt(at, nth - half), vec![], vec![])
            };
            let photo = nth % 2;
            let name = format!("{at:03}-{photo}-{nth:02}");
            let about = json!({
                "index": nth + at * 2 * half,
                "prompt": prompt,
                "is_stellar_t": nth < half,
                "attributes": attributes,
                "detectables": detectables,
                "categories": categories,
                "image_path": format!("stellar/{at:03}/{photo}.jpg"),
                "save_name": name,
                "model_name": "made-up",
                "steps": 0,
            });
            fs::write(folder.join(format!("{name}.png")), png(&person.portrait(nth as u64))?)?;
            fs::write(folder.join(format!("{name}.json")), serde_json::to_vec(&about)?)?;
        }
    }
    Ok(())
}
