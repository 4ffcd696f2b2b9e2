//! Skies, seasons and styles: what free prompts say.

use stellar_stats::Rng;

use crate::canvas::{Canvas, Colour, Frame, Shape, mixed};

use Shape::{Ellipse, Line, Polygon, Rect, Ring};

/// Above and below, and how the light of the hour tints a person.
struct Hour {
    sky: Colour,
    ground: Colour,
    light: (Colour, f32),
}

/// In the order of [`TIMES`](crate::TIMES).
const HOURS: [Hour; 8] = [
    Hour { sky: [0.95, 0.55, 0.7], ground: [1.0, 0.75, 0.45], light: ([1.0, 0.6, 0.6], 0.06) },
    Hour { sky: [0.25, 0.6, 1.0], ground: [0.35, 0.75, 0.3], light: ([1.0, 1.0, 1.0], 0.05) },
    Hour { sky: [0.35, 0.4, 0.48], ground: [0.25, 0.28, 0.35], light: ([0.3, 0.3, 0.4], 0.1) },
    Hour { sky: [0.03, 0.04, 0.25], ground: [0.08, 0.08, 0.18], light: ([0.1, 0.1, 0.4], 0.14) },
    Hour { sky: [0.75, 0.9, 0.95], ground: [0.55, 0.9, 0.4], light: ([0.9, 1.0, 0.9], 0.04) },
    Hour { sky: [1.0, 0.85, 0.3], ground: [0.95, 0.7, 0.3], light: ([1.0, 0.8, 0.3], 0.08) },
    Hour { sky: [0.7, 0.5, 0.3], ground: [0.45, 0.25, 0.1], light: ([0.8, 0.5, 0.2], 0.06) },
    Hour { sky: [0.82, 0.85, 0.9], ground: [0.97, 0.97, 1.0], light: ([0.9, 0.95, 1.0], 0.08) },
];

/// How the light at a time tints a person: towards which colour, and by how much.
pub(crate) fn light(time: usize) -> (Colour, f32) {
    HOURS[time].light
}

/// Draws what is behind the person at this time.
pub(crate) fn hour(canvas: &mut Canvas, time: usize, rng: &mut Rng) {
    let Hour { sky, ground, .. } = HOURS[time];
    canvas.gradient(sky, mixed(sky, ground, 0.3));
    let horizon = 0.66 + 0.1 * rng.unit() as f32;
    canvas.fill(&Rect((0.0, horizon), (1.0, 1.0)), ground, 1.0);
    let mut anywhere = |from: f32, to: f32| from + (to - from) * rng.unit() as f32;
    let yellow = [1.0, 0.9, 0.2];
    let side = anywhere(0.12, 0.88);
    match time {
        0 => canvas.fill(&Ellipse((side, horizon), (0.16, 0.12)), [1.0, 0.45, 0.2], 1.0),
        1 => canvas.fill(&Ellipse((side, 0.1), (0.07, 0.07)), yellow, 1.0),
        3 => {
            canvas.fill(&Ellipse((side, 0.14), (0.1, 0.1)), [0.95, 0.95, 0.8], 1.0);
            canvas.fill(&Ellipse((side + 0.05, 0.12), (0.085, 0.085)), sky, 1.0);
            for _ in 0..14 {
                let star = (anywhere(0.0, 1.0), anywhere(0.0, 0.6));
                canvas.fill(&Ellipse(star, (0.009, 0.009)), [1.0; 3], 1.0);
            }
        }
        5 => {
            for ray in [(-0.3, 0.1), (-0.22, 0.28), (0.0, 0.36), (0.22, 0.28), (0.3, 0.1)] {
                let end = (side + ray.0, 0.08 + ray.1);
                canvas.fill(&Line((side, 0.08), end, 0.03), [1.0, 0.55, 0.1], 1.0);
            }
            canvas.fill(&Ellipse((side, 0.08), (0.19, 0.19)), [1.0, 0.7, 0.05], 1.0);
        }
        _ => {}
    }
}

