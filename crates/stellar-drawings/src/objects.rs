//! The objects of prompts, each of a few shapes in the unit square.

use crate::canvas::{Canvas, Colour, Frame, Shape, mixed};

use Shape::{Ellipse, Line, Polygon, Rect, Ring};

const BLACK: Colour = [0.08, 0.08, 0.1];
const WHITE: Colour = [0.97, 0.97, 0.95];
const BROWN: Colour = [0.45, 0.25, 0.1];
const GREEN: Colour = [0.1, 0.55, 0.15];

/// Draws `object` into `frame`. `shade` from −1 to 1 makes it darker or lighter.
///
/// # Panics
/// If the object is none of [`ACTIVITIES`](crate::ACTIVITIES) and [`PLACES`](crate::PLACES).
pub(crate) fn draw(canvas: &mut Canvas, object: &str, frame: &Frame, shade: f32) {
    for (shape, colour) in shapes(object) {
        let towards = if shade < 0.0 { [0.0; 3] } else { [1.0; 3] };
        canvas.fill(&shape.within(frame), mixed(colour, towards, 0.25 * shade.abs()), 1.0);
    }
}

fn shapes(object: &str) -> Vec<(Shape, Colour)> {
    match object {
        "horse" => horse(),
        "umbrella" => umbrella(),
        "pizza" => pizza(),
        "guitar" => guitar(),
        "car" => car(),
        "surfboard" => vec![
            (Ellipse((0.5, 0.5), (0.2, 0.5)), [0.05, 0.8, 0.85]),
            (Line((0.5, 0.05), (0.5, 0.95), 0.05), WHITE),
            (Rect((0.32, 0.6), (0.68, 0.68)), [0.95, 0.3, 0.6]),
        ],
        "book" => book(),
        "hat" => vec![
            (Ellipse((0.5, 0.82), (0.5, 0.16)), BLACK),
            (Rect((0.22, 0.1), (0.78, 0.8)), BLACK),
            (Rect((0.22, 0.58), (0.78, 0.74)), [0.9, 0.1, 0.15]),
        ],
        "tree" => vec![
            (Rect((0.42, 0.5), (0.58, 1.0)), BROWN),
            (Ellipse((0.5, 0.3), (0.42, 0.3)), GREEN),
            (Ellipse((0.3, 0.45), (0.27, 0.2)), [0.15, 0.62, 0.2]),
            (Ellipse((0.7, 0.45), (0.27, 0.2)), [0.08, 0.5, 0.12]),
        ],
        "building" => building(),
        "mountain" => vec![
            (Polygon(vec![(0.0, 1.0), (0.45, 0.0), (1.0, 1.0)]), [0.42, 0.42, 0.55]),
            (
                Polygon(vec![(0.3, 0.33), (0.45, 0.0), (0.63, 0.33), (0.5, 0.26), (0.42, 0.36)]),
                WHITE,
            ),
            (Polygon(vec![(0.5, 1.0), (0.8, 0.4), (1.0, 1.0)]), [0.34, 0.34, 0.47]),
        ],
        "bridge" => bridge(),
        "boat" => vec![
            (Rect((0.0, 0.84), (1.0, 1.0)), [0.1, 0.3, 0.8]),
            (Polygon(vec![(0.05, 0.65), (0.95, 0.65), (0.8, 0.9), (0.2, 0.9)]), [0.6, 0.1, 0.1]),
            (Line((0.48, 0.0), (0.48, 0.66), 0.04), BROWN),
            (Polygon(vec![(0.52, 0.02), (0.52, 0.6), (0.92, 0.6)]), WHITE),
            (Polygon(vec![(0.44, 0.1), (0.44, 0.6), (0.12, 0.6)]), [0.95, 0.85, 0.2]),
        ],
        "bicycle" => bicycle(),
        "garden" => garden(),
        "window" => vec![
            (Rect((0.05, 0.0), (0.95, 1.0)), [0.98, 0.98, 0.98]),
            (Rect((0.14, 0.08), (0.46, 0.46)), [0.45, 0.75, 0.98]),
            (Rect((0.54, 0.08), (0.86, 0.46)), [0.45, 0.75, 0.98]),
            (Rect((0.14, 0.54), (0.46, 0.92)), [0.45, 0.75, 0.98]),
            (Rect((0.54, 0.54), (0.86, 0.92)), [0.45, 0.75, 0.98]),
        ],
        other => unreachable!("{other} is not in the vocabulary"),
    }
}

