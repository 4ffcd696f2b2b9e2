//! A square canvas in unit coordinates: (0, 0) is its top left corner and (1, 1) the bottom right.

use stellar_vision::Image;

/// A point, or a vector, in unit coordinates.
pub(crate) type Point = (f32, f32);

/// Red, green and blue, 0 to 1.
pub(crate) type Colour = [f32; 3];

/// An area of the canvas.
pub(crate) enum Shape {
    /// Centre and the two half axes.
    Ellipse(Point, Point),
    /// Centre, outer radius and width of the line.
    Ring(Point, f32, f32),
    /// Left top and right bottom corner.
    Rect(Point, Point),
    /// Corners in order.
    Polygon(Vec<Point>),
    /// Ends and width.
    Line(Point, Point, f32),
}

impl Shape {
    fn contains(&self, (x, y): Point) -> bool {
        match self {
            Self::Ellipse(centre, axes) => {
                let (dx, dy) = ((x - centre.0) / axes.0, (y - centre.1) / axes.1);
                dx * dx + dy * dy <= 1.0
            }
            Self::Ring(centre, radius, width) => {
                let (dx, dy) = (x - centre.0, y - centre.1);
                let distance = (dx * dx + dy * dy).sqrt();
                (radius - width..=*radius).contains(&distance)
            }
            Self::Rect(from, to) => (from.0..=to.0).contains(&x) && (from.1..=to.1).contains(&y),
            Self::Polygon(corners) => {
                let mut inside = false;
                let mut last = corners[corners.len() - 1];
                for &corner in corners {
                    let crosses = (corner.1 > y) != (last.1 > y);
                    let at = (last.0 - corner.0) * (y - corner.1) / (last.1 - corner.1) + corner.0;
                    inside ^= crosses && x < at;
                    last = corner;
                }
                inside
            }
            Self::Line(a, b, width) => {
                let (dx, dy) = (b.0 - a.0, b.1 - a.1);
                let along = ((x - a.0) * dx + (y - a.1) * dy) / (dx * dx + dy * dy).max(1e-9);
                let along = along.clamp(0.0, 1.0);
                let (ex, ey) = (x - a.0 - along * dx, y - a.1 - along * dy);
                ex * ex + ey * ey <= width * width / 4.0
            }
        }
    }

    /// Left, top, right and bottom of what it covers.
    fn bounds(&self) -> [f32; 4] {
        let around = |points: &[Point], margin: f32| {
            points.iter().fold([f32::MAX, f32::MAX, f32::MIN, f32::MIN], |b, p| {
                [
                    b[0].min(p.0 - margin),
                    b[1].min(p.1 - margin),
                    b[2].max(p.0 + margin),
                    b[3].max(p.1 + margin),
                ]
            })
        };
        match self {
            Self::Ellipse(c, r) => [c.0 - r.0, c.1 - r.1, c.0 + r.0, c.1 + r.1],
            Self::Ring(c, radius, _) => around(&[*c], *radius),
            Self::Rect(from, to) => around(&[*from, *to], 0.0),
            Self::Polygon(corners) => around(corners, 0.0),
            Self::Line(a, b, width) => around(&[*a, *b], width / 2.0),
        }
    }

    /// Moves and scales from the unit square into `frame`, mirrored if it is.
    pub(crate) fn within(self, frame: &Frame) -> Self {
        let (width, height) = (frame.size.0, frame.size.1);
        let even = f32::midpoint(width, height);
        match self {
            Self::Ellipse(c, r) => Self::Ellipse(frame.at(c), (r.0 * width, r.1 * height)),
            Self::Ring(c, radius, line) => Self::Ring(frame.at(c), radius * even, line * even),
            Self::Rect(from, to) => {
                let (a, b) = (frame.at(from), frame.at(to));
                Self::Rect((a.0.min(b.0), a.1), (a.0.max(b.0), b.1))
            }
            Self::Polygon(corners) => {
                Self::Polygon(corners.into_iter().map(|corner| frame.at(corner)).collect())
            }
            Self::Line(a, b, line) => Self::Line(frame.at(a), frame.at(b), line * even),
        }
    }
}

/// Where on the canvas something is drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) corner: Point,
    pub(crate) size: Point,
    pub(crate) mirrored: bool,
}

impl Frame {
    /// From the unit square to the canvas.
    fn at(&self, (x, y): Point) -> Point {
        let x = if self.mirrored { 1.0 - x } else { x };
        (self.corner.0 + x * self.size.0, self.corner.1 + y * self.size.1)
    }

    /// Left, top, right and bottom, within the canvas.
    pub(crate) fn bounds(&self) -> [f32; 4] {
        let (left, top) = self.corner;
        [left, top, left + self.size.0, top + self.size.1].map(|at| at.clamp(0.0, 1.0))
    }
}

/// Pixels that are drawn on.
pub(crate) struct Canvas {
    pub(crate) side: usize,
    pub(crate) pixels: Vec<Colour>,
}

/// Points of a pixel that a shape is tested at, along each side.
const SAMPLES: usize = 2;

impl Canvas {
    pub(crate) fn new(side: usize) -> Self {
        Self { side, pixels: vec![[1.0; 3]; side * side] }
    }

    /// Mixes `colour` into what is there, by `opacity` where the shape is.
    pub(crate) fn fill(&mut self, shape: &Shape, colour: Colour, opacity: f32) {
        let side = self.side as f32;
        let [left, top, right, bottom] = shape.bounds().map(|at| (at * side).clamp(0.0, side));
        for y in top as usize..(bottom.ceil() as usize) {
            for x in left as usize..(right.ceil() as usize) {
                let mut covered = 0;
                for part in 0..SAMPLES * SAMPLES {
                    let of = |at: usize, part: usize| {
                        (at as f32 + (part as f32 + 0.5) / SAMPLES as f32) / side
                    };
                    let point = (of(x, part % SAMPLES), of(y, part / SAMPLES));
                    covered += usize::from(shape.contains(point));
                }
                let share = opacity * covered as f32 / (SAMPLES * SAMPLES) as f32;
                self.mix(x, y, colour, share);
            }
        }
    }

    /// Mixes a colour into one pixel.
    pub(crate) fn mix(&mut self, x: usize, y: usize, colour: Colour, share: f32) {
        let pixel = &mut self.pixels[y * self.side + x];
        *pixel = mixed(*pixel, colour, share);
    }

    /// Fills all of it: `above` at the top and `below` at the bottom, blended between.
    pub(crate) fn gradient(&mut self, above: Colour, below: Colour) {
        for (at, pixel) in self.pixels.iter_mut().enumerate() {
            *pixel = mixed(above, below, (at / self.side) as f32 / self.side as f32);
        }
    }

    /// Rounds to bytes.
    pub(crate) fn image(&self) -> Image {
        let levels = self.pixels.iter().flatten();
        let bytes = levels.map(|level| (255.0 * level.clamp(0.0, 1.0)).round() as u8).collect();
        Image::new(self.side as u32, self.side as u32, bytes)
    }
}

/// `a` with a share of `b`.
pub(crate) fn mixed(a: Colour, b: Colour, share: f32) -> Colour {
    std::array::from_fn(|at| a[at] + share * (b[at] - a[at]))
}