/// Draws what falls or floats at this time.
pub(crate) fn weather(canvas: &mut Canvas, time: usize, rng: &mut Rng) {
    let leaves = [[0.85, 0.3, 0.05], [0.75, 0.12, 0.05], [0.95, 0.6, 0.1]];
    let count = match time {
        2 => 45,
        4 | 7 => 40,
        6 => 30,
        _ => 0,
    };
    for nth in 0..count {
        let at = (rng.unit() as f32, rng.unit() as f32);
        match time {
            2 => {
                let to = (at.0 - 0.03, at.1 + 0.09);
                canvas.fill(&Line(at, to, 0.008), [0.7, 0.8, 0.95], 0.7);
            }
            4 => {
                let petal = (at.0, at.1 * 0.3);
                canvas.fill(&Ellipse(petal, (0.022, 0.018)), [1.0, 0.7, 0.85], 0.95);
            }
            6 => canvas.fill(&Ellipse(at, (0.024, 0.014)), leaves[nth % 3], 0.9),
            _ => canvas.fill(&Ellipse(at, (0.014, 0.014)), [1.0; 3], 0.95),
        }
    }
}

/// Draws what stands behind the person, by the number of the mood.
pub(crate) fn behind(canvas: &mut Canvas, mood: usize, rng: &mut Rng) {
    match mood {
        3 => {
            let at = (if rng.below(2) == 0 { 0.15 } else { 0.85 }, 0.25 + 0.2 * rng.unit() as f32);
            canvas.fill(&Ellipse(at, (0.11, 0.11)), [0.85, 0.4, 0.2], 1.0);
            let (a, b) = ((at.0 - 0.17, at.1 + 0.05), (at.0 + 0.17, at.1 - 0.05));
            canvas.fill(&Line(a, b, 0.025), [0.95, 0.85, 0.6], 1.0);
        }
        5 => {
            let paper = [[1.0, 0.1, 0.5], [0.1, 0.9, 0.9], [1.0, 0.95, 0.1], [0.5, 0.2, 1.0]];
            for nth in 0..36 {
                let at = (rng.unit() as f32, rng.unit() as f32);
                let to = (at.0 + 0.035, at.1 + 0.035);
                canvas.fill(&Rect(at, to), paper[nth % 4], 1.0);
            }
        }
        7 => {
            let top = 0.5 + 0.08 * rng.unit() as f32;
            canvas.fill(&Rect((0.0, top), (1.0, top + 0.26)), [0.1, 0.35, 0.3], 1.0);
            canvas.fill(&Rect((0.0, top + 0.17), (1.0, top + 0.2)), [0.95, 0.8, 0.1], 1.0);
            for window in 0..6 {
                let x = 0.03 + 0.165 * window as f32;
                let glass = Rect((x, top + 0.04), (x + 0.11, top + 0.14));
                canvas.fill(&glass, [1.0, 0.95, 0.7], 1.0);
                canvas.fill(&Ellipse((x + 0.05, top + 0.27), (0.04, 0.04)), [0.05; 3], 1.0);
            }
        }
        _ => {}
    }
}

