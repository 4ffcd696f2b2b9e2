//! A small synthetic download with prompts and generated images, to try every command with.
//!
//! The files follow the layouts of CelebA-Dialog, Stellar and its toolkit. The images are drawings
//! of the crate `stellar-drawings`: every person in them is one public-domain portrait, warped and
//! tinted, so that faces are found, and scenes show what their prompts say. The demo pack is
//! trained on such drawings. Its scores mean something for them, and for nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};
use serde::Serialize;
use serde_json::json;
use stellar_drawings::{ACTIVITIES, Description, PLACES, Scene, draw};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::stellar::TEST_IDENTITIES;
use crate::metrics::ATTRIBUTES;
use crate::stats::Rng;
use crate::vision;

/// Width and height of every image, in pixels.
const SIDE: u32 = 160;

/// Quality of the synthetic method unless another one is asked for.
pub const SAMPLE_QUALITY: f64 = 0.8;

/// The demo pack's portrait: NASA, public domain.
static FACE: LazyLock<vision::Image> = LazyLock::new(|| {
    let file = include_bytes!("../../packs/demo/goldens/astronaut-face.jpg");
    vision::decode(file, &vision::DecodeLimits::default())
        .expect("the demo pack's golden image can be decoded")
});

/// Size of the synthetic data.
#[derive(Debug, Clone, Copy)]
pub struct SampleSize {
    /// Number of people, with two photos each; at most 200, all in the test split.
    pub identities: usize,
    /// Number of prompts per person, half of them as in Stellar-T and half as in Stellar-H; at most
    /// 128.
    pub prompts: usize,
}

/// Folders of the synthetic data.
#[derive(Debug, Clone)]
pub struct SampleFolders {
    /// Input of `prepare`: the download.
    pub download: PathBuf,
    /// Input of `prepare`: the prompts.
    pub prompts: PathBuf,
    /// A run of a synthetic method.
    pub generations: PathBuf,
}

/// Creates all files below `root`, which need not exist. The method has [`SAMPLE_QUALITY`].
///
/// # Errors
/// If the size is not supported, or a file cannot be written.
pub fn make_sample(root: &Path, size: SampleSize) -> io::Result<SampleFolders> {
    make_sample_of(root, size, SAMPLE_QUALITY)
}

