//! Drawings that show what their prompts say: people, objects, places, times and styles.
//!
//! A drawing depends on its description and a seed alone. Its people are one portrait, warped and
//! tinted, so that a face detector finds them; everything else is made of simple shapes. Models
//! that were trained on these drawings say nothing about other pictures.

#![forbid(unsafe_code)]

mod canvas;
mod objects;
mod person;
mod scene;
mod words;

use stellar_stats::Rng;
use stellar_vision::Image;

use canvas::{Canvas, Frame, Point};
pub use person::Person;
pub use words::{ACTIVITIES, Activity, MOODS, PLACES, Place, TIMES};

/// What is around the person. Numbers are places in the tables of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// A plain background, the head large: a photo of the person.
    Photo,
    /// An activity of [`ACTIVITIES`] at a place of [`PLACES`].
    Typed {
        /// What the person does.
        activity: usize,
        /// Where.
        place: usize,
    },
    /// A mood of [`MOODS`] at a time of [`TIMES`].
    Written {
        /// What the picture is about.
        mood: usize,
        /// When.
        time: usize,
    },
}

impl Scene {
    /// The prompt that the scene shows, with `{}` for the person. A photo has none of its own.
    #[must_use]
    pub fn prompt(self) -> String {
        match self {
            Self::Photo => "A photo of {}".to_owned(),
            Self::Typed { activity, place } => {
                format!("{{}} {} {}", ACTIVITIES[activity].words, PLACES[place].words)
            }
            Self::Written { mood, time } => format!("{} {}", MOODS[mood], TIMES[time]),
        }
    }
}

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Description<'a> {
    /// The person in the drawing. Without one, it shows no person.
    pub person: Option<&'a Person>,
    /// What is around them.
    pub scene: Scene,
    /// 1 is clean; lower values are noisy, pale and coarse. Between 0 and 1.
    pub quality: f64,
    /// Placement and colours: another seed is another drawing of the same.
    pub seed: u64,
}

