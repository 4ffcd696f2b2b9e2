//! Non-maximum suppression: of overlapping boxes, only the most probable one is retained.

use std::collections::HashMap;

/// Corners of a box: left, top, right, bottom, in pixels.
pub type Corners = [f32; 4];

/// Number of boxes from which a grid is faster than comparing all pairs.
const GRID_FROM: usize = 64;

/// Returns the indices of the retained boxes, most probable first: torchvision's `nms`.
///
/// A box is removed if its intersection with a retained box is more than `threshold` of their
/// union. Among equal scores, the earlier box comes first. Areas have no pixel added. `threshold`
/// must be at least 0.5, so that the search can skip boxes of other sizes: an image full of texture
/// then does not take time quadratic in the number of boxes.
pub(super) fn by_union(boxes: &[Corners], scores: &[f32], threshold: f64) -> Vec<usize> {
    debug_assert!(threshold >= 0.5, "the grid only compares boxes of similar size");
    let mut order: Vec<usize> = (0..boxes.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let goes = |a: usize, b: usize| f64::from(over_union(boxes[a], boxes[b])) > threshold;
    let mut stay: Vec<usize> = Vec::new();
    if boxes.len() < GRID_FROM {
        for index in order {
            if !stay.iter().any(|&other| goes(other, index)) {
                stay.push(index);
            }
        }
        return stay;
    }
    let mut grid = Grid::default();
    for index in order {
        if !grid.any_near(boxes[index], |other| goes(other, index)) {
            grid.add(boxes[index], index);
            stay.push(index);
        }
    }
    stay
}

/// Returns the indices of the retained boxes, most probable first: facenet-pytorch's `nms_numpy`
/// with method "Min".
///
/// A box is removed if its intersection with a retained box is more than `threshold` of the smaller
/// box. All sides are one pixel longer than the difference of the corners. Among equal scores, the
/// later box comes first.
pub(super) fn by_smaller(boxes: &[Corners], scores: &[f32], threshold: f32) -> Vec<usize> {
    let area = |b: Corners| (b[2] - b[0] + 1.0) * (b[3] - b[1] + 1.0);
    let mut left: Vec<usize> = (0..boxes.len()).collect();
    left.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut stay = Vec::new();
    while let Some(best) = left.pop() {
        stay.push(best);
        let a = boxes[best];
        left.retain(|&other| {
            let b = boxes[other];
            let width = (a[2].min(b[2]) - a[0].max(b[0]) + 1.0).max(0.0);
            let height = (a[3].min(b[3]) - a[1].max(b[1]) + 1.0).max(0.0);
            width * height / area(a).min(area(b)) <= threshold
        });
    }
    stay
}

/// Intersection over union, in torchvision's order of operations.
fn over_union(a: Corners, b: Corners) -> f32 {
    let area = |b: Corners| (b[2] - b[0]) * (b[3] - b[1]);
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let both = width * height;
    both / (area(a) + area(b) - both)
}

/// Boxes by size and position. If the intersection of two boxes is more than half of their union,
/// their sides differ by less than a factor of two, so they are in the same or in neighbouring size
/// classes.
#[derive(Default)]
struct Grid(HashMap<(i32, i64, i64), Vec<usize>>);

impl Grid {
    /// Returns the exponent of the power of two below the longer side. Boxes with negligible sides
    /// are in the smallest class.
    fn class(b: Corners) -> i32 {
        let side = (b[2] - b[0]).abs().max((b[3] - b[1]).abs());
        (side.log2().floor() as i32).max(-24)
    }

    /// Returns the cell of the top left corner. A cell is at least as wide as any box of its class.
    fn cell(class: i32, b: Corners) -> (i64, i64) {
        let side = f64::from(class + 1).exp2();
        ((f64::from(b[0]) / side).floor() as i64, (f64::from(b[1]) / side).floor() as i64)
    }

    fn add(&mut self, b: Corners, index: usize) {
        let class = Self::class(b);
        let (x, y) = Self::cell(class, b);
        self.0.entry((class, x, y)).or_default().push(index);
    }

    /// Returns whether `test` holds for any box that may overlap `b` by half.
    fn any_near(&self, b: Corners, test: impl Fn(usize) -> bool) -> bool {
        let own = Self::class(b);
        (own - 1..=own + 1).any(|class| {
            // The distance between the corners is less than the longer of the two sides.
            let reach = if class < own { 2 } else { 1 };
            let (x, y) = Self::cell(class, b);
            (x.saturating_sub(reach)..=x.saturating_add(reach)).any(|x| {
                (y.saturating_sub(reach)..=y.saturating_add(reach)).any(|y| {
                    self.0
                        .get(&(class, x, y))
                        .is_some_and(|boxes| boxes.iter().any(|&other| test(other)))
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stellar_stats::Rng;

    fn boxes(rng: &mut Rng, count: usize) -> (Vec<Corners>, Vec<f32>) {
        let mut unit = || rng.unit() as f32;
        let one = |unit: &mut dyn FnMut() -> f32| {
            let (x, y, side) = (unit() * 300.0, unit() * 200.0, 10.0 * (unit() * 3.0).exp2());
            [x, y, x + side * (0.8 + 0.4 * unit()), y + side]
        };
        let made = (0..count).map(|_| one(&mut unit)).collect();
        // Few different scores, so that there are ties.
        (made, (0..count).map(|_| (unit() * 20.0).floor() / 20.0).collect())
    }

    fn plain(boxes: &[Corners], scores: &[f32], threshold: f64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..boxes.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut stay: Vec<usize> = Vec::new();
        for index in order {
            if stay.iter().all(|&o| f64::from(over_union(boxes[o], boxes[index])) <= threshold) {
                stay.push(index);
            }
        }
        stay
    }

    #[test]
    fn the_grid_agrees_with_comparing_all_pairs() {
        let mut rng = Rng::new(7);
        for count in [GRID_FROM, 300, 2000] {
            for threshold in [0.5, 0.7] {
                let (boxes, scores) = boxes(&mut rng, count);
                let stay = by_union(&boxes, &scores, threshold);
                assert!(stay.len() < count, "some boxes must be removed");
                assert_eq!(stay, plain(&boxes, &scores, threshold));
            }
        }
    }

    #[test]
    fn a_box_whose_overlap_equals_the_threshold_is_retained() {
        // Intersection 2, union 4.
        let boxes = [[0.0, 0.0, 3.0, 1.0], [1.0, 0.0, 4.0, 1.0]];
        assert_eq!(by_union(&boxes, &[0.9, 0.8], 0.5), [0, 1]);
        assert_eq!(by_union(&[boxes[0], [0.9, 0.0, 3.9, 1.0]], &[0.8, 0.9], 0.5), [1]);
    }

    #[test]
    fn a_box_within_another_is_suppressed_by_the_smaller_area_only() {
        let boxes = [[0.0, 0.0, 99.0, 99.0], [10.0, 10.0, 29.0, 29.0], [200.0, 0.0, 210.0, 10.0]];
        let scores = [0.8, 0.9, 0.7];
        assert_eq!(by_union(&boxes, &scores, 0.7), [1, 0, 2]);
        assert_eq!(by_smaller(&boxes, &scores, 0.7), [1, 2]);
    }

    #[test]
    fn among_equal_scores_by_union_retains_the_first_and_by_smaller_the_last() {
        let boxes = [[0.0, 0.0, 10.0, 10.0], [0.5, 0.0, 10.5, 10.0]];
        assert_eq!(by_union(&boxes, &[0.9, 0.9], 0.5), [0]);
        assert_eq!(by_smaller(&boxes, &[0.9, 0.9], 0.5), [1]);
    }

    #[test]
    fn an_empty_list_and_boxes_without_area_are_handled() {
        assert!(by_union(&[], &[], 0.5).is_empty());
        assert!(by_smaller(&[], &[], 0.5).is_empty());
        let points = vec![[5.0, 5.0, 5.0, 5.0]; GRID_FROM];
        assert_eq!(by_union(&points, &[0.9; GRID_FROM], 0.5).len(), GRID_FROM);
    }
}
