//! People: one portrait, tinted and warped differently for each.

use stellar_stats::Rng;
use stellar_vision::Image;

use crate::canvas::{Canvas, Colour, Frame, Point, Shape, mixed};

/// The middle of the portrait's head and its half axes, as shares of the portrait.
const HEAD: (Point, Point) = ((0.49, 0.34), (0.4, 0.36));

/// The part of the portrait that is drawn: what is below shows other clothes.
const SHOWN: f32 = 0.68;

/// Where the face is within the portrait: from the eyebrows to the chin, as MTCNN frames it.
const FACE: [f32; 4] = [0.26, 0.25, 0.69, 0.65];

/// A person of the drawn world. Every picture of them has the same warp and tint.
#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    gain: Colour,
    lift: Colour,
    clothes: Colour,
    /// Height of the head by its width, relative to the portrait.
    pub(crate) stretch: f32,
    bulges: [Bulge; 5],
    beard: f32,
    pub(crate) mirrored: bool,
}

/// A place of the portrait that is drawn larger or smaller.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bulge {
    centre: Point,
    radius: Point,
    /// Above 0: larger; below 0: smaller; along each axis.
    strength: Point,
}

impl Person {
    /// The person of a seed. The attributes are those of CelebA in the order of the metrics: young,
    /// male, high cheekbones, pointy nose, narrow eyes, double chin, big lips, big nose. All of
    /// them but the cheekbones and the pointy nose can be seen.
    #[must_use]
    pub fn new(seed: u64, attributes: [bool; 8]) -> Self {
        let mut rng = Rng::new(seed ^ 0x7065_7273_6f6e);
        let mut between = |low: f32, high: f32| low + (high - low) * rng.unit() as f32;
        // One channel is strong, one weak, one between: people differ in hue, not only in light.
        let mut gain = [between(0.92, 1.1), between(0.58, 0.72), between(0.66, 1.0)];
        let mut lift = [between(0.0, 0.06), between(0.0, 0.12), between(0.0, 0.1)];
        let clothes = [between(0.0, 1.0), between(0.0, 1.0), between(0.0, 1.0)];
        let stretch = between(0.92, 1.1);
        let turn = between(0.0, 6.0) as usize;
        for colours in [&mut gain, &mut lift] {
            colours.rotate_left(turn % 3);
            if turn >= 3 {
                colours.swap(0, 2);
            }
        }
        let [young, male, _, _, narrow, chin, lips, nose] = attributes;
        let either = |yes: bool, a: f32, b: f32| if yes { a } else { b };
        let mut own = |size: f32| between(-size, size);
        let bulges = [
            Bulge {
                centre: (0.49, 0.37),
                radius: (0.3, 0.1),
                strength: (own(0.12), either(narrow, -0.4, 0.1) + own(0.08)),
            },
            Bulge {
                centre: (0.485, 0.45),
                radius: (0.13, 0.13),
                strength: (either(nose, 0.45, -0.15) + own(0.08), own(0.15)),
            },
            Bulge {
                centre: (0.465, 0.55),
                radius: (0.2, 0.1),
                strength: (own(0.2), either(lips, 0.45, -0.1) + own(0.08)),
            },
            Bulge {
                centre: (0.48, 0.64),
                radius: (0.35, 0.14),
                strength: (either(chin, 0.3, -0.08) + own(0.06), own(0.06)),
            },
            Bulge { centre: (0.48, 0.14), radius: (0.45, 0.2), strength: (own(0.2), own(0.2)) },
        ];
        if !young {
            gain = gain.map(|level| level * 0.9);
        }
        let mirrored = own(1.0) > 0.0;
        Self { gain, lift, clothes, stretch, bulges, beard: either(male, 0.35, 0.0), mirrored }
    }

    /// Where of the portrait a point of the drawn head is taken from.
    fn source(&self, (x, y): Point) -> Point {
        self.bulges.iter().fold((x, y), |at, bulge| {
            let (dx, dy) = (x - bulge.centre.0, y - bulge.centre.1);
            let (u, v) = (dx / bulge.radius.0, dy / bulge.radius.1);
            let near = (1.0 - u * u - v * v).max(0.0);
            let near = near * near;
            (at.0 - bulge.strength.0 * near * dx, at.1 - bulge.strength.1 * near * dy)
        })
    }