fn horse() -> Vec<(Shape, Colour)> {
    let coat = [0.5, 0.27, 0.1];
    let legs =
        [0.25, 0.36, 0.62, 0.73].map(|x| (Rect((x, 0.6), (x + 0.08, 1.0)), [0.4, 0.2, 0.08]));
    let mut shapes: Vec<_> = legs.into();
    shapes.extend([
        (Line((0.2, 0.5), (0.06, 0.8), 0.07), BLACK),
        (Ellipse((0.48, 0.55), (0.32, 0.18)), coat),
        (Polygon(vec![(0.62, 0.5), (0.82, 0.55), (0.9, 0.15), (0.76, 0.12)]), coat),
        (Ellipse((0.87, 0.17), (0.13, 0.1)), coat),
        (Line((0.76, 0.1), (0.68, 0.42), 0.06), BLACK),
    ]);
    shapes
}

fn umbrella() -> Vec<(Shape, Colour)> {
    let canopy = |from: f32, to: f32| {
        let edge = |x: f32| 0.45 - (0.25 - (x - 0.5) * (x - 0.5)).max(0.0).sqrt() * 0.86;
        let mut corners: Vec<_> = (0..=6)
            .map(|step| {
                let x = from + (to - from) * step as f32 / 6.0;
                (x, edge(x))
            })
            .collect();
        corners.extend([(to, 0.45), (from, 0.45)]);
        Polygon(corners)
    };
    vec![
        (Line((0.5, 0.1), (0.5, 0.92), 0.05), BLACK),
        (Line((0.5, 0.92), (0.62, 0.92), 0.05), BLACK),
        (canopy(0.0, 0.25), [0.75, 0.1, 0.75]),
        (canopy(0.25, 0.5), [0.95, 0.55, 0.95]),
        (canopy(0.5, 0.75), [0.75, 0.1, 0.75]),
        (canopy(0.75, 1.0), [0.95, 0.55, 0.95]),
    ]
}

fn pizza() -> Vec<(Shape, Colour)> {
    let mut shapes = vec![
        (Ellipse((0.5, 0.5), (0.5, 0.5)), [0.7, 0.42, 0.12]),
        (Ellipse((0.5, 0.5), (0.42, 0.42)), [0.98, 0.82, 0.3]),
    ];
    for at in [(0.35, 0.3), (0.65, 0.35), (0.3, 0.6), (0.55, 0.62), (0.72, 0.65), (0.48, 0.82)] {
        shapes.push((Ellipse(at, (0.09, 0.09)), [0.85, 0.12, 0.08]));
    }
    shapes.push((Ellipse((0.48, 0.45), (0.05, 0.05)), GREEN));
    shapes
}

fn guitar() -> Vec<(Shape, Colour)> {
    vec![
        (Line((0.5, 0.5), (0.5, 0.02), 0.1), BLACK),
        (Rect((0.4, 0.0), (0.6, 0.1)), BROWN),
        (Ellipse((0.5, 0.8), (0.32, 0.2)), [0.95, 0.55, 0.1]),
        (Ellipse((0.5, 0.55), (0.23, 0.16)), [0.95, 0.55, 0.1]),
        (Ellipse((0.5, 0.66), (0.09, 0.07)), BLACK),
        (Line((0.4, 0.86), (0.6, 0.86), 0.04), BLACK),
    ]
}

fn car() -> Vec<(Shape, Colour)> {
    let wheel = |x: f32| {
        [
            (Ellipse((x, 0.82), (0.14, 0.17)), BLACK),
            (Ellipse((x, 0.82), (0.06, 0.07)), [0.7, 0.7, 0.7]),
        ]
    };
    let mut shapes = vec![
        (Polygon(vec![(0.2, 0.5), (0.32, 0.18), (0.68, 0.18), (0.82, 0.5)]), [0.85, 0.05, 0.08]),
        (Polygon(vec![(0.29, 0.47), (0.36, 0.25), (0.48, 0.25), (0.48, 0.47)]), [0.7, 0.9, 1.0]),
        (Polygon(vec![(0.53, 0.47), (0.53, 0.25), (0.65, 0.25), (0.73, 0.47)]), [0.7, 0.9, 1.0]),
        (Rect((0.0, 0.47), (1.0, 0.8)), [0.9, 0.08, 0.1]),
        (Rect((0.92, 0.53), (1.0, 0.63)), [1.0, 0.95, 0.4]),
    ];
    shapes.extend(wheel(0.24));
    shapes.extend(wheel(0.76));
    shapes
}