/// Like [`make_sample`], with a method of this quality: the share of its images that show the right
/// person, and of those that show the right scene, and how cleanly they are drawn.
///
/// # Errors
/// If the size or the quality is not supported, or a file cannot be written.
pub fn make_sample_of(root: &Path, size: SampleSize, quality: f64) -> io::Result<SampleFolders> {
    if !(0.0..=1.0).contains(&quality) {
        let message = format!("the quality must be from 0 to 1, not {quality}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let half = size.prompts / 2;
    if size.identities == 0 || size.identities > TEST_IDENTITIES || half == 0 || half > 64 {
        let message = "the size must be 1 to 200 identities with 2 to 128 prompts each";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let at = |name: &str| root.join(name);
    let folders = SampleFolders {
        download: at("download"),
        prompts: at("prompts"),
        generations: at("generations"),
    };
    let people: Vec<Person> = (0..size.identities).map(Person::new).collect();
    download(&folders.download, &people)?;
    prompts(&folders.prompts, &people, half)?;
    generations(&folders.generations, &people, half, quality)?;
    Ok(folders)
}

/// A synthetic person.
struct Person {
    /// The number in CelebA, which increases with the index of the folder.
    number: i64,
    /// The numbers of the two photos, not sorted.
    images: [u32; 2],
    attributes: [bool; 8],
    seed: u64,
}

impl Person {
    fn new(at: usize) -> Self {
        let mut rng = Rng::new(at as u64);
        // Any four consecutive people have both values of every attribute.
        let attributes =
            std::array::from_fn(|bit| (at >> (bit % 2)) % 2 == usize::from(bit % 3 == 0));
        let first = 2 * ((at * 37) % 200) as u32;
        Self {
            number: 11 * at as i64 + 5,
            images: [first + 1, first],
            attributes,
            seed: rng.next_u64(),
        }
    }

    /// How this person looks.
    fn look(&self) -> stellar_drawings::Person {
        stellar_drawings::Person::new(self.seed, self.attributes)
    }

    /// Draws one of the two photos, and the mask of the person in it.
    fn photo(&self, which: usize) -> (Vec<u8>, Vec<u8>) {
        let look = self.look();
        let seed = self.seed.wrapping_add(which as u64 + 1);
        let of = Description { person: Some(&look), scene: Scene::Photo, quality: 1.0, seed };
        let photo = draw(&FACE, SIDE, of).image.pixels;
        // The same background without the person: where they differ, the person is.
        let background = draw(&FACE, SIDE, Description { person: None, ..of }).image.pixels;
        let pixels = photo.chunks(3).zip(background.chunks(3));
        let mask = pixels.flat_map(|(with, without)| [if with == without { 0 } else { 255 }; 3]);
        let mask = mask.collect();
        (photo, mask)
    }
}

/// The scene of a person's `nth` prompt of the template kind. Each person starts at another one.
fn typed_scene(person: usize, nth: usize) -> Scene {
    let nth = (nth + 5 * person) % 64;
    Scene::Typed { activity: nth % 8, place: nth / 8 }
}

/// The scene of a person's `nth` free prompt.
fn written_scene(person: usize, nth: usize) -> Scene {
    let nth = (nth + 3 * person) % 64;
    Scene::Written { mood: nth % 8, time: nth / 8 }
}

/// Draws what the synthetic method makes of a person's `nth` prompt. Some images show another
/// person or another scene, and every seventh shows no person.
fn generated(person: &Person, at: usize, nth: usize, half: usize, quality: f64) -> Vec<u8> {
    let mut rng = Rng::new(person.seed ^ (nth as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (is_person, is_scene) = (rng.unit() < quality, rng.unit() < quality);
    let (seed, away) = (rng.next_u64(), 1 + rng.below(63));
    let look = if is_person {
        person.look()
    } else {
        stellar_drawings::Person::new(seed, person.attributes.map(|present| !present))
    };
    let away = if is_scene { 0 } else { away };
    let scene = match nth.checked_sub(half) {
        None => typed_scene(at, nth + away),
        Some(nth) => written_scene(at, nth + away),
    };
    let shown = (!nth.is_multiple_of(7)).then_some(&look);
    let of = Description { person: shown, scene, quality: 0.4 + 0.6 * quality, seed };
    draw(&FACE, SIDE, of).image.pixels
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
    let file =
        turbojpeg::compress(image, 92, turbojpeg::Subsamp::Sub2x2).map_err(io::Error::other)?;
    Ok(file.to_vec())
}

/// Path of the masks inside the published archive, which was packed with the full path.
const MASKS_INSIDE: &str = "mnt/lustre/share/zqhuang/datasets_face/Face-Diffusion-raw-datasets/CelebA-Dialog-combined/mask/\
                            CelebAMask-HQ-mask-color-palette";

fn download(folder: &Path, people: &[Person]) -> io::Result<()> {
    for name in ["mask", "identity", "classification_label"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut images = ZipWriter::new(File::create(folder.join("image.zip"))?);
    let mut masks =
        ZipWriter::new(File::create(folder.join("mask/CelebAMask-HQ-mask-color-palette.zip"))?);
    let mut attributes = format!("{}\n{}\n", 2 * people.len(), ATTRIBUTES.join(" "));
    let mut finegrained =
        String::from("image_name\tBangs\tEyeglasses\tNo_Beard\tSmiling\tYoung\t\n");
    let mut identities = String::new();
    for person in people {
        for (which, image) in person.images.into_iter().enumerate() {
            let (pixels, mask) = person.photo(which);
            images.start_file(format!("image/{image}.jpg"), stored)?;
            images.write_all(&jpeg(&pixels)?)?;
            masks.start_file(format!("{MASKS_INSIDE}/{image}.png"), stored)?;
            masks.write_all(&png(&mask)?)?;
            let _ = write!(attributes, "{image}.jpg ");
            for present in person.attributes {
                attributes.push_str(if present { "  1" } else { " -1" });
            }
            attributes.push('\n');
            let _ = writeln!(finegrained, "{image}.jpg\t{}\t0\t5\t{}\t2\t", image % 6, which);
            let _ = writeln!(identities, "{image}.jpg {}", person.number);
        }
    }
    images.finish()?;
    masks.finish()?;
    fs::write(folder.join("classification_label/CelebAMask-HQ-attribute-anno.txt"), attributes)?;
    fs::write(folder.join("classification_label/combined_annotation_hq.txt"), finegrained)?;
    // This file is not used, but the published download has it, and the reference's script expects
    // to delete it.
    fs::write(folder.join("CelebA-HQ-to-CelebA-mapping.txt"), "idx orig_idx orig_file\n")?;
    fs::write(folder.join("identity/identity_CelebA-HQ.txt"), identities)
}

/// Returns the `nth` prompt of the template kind of a person with its objects and category.
fn typed_prompt(person: usize, nth: usize) -> (String, [&'static str; 2], &'static str) {
    let scene = typed_scene(person, nth);
    let Scene::Typed { activity, place } = scene else { unreachable!("a scene of its kind") };
    let (activity, place) = (ACTIVITIES[activity], PLACES[place]);
    (scene.prompt(), [activity.object, place.object], activity.category)
}

/// An entry of `stellar_t.json`, with its keys in the order of the layout.
#[derive(Serialize)]
struct Typed {
    prompts: Vec<String>,
    detectables: Vec<[&'static str; 2]>,
    categories: Vec<[&'static str; 1]>,
}

fn prompts(folder: &Path, people: &[Person], half: usize) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let (mut typed, mut written) = (BTreeMap::new(), serde_json::Map::new());
    let mut ids = String::from("file,split\n");
    for (at, person) in people.iter().enumerate() {
        let all: Vec<_> = (0..half).map(|nth| typed_prompt(at, nth)).collect();
        let prompts = all.iter().map(|(text, ..)| text.clone()).collect();
        let detectables = all.iter().map(|(_, objects, _)| *objects).collect();
        let categories = all.iter().map(|(.., category)| [*category]).collect();
        let name = format!("{at:03}");
        typed.insert(name.clone(), Typed { prompts, detectables, categories });
        let prompts: Vec<String> = (0..half).map(|nth| written_scene(at, nth).prompt()).collect();
        written.insert(name, json!({"prompts": prompts}));
        for image in person.images {
            let _ = writeln!(ids, "{image}.jpg,test");
        }
    }
    let mut objects: Vec<&str> = ACTIVITIES.iter().map(|activity| activity.object).collect();
    objects.extend(PLACES.iter().map(|place| place.object));
    fs::write(folder.join("celebahq_ids.txt"), ids)?;
    fs::write(folder.join("stellar_t.json"), serde_json::to_vec(&typed)?)?;
    fs::write(folder.join("stellar_h.json"), serde_json::to_vec(&written)?)?;
    fs::write(folder.join("objects.txt"), objects.join("\n") + "\n")
}

/// Writes an image of each person for each prompt, alternating between the two photos, with the
/// toolkit's JSON next to it.
fn generations(folder: &Path, people: &[Person], half: usize, quality: f64) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (at, person) in people.iter().enumerate() {
        let named = ATTRIBUTES.iter().zip(person.attributes);
        let attributes: serde_json::Map<_, _> = named
            .map(|(name, present)| ((*name).to_owned(), json!(if present { 1 } else { -1 })))
            .collect();
        for nth in 0..2 * half {
            let (prompt, detectables, categories) = if nth < half {
                let (prompt, objects, category) = typed_prompt(at, nth);
                (prompt, objects.to_vec(), vec![category])
            } else {
                (written_scene(at, nth - half).prompt(), vec![], vec![])
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
            let pixels = generated(person, at, nth, half, quality);
            fs::write(folder.join(format!("{name}.png")), png(&pixels)?)?;
            fs::write(folder.join(format!("{name}.json")), serde_json::to_vec(&about)?)?;
        }
    }
    Ok(())
}