    fn colour(&self, portrait: &Image, at: Point) -> Colour {
        let level = sample(portrait, self.source(at));
        let shadow = self.beard * beard(at);
        std::array::from_fn(|channel| {
            (level[channel] * self.gain[channel] + self.lift[channel]) * (1.0 - shadow)
        })
    }

    /// Draws the head and shoulders. `frame` is where the whole portrait would be. Returns where
    /// the face is.
    pub(crate) fn draw(
        &self,
        canvas: &mut Canvas,
        portrait: &Image,
        frame: &Frame,
        light: (Colour, f32),
    ) -> [f32; 4] {
        let ((left, top), (width, height)) = (frame.corner, frame.size);
        let neck = (left + 0.48 * width, top + SHOWN * height);
        let body = mixed(self.clothes, light.0, light.1);
        let shoulders = [
            (neck.0 - 0.16 * width, neck.1 - 0.06 * height),
            (neck.0 + 0.16 * width, neck.1 - 0.06 * height),
            (neck.0 + 0.62 * width, neck.1 + 0.2 * height),
            (neck.0 + 0.72 * width, 1.01),
            (neck.0 - 0.72 * width, 1.01),
            (neck.0 - 0.62 * width, neck.1 + 0.2 * height),
        ];
        canvas.fill(&Shape::Polygon(shoulders.into()), body, 1.0);
        let collar = (neck.0, neck.1 - 0.03 * height);
        let lighter = mixed(body, [1.0; 3], 0.5);
        canvas.fill(&Shape::Ellipse(collar, (0.2 * width, 0.07 * height)), lighter, 1.0);
        let side = canvas.side as f32;
        let range = |from: f32, to: f32| {
            (from * side).clamp(0.0, side) as usize..(to * side).ceil().clamp(0.0, side) as usize
        };
        for y in range(top, top + SHOWN * height) {
            for x in range(left, left + width) {
                let u = ((x as f32 + 0.5) / side - left) / width;
                let v = ((y as f32 + 0.5) / side - top) / height;
                let u = if frame.mirrored { 1.0 - u } else { u };
                let (dx, dy) = ((u - HEAD.0.0) / HEAD.1.0, (v - HEAD.0.1) / HEAD.1.1);
                let opacity = ((1.0 - dx * dx - dy * dy) * 8.0).clamp(0.0, 1.0);
                if opacity > 0.0 {
                    let colour = mixed(self.colour(portrait, (u, v)), light.0, light.1);
                    canvas.mix(x, y, colour, opacity);
                }
            }
        }
        let [from, above, to, below] = FACE;
        let (from, to) = if frame.mirrored { (1.0 - to, 1.0 - from) } else { (from, to) };
        [left + from * width, top + above * height, left + to * width, top + below * height]
    }
}

/// How much of a beard there is at a place of the head, 0 to 1.
fn beard((x, y): Point) -> f32 {
    let (dx, dy) = ((x - 0.475) / 0.22, (y - 0.6) / 0.13);
    let (mx, my) = ((x - 0.465) / 0.1, (y - 0.555) / 0.03);
    let mouth = (1.0 - mx * mx - my * my).clamp(0.0, 1.0);
    ((1.0 - dx * dx - dy * dy) * 3.0).clamp(0.0, 1.0) * (1.0 - mouth)
}

/// The portrait at a place between its pixels, 0 to 1 a channel.
fn sample(image: &Image, (x, y): Point) -> Colour {
    let place = |at: f32, size: u32| {
        let at = (at * size as f32 - 0.5).clamp(0.0, (size - 1) as f32);
        let low = at as usize;
        (low, (low + 1).min(size as usize - 1), at - low as f32)
    };
    let (left, right, across) = place(x, image.width);
    let (top, bottom, down) = place(y, image.height);
    let level = |x: usize, y: usize, channel: usize| {
        f32::from(image.pixels[3 * (y * image.width as usize + x) + channel]) / 255.0
    };
    std::array::from_fn(|c| {
        let above = level(left, top, c) * (1.0 - across) + level(right, top, c) * across;
        let below = level(left, bottom, c) * (1.0 - across) + level(right, bottom, c) * across;
        above * (1.0 - down) + below * down
    })
}