/// A drawing, and where things are in it.
#[derive(Debug, Clone)]
pub struct Drawing {
    /// The pixels.
    pub image: Image,
    /// Objects by their names. Boxes are left, top, right and bottom as shares of the side.
    pub objects: Vec<(&'static str, [f32; 4])>,
    /// The box of the face.
    pub face: Option<[f32; 4]>,
}

/// Draws a description in `side` × `side` pixels, with `portrait` as everyone's face.
///
/// # Panics
/// If the scene is not in the tables, or `side` is 0.
#[must_use]
pub fn draw(portrait: &Image, side: u32, of: Description<'_>) -> Drawing {
    let mut canvas = Canvas::new(side as usize);
    let mut rng = Rng::new(of.seed ^ 0x6472_6177);
    let mut drawn = match of.scene {
        Scene::Photo => photo(&mut canvas, portrait, of.person, &mut rng),
        Scene::Typed { activity, place } => {
            typed(&mut canvas, portrait, of.person, (activity, place), &mut rng)
        }
        Scene::Written { mood, time } => {
            written(&mut canvas, portrait, of.person, (mood, time), &mut rng)
        }
    };
    spoil(&mut canvas, 1.0 - of.quality.clamp(0.0, 1.0) as f32, &mut rng);
    drawn.image = canvas.image();
    drawn
}

fn empty() -> Drawing {
    Drawing { image: Image::new(1, 1, vec![0; 3]), objects: Vec::new(), face: None }
}

fn between(rng: &mut Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.unit() as f32
}

/// Where a portrait of this width is drawn.
fn head(person: &Person, left: f32, top: f32, width: f32, mirrored: bool) -> Frame {
    let height = width * 1.285 * person.stretch;
    Frame { corner: (left, top), size: (width, height), mirrored: mirrored ^ person.mirrored }
}

fn muted(rng: &mut Rng, low: f32, high: f32) -> [f32; 3] {
    let level = between(rng, low, high);
    std::array::from_fn(|_| level + between(rng, -0.08, 0.08))
}

fn photo(canvas: &mut Canvas, portrait: &Image, person: Option<&Person>, rng: &mut Rng) -> Drawing {
    let (above, below) = (muted(rng, 0.3, 0.9), muted(rng, 0.3, 0.9));
    canvas.gradient(above, below);
    let mut drawn = empty();
    if let Some(person) = person {
        let width = between(rng, 0.6, 0.72);
        let left = (1.0 - width) * between(rng, 0.3, 0.7);
        let frame = head(person, left, between(rng, 0.02, 0.1), width, rng.below(2) == 1);
        drawn.face = Some(person.draw(canvas, portrait, &frame, ([1.0; 3], 0.0)));
    }
    drawn
}

/// Height by width of each object as it is drawn, and its width as a share of the side.
fn proportions(object: &str) -> Point {
    match object {
        "horse" => (0.42, 0.95),
        "umbrella" => (0.4, 1.0),
        "pizza" => (0.32, 1.0),
        "guitar" => (0.22, 2.0),
        "car" => (0.5, 0.62),
        "surfboard" => (0.26, 2.3),
        "book" => (0.34, 0.8),
        "tree" => (0.42, 1.5),
        "building" => (0.36, 1.8),
        "mountain" => (0.62, 0.85),
        "bridge" => (0.95, 0.62),
        "boat" => (0.46, 1.0),
        "bicycle" => (0.46, 0.8),
        "garden" => (0.75, 0.42),
        _ => (0.4, 1.15),
    }
}

fn typed(
    canvas: &mut Canvas,
    portrait: &Image,
    person: Option<&Person>,
    (activity, place): (usize, usize),
    rng: &mut Rng,
) -> Drawing {
    let (sky, ground) = (muted(rng, 0.68, 0.92), muted(rng, 0.45, 0.7));
    canvas.gradient(sky, muted(rng, 0.6, 0.85));
    let horizon = between(rng, 0.7, 0.8);
    canvas.fill(&canvas::Shape::Rect((0.0, horizon), (1.0, 1.0)), ground, 1.0);
    let mut drawn = empty();

    // The landmark stands behind the person on one side, or all along.
    let landmark = PLACES[place].object;
    let on_right = rng.below(2) == 1;
    let (width, ratio) = proportions(landmark);
    let width = width * between(rng, 0.9, 1.1);
    let height = width * ratio * between(rng, 0.92, 1.08);
    let edge = between(rng, 0.0, 0.06);
    let left = match landmark {
        "bridge" | "garden" => (1.0 - width) * between(rng, 0.2, 0.8),
        _ if on_right => 1.0 - width - edge,
        _ => edge,
    };
    let top = match landmark {
        "bridge" => between(rng, 0.0, 0.06),
        "window" => between(rng, 0.06, 0.2),
        "garden" => between(rng, 0.5, 0.55),
        _ => horizon + between(rng, 0.0, 0.1) - height,
    };
    let frame = Frame { corner: (left, top), size: (width, height), mirrored: rng.below(2) == 1 };
    objects::draw(canvas, landmark, &frame, between(rng, -1.0, 1.0));
    drawn.objects.push((landmark, frame.bounds()));

    let head_width = between(rng, 0.45, 0.52);
    let x = if on_right { between(rng, 0.02, 0.16) } else { between(rng, 0.34, 0.48) };
    let y = between(rng, 0.1, 0.16);
    let stretch = person.map_or(1.0, |person| person.stretch);
    let (head_left, neck) = (x, y + 0.68 * head_width * 1.285 * stretch);
    if let Some(person) = person {
        let frame = head(person, head_left, y, head_width, rng.below(2) == 1);
        drawn.face = Some(person.draw(canvas, portrait, &frame, ([1.0; 3], 0.0)));
    }

    let object = ACTIVITIES[activity].object;
    let (width, ratio) = proportions(object);
    let width = width * between(rng, 0.92, 1.1);
    let height = (width * ratio).min(0.6) * between(rng, 0.95, 1.05);
    let middle = head_left + head_width * 0.48;
    let (corner, size) = match object {
        // On the head, without hiding the face.
        "hat" => {
            let size = (head_width * 0.8, head_width * 0.48);
            ((middle - size.0 / 2.0, y - 0.3 * head_width), size)
        }
        "umbrella" => {
            let left = if on_right { middle + 0.12 } else { middle - 0.12 - width };
            ((left, between(rng, 0.3, 0.42)), (width, height))
        }
        "guitar" | "surfboard" => {
            let away = between(rng, 0.14, 0.22);
            let left = if on_right { middle + away } else { middle - away - width };
            ((left, 0.98 - height - between(rng, 0.0, 0.06)), (width, height))
        }
        _ => {
            let left = middle - width / 2.0 + between(rng, -0.12, 0.12);
            let top = (neck + between(rng, 0.04, 0.1)).min(0.98 - height);
            ((left, top), (width, height))
        }
    };
    let frame = Frame { corner, size, mirrored: rng.below(2) == 1 };
    objects::draw(canvas, object, &frame, between(rng, -1.0, 1.0));
    drawn.objects.push((object, frame.bounds()));
    drawn
}

fn written(
    canvas: &mut Canvas,
    portrait: &Image,
    person: Option<&Person>,
    (mood, time): (usize, usize),
    rng: &mut Rng,
) -> Drawing {
    scene::hour(canvas, time, rng);
    scene::behind(canvas, mood, rng);
    scene::weather(canvas, time, rng);
    let mut drawn = empty();
    let width = between(rng, 0.45, 0.52);
    let (left, top) = (between(rng, 0.14, 0.36), between(rng, 0.14, 0.22));
    let mut bounds = [left, top, left + width, top + width];
    if let Some(person) = person {
        let frame = head(person, left, top, width, rng.below(2) == 1);
        drawn.face = Some(person.draw(canvas, portrait, &frame, scene::light(time)));
        let neck = top + 0.68 * frame.size.1;
        scene::suit(canvas, mood, &frame, neck);
        bounds = [left + 0.1 * width, top, left + 0.88 * width, neck];
    }
    scene::before(canvas, mood, bounds, rng);
    drawn
}

/// Makes a drawing worse: coarser, paler and noisier.
fn spoil(canvas: &mut Canvas, by: f32, rng: &mut Rng) {
    if by <= 0.0 {
        return;
    }
    let block = 1 + (by * canvas.side as f32 / 90.0) as usize;
    if block > 1 {
        let coarse = canvas.pixels.clone();
        for (at, pixel) in canvas.pixels.iter_mut().enumerate() {
            let (x, y) = (at % canvas.side / block * block, at / canvas.side / block * block);
            *pixel = coarse[y * canvas.side + x];
        }
    }
    for pixel in &mut canvas.pixels {
        let noise = [(); 3].map(|()| between(rng, -0.2, 0.2) * by);
        let pale = canvas::mixed(*pixel, [0.55; 3], 0.5 * by);
        *pixel = std::array::from_fn(|channel| pale[channel] + noise[channel]);
    }
}

#[cfg(test)]
mod tests;