/// Draws what is in front of the person or about the picture as a whole. `head` is where the
/// person's head is: its left, top, right and bottom.
pub(crate) fn before(canvas: &mut Canvas, mood: usize, head: [f32; 4], rng: &mut Rng) {
    let white = [0.98, 0.97, 0.94];
    let ink = [0.08, 0.08, 0.08];
    // On the side of the head where there is more room.
    let right = head[0] + head[2] < 1.0;
    match mood {
        0 => {
            // Paper without paint at the edges, and the bubbles of a thought.
            for nth in 0..48 {
                let along = nth as f32 / 12.0;
                let (edge, at) = (nth / 12, along - (nth / 12) as f32);
                let size = 0.05 + 0.05 * rng.unit() as f32;
                let place = [(at, 0.0), (1.0, at), (1.0 - at, 1.0), (0.0, 1.0 - at)][edge];
                canvas.fill(&Ellipse(place, (size, size)), white, 0.95);
            }
            let x = if right { head[2] } else { head[0] };
            let away = if right { 1.0 } else { -1.0 };
            for (distance, height, size) in [(0.03, 0.02, 0.02), (0.09, -0.04, 0.035)] {
                let at = (x + away * distance, head[1] + height);
                canvas.fill(&Ellipse(at, (size, size)), white, 1.0);
            }
            canvas.fill(&Ellipse((x + away * 0.2, head[1] - 0.09), (0.13, 0.08)), white, 1.0);
        }
        1 => {
            let x = if right { 0.84 } else { 0.16 };
            canvas.fill(&Ellipse((x, 0.2), (0.13, 0.13)), [1.0, 0.9, 0.1], 1.0);
            canvas.fill(&Ellipse((x - 0.045, 0.16), (0.018, 0.025)), ink, 1.0);
            canvas.fill(&Ellipse((x + 0.045, 0.16), (0.018, 0.025)), ink, 1.0);
            let mouth =
                vec![(x - 0.08, 0.21), (x + 0.08, 0.21), (x + 0.04, 0.28), (x - 0.04, 0.28)];
            canvas.fill(&Polygon(mouth), [0.7, 0.1, 0.1], 1.0);
        }
        2 => {
            canvas.fill(&Rect((0.0, 0.0), (1.0, 0.1)), ink, 1.0);
            canvas.fill(&Rect((0.0, 0.84), (1.0, 1.0)), ink, 1.0);
            for letter in 0..7 {
                let x = 0.14 + 0.105 * letter as f32;
                let block = Rect((x, 0.875), (x + 0.07, 0.955));
                canvas.fill(&block, [0.95, 0.1, 0.1], 1.0);
            }
        }
        3 => {
            let at = (f32::midpoint(head[0], head[2]), f32::midpoint(head[1], head[3]));
            let radius = 0.58 * (head[3] - head[1]).max(head[2] - head[0]);
            canvas.fill(&Ring(at, radius, 0.045), [0.9, 0.9, 0.95], 1.0);
            let pack = (at.0 - 0.1, head[3] + 0.16);
            canvas.fill(&Rect(pack, (pack.0 + 0.2, pack.1 + 0.09)), [0.3, 0.3, 0.35], 1.0);
            canvas.fill(&Ellipse((at.0, pack.1 + 0.045), (0.02, 0.02)), [1.0, 0.1, 0.1], 1.0);
        }
        4 => {
            let step = 1.0 / 14.0;
            for line in 0..=14 {
                let at = step * line as f32;
                canvas.fill(&Line((at, 0.0), (at, 1.0), 0.01), [0.9, 0.85, 0.6], 0.35);
                canvas.fill(&Line((0.0, at), (1.0, at), 0.01), [0.9, 0.85, 0.6], 0.35);
            }
        }
        5 => {
            for x in [0.1 + 0.1 * rng.unit() as f32, 0.75 + 0.1 * rng.unit() as f32] {
                canvas.fill(&Ellipse((x, 0.34), (0.035, 0.025)), ink, 1.0);
                canvas.fill(&Line((x + 0.03, 0.34), (x + 0.03, 0.18), 0.015), ink, 1.0);
                canvas.fill(&Line((x + 0.03, 0.18), (x + 0.09, 0.22), 0.025), ink, 1.0);
            }
        }
        6 => {
            for (from, to) in [
                ((0.0, 0.0), (1.0, 0.06)),
                ((0.0, 0.94), (1.0, 1.0)),
                ((0.0, 0.0), (0.06, 1.0)),
                ((0.94, 0.0), (1.0, 1.0)),
            ] {
                canvas.fill(&Rect(from, to), white, 1.0);
            }
            let x = if right { 0.72 } else { 0.08 };
            canvas.fill(&Rect((x, 0.08), (x + 0.2, 0.3)), white, 1.0);
            canvas.fill(&Rect((x + 0.02, 0.1), (x + 0.18, 0.28)), [0.1, 0.4, 0.8], 1.0);
            canvas.fill(&Ring((x + 0.1, 0.19), 0.06, 0.02), white, 1.0);
        }
        7 => {
            let x = if right { 0.85 } else { 0.15 };
            canvas.fill(&Ellipse((x, 0.18), (0.11, 0.11)), ink, 1.0);
            canvas.fill(&Ellipse((x, 0.18), (0.09, 0.09)), white, 1.0);
            canvas.fill(&Line((x, 0.18), (x, 0.11), 0.018), ink, 1.0);
            canvas.fill(&Line((x, 0.18), (x + 0.05, 0.2), 0.018), ink, 1.0);
        }
        _ => {}
    }
}

/// Draws the space suit of the mood that has one, over the person's clothes.
pub(crate) fn suit(canvas: &mut Canvas, mood: usize, frame: &Frame, neck: f32) {
    if mood == 3 {
        let (left, width) = (frame.corner.0, frame.size.0);
        let middle = left + 0.48 * width;
        let suit = vec![
            (middle - 0.2 * width, neck),
            (middle + 0.2 * width, neck),
            (middle + 0.7 * width, neck + 0.1),
            (middle + 0.75 * width, 1.01),
            (middle - 0.75 * width, 1.01),
            (middle - 0.7 * width, neck + 0.1),
        ];
        canvas.fill(&Polygon(suit), [0.92, 0.92, 0.95], 1.0);
    }
}