fn book() -> Vec<(Shape, Colour)> {
    let cover = [0.1, 0.15, 0.75];
    let mut shapes = vec![
        (Polygon(vec![(0.0, 0.12), (0.5, 0.24), (0.5, 1.0), (0.0, 0.88)]), cover),
        (Polygon(vec![(1.0, 0.12), (0.5, 0.24), (0.5, 1.0), (1.0, 0.88)]), cover),
        (Polygon(vec![(0.06, 0.05), (0.49, 0.18), (0.49, 0.92), (0.06, 0.8)]), WHITE),
        (Polygon(vec![(0.94, 0.05), (0.51, 0.18), (0.51, 0.92), (0.94, 0.8)]), WHITE),
    ];
    for line in 0..4 {
        let y = 0.27 + 0.14 * line as f32;
        shapes.push((Line((0.13, y - 0.04), (0.42, y + 0.04), 0.035), BLACK));
        shapes.push((Line((0.87, y - 0.04), (0.58, y + 0.04), 0.035), BLACK));
    }
    shapes
}

fn building() -> Vec<(Shape, Colour)> {
    let mut shapes = vec![(Rect((0.05, 0.0), (0.95, 1.0)), [0.5, 0.48, 0.46])];
    for row in 0..5 {
        for column in 0..3 {
            let (x, y) = (0.14 + 0.26 * column as f32, 0.06 + 0.18 * row as f32);
            shapes.push((Rect((x, y), (x + 0.16, y + 0.1)), [1.0, 0.9, 0.35]));
        }
    }
    shapes
}

fn bridge() -> Vec<(Shape, Colour)> {
    let rust = [0.6, 0.22, 0.12];
    let mut shapes = vec![
        (Rect((0.0, 0.12), (1.0, 0.3)), rust),
        (Rect((0.02, 0.3), (0.12, 1.0)), rust),
        (Rect((0.88, 0.3), (0.98, 1.0)), rust),
    ];
    for step in 0..6 {
        let x = step as f32 / 6.0;
        shapes.push((Line((x, 0.12), (x + 0.08, 0.0), 0.02), rust));
        shapes.push((Line((x + 0.08, 0.0), (x + 0.167, 0.12), 0.02), rust));
        shapes.push((Rect((x + 0.03, 0.17), (x + 0.12, 0.25)), [0.35, 0.1, 0.05]));
    }
    shapes
}

fn bicycle() -> Vec<(Shape, Colour)> {
    let paint = [0.0, 0.65, 0.5];
    vec![
        (Ring((0.23, 0.7), 0.23, 0.05), BLACK),
        (Ring((0.77, 0.7), 0.23, 0.05), BLACK),
        (Line((0.23, 0.7), (0.4, 0.35), 0.06), paint),
        (Line((0.4, 0.35), (0.7, 0.35), 0.06), paint),
        (Line((0.7, 0.35), (0.5, 0.7), 0.06), paint),
        (Line((0.5, 0.7), (0.23, 0.7), 0.06), paint),
        (Line((0.4, 0.35), (0.5, 0.7), 0.06), paint),
        (Line((0.77, 0.7), (0.68, 0.2), 0.06), paint),
        (Line((0.6, 0.18), (0.78, 0.2), 0.06), BLACK),
        (Line((0.32, 0.27), (0.46, 0.27), 0.07), BLACK),
    ]
}

fn garden() -> Vec<(Shape, Colour)> {
    let petals = [[0.95, 0.2, 0.3], [1.0, 0.75, 0.1], [0.85, 0.3, 0.8], [1.0, 0.5, 0.6]];
    let mut shapes = vec![(Rect((0.0, 0.72), (1.0, 1.0)), [0.3, 0.75, 0.2])];
    for flower in 0..8 {
        let x = 0.06 + 0.125 * flower as f32;
        let y = 0.25 + 0.25 * ((flower * 3) % 4) as f32 / 3.0;
        shapes.push((Line((x, y), (x, 0.85), 0.03), GREEN));
        shapes.push((Ellipse((x, y), (0.075, 0.12)), petals[flower % 4]));
        shapes.push((Ellipse((x, y), (0.03, 0.045)), [1.0, 0.95, 0.5]));
    }
    shapes
}
