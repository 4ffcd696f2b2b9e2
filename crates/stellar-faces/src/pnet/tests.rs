use super::rows::Rows;
use super::weights::{LOGIT, OPERATORS};
use super::*;
use crate::fake_graph::FakeGraph;
use crate::registers::is_supported;
use stellar_vision::{Rect, resize_area};

/// Noise over slow waves, so that there are smooth and rough parts.
fn test_image(width: u32, height: u32) -> Image {
    let value = |x: u32, y: u32, channel: u32| {
        let mixed = (3 * (y * width + x) + channel + 1).wrapping_mul(0x9E37_79B9);
        let noise = f32::from((mixed ^ mixed >> 15).to_le_bytes()[1]) / 255.0 - 0.5;
        let (x, y) = (x as f32 / 23.0 + channel as f32, y as f32 / 31.0);
        let wave = 0.5 * (x.sin() * y.cos() + (x * 0.37 + y * 0.61).sin());
        (127.5 + 100.0 * wave + 180.0 * noise * (0.5 + wave / 2.0)).clamp(0.0, 255.0) as u8
    };
    let pixels =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| value(x, y, c))));
    Image::new(width, height, pixels.collect())
}

/// Random weights of similar size to trained ones.
fn weights(seed: u32) -> Weights {
    let mut state = seed;
    let mut values = |count: usize, size: f32| -> Vec<f32> {
        let mut one = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| size * one()).collect()
    };
    let mut weights = Weights {
        first: values(270, 0.008),
        first_bias: values(10, 0.5),
        first_slope: values(10, 0.8),
        second: values(1440, 0.3),
        second_bias: values(16, 1.0),
        second_slope: values(16, 0.4),
        third: values(4608, 0.15),
        third_bias: values(32, 1.0),
        linear: values(160, 0.1),
        positive: values(160, 0.7),
        head_bias: values(5, 0.1),
    };
    // At most as many positive coefficients as the bound can hold, and of similar size to the
    // others.
    for (channel, share) in weights.positive[LOGIT * 32..].iter_mut().enumerate() {
        *share = if channel % 2 == 0 { share.abs() } else { -share.abs() };
    }
    weights
}

/// Reference implementation of the network in double precision: probability and corrections of
/// every position.
fn plainly(weights: &Weights, image: &Image, width: usize, height: usize) -> Vec<Spot> {
    let levels = resize_area(image, Rect::of(image), width as u32, height as u32);
    let mut maps: Vec<Vec<f64>> = (0..3)
        .map(|channel| {
            levels.iter().skip(channel).step_by(3).map(|&level| f64::from(level) - 127.5).collect()
        })
        .collect();
    let convolve = |maps: &[Vec<f64>],
                    width: usize,
                    height: usize,
                    kernels: &[f32],
                    bias: &[f32]|
     -> Vec<Vec<f64>> {
        let into = maps.len();
        let place = |output: usize, x: usize, y: usize| {
            let taps = kernels[9 * into * output..][..9 * into].iter().enumerate();
            let value = |at: usize| maps[at / 9][(y + at / 3 % 3) * width + x + at % 3];
            f64::from(bias[output]) + taps.map(|(at, tap)| f64::from(*tap) * value(at)).sum::<f64>()
        };
        let map = |output: usize| {
            let pixels = (0..height - 2).flat_map(|y| (0..width - 2).map(move |x| (x, y)));
            pixels.map(|(x, y)| place(output, x, y)).collect()
        };
        (0..bias.len()).map(map).collect()
    };
    let prelu = |maps: &mut [Vec<f64>], slopes: &[f32]| {
        for (map, &slope) in maps.iter_mut().zip(slopes) {
            map.iter_mut()
                .filter(|value| **value < 0.0)
                .for_each(|value| *value *= f64::from(slope));
        }
    };
    maps = convolve(&maps, width, height, &weights.first, &weights.first_bias);
    prelu(&mut maps, &weights.first_slope);
    let (width, height) = (width - 2, height - 2);
    let (pooled_width, pooled_height) = (width.div_ceil(2), height.div_ceil(2));
    let pool = |map: &Vec<f64>| -> Vec<f64> {
        let window = |x: usize, y: usize| {
            let rows = 2 * y..height.min(2 * y + 2);
            let pixels = rows.flat_map(|y| (2 * x..width.min(2 * x + 2)).map(move |x| (x, y)));
            pixels.map(|(x, y)| map[y * width + x]).fold(f64::NEG_INFINITY, f64::max)
        };
        let pixels = (0..pooled_height).flat_map(|y| (0..pooled_width).map(move |x| (x, y)));
        pixels.map(|(x, y)| window(x, y)).collect()
    };
    maps = maps.iter().map(pool).collect();
    let (width, height) = (pooled_width, pooled_height);
    maps = convolve(&maps, width, height, &weights.second, &weights.second_bias);
    prelu(&mut maps, &weights.second_slope);
    let (width, height) = (width - 2, height - 2);
    maps = convolve(&maps, width, height, &weights.third, &weights.third_bias);
    let width = width - 2;
    let spot = |at: usize| {
        let head = |head: usize| {
            let term = |(channel, map): (usize, &Vec<f64>)| {
                let (linear, positive) =
                    (weights.linear[32 * head + channel], weights.positive[32 * head + channel]);
                f64::from(linear) * map[at] + f64::from(positive) * map[at].max(0.0)
            };
            f64::from(weights.head_bias[head]) + maps.iter().enumerate().map(term).sum::<f64>()
        };
        let probability = (1.0 / (1.0 + (-head(LOGIT)).exp())) as f32;
        let correction = std::array::from_fn(|side| head(side) as f32);
        Spot { x: (at % width) as u32, y: (at / width) as u32, probability, correction }
    };
    (0..maps[0].len()).map(spot).collect()
}

/// The net for each width of registers that the CPU has.
fn nets(weights: &Weights) -> Vec<ProposalNet> {
    let narrow = net(weights).map(|mut net| {
        net.kernel.avx512 = false;
        net
    });
    let wide = net(weights).filter(|net| net.kernel.avx512);
    narrow.into_iter().chain(wide).collect()
}

fn net(weights: &Weights) -> Option<ProposalNet> {
    // A CPU without the instruction sets has nothing to test.
    is_supported().then(|| ProposalNet { kernel: kernel::Kernel::new(weights).unwrap() })
}

fn one(net: &ProposalNet, image: &Image, size: (u32, u32), threshold: f32) -> Vec<Spot> {
    net.propose(image, &[size], threshold).remove(0)
}

#[test]
fn levels_computed_together_equal_those_computed_alone() {
    let weights = weights(1);
    let Some(net) = net(&weights) else { return };
    let image = test_image(2900, 700);
    let sizes = [(1741, 421), (1234, 299), (438, 106), (400, 97), (311, 75), (54, 13), (50, 12)];
    let together = net.propose(&image, &sizes, 0.5);
    for (spots, size) in together.iter().zip(sizes) {
        assert_eq!(*spots, one(&net, &image, size, 0.5), "{size:?}");
        // The reference implementation is used for the last two only: it takes minutes for the
        // others.
        if size.0 < 100 {
            let levels = plainly(&weights, &image, size.0 as usize, size.1 as usize);
            let expected: Vec<Spot> =
                levels.into_iter().filter(|spot| spot.probability >= 0.5).collect();
            let near = |(a, b): (&Spot, &Spot)| {
                (a.x, a.y) == (b.x, b.y) && (a.probability - b.probability).abs() < 1e-4
            };
            assert!(
                spots.len() == expected.len() && spots.iter().zip(&expected).all(near),
                "{size:?}"
            );
        }
    }
}

#[test]
fn every_position_of_any_size_matches_the_reference() {
    let weights = weights(3);
    // One position, odd and even sides, a half window at the end, and several strips.
    for (width, height) in
        [(12, 12), (13, 12), (12, 13), (29, 30), (30, 29), (64, 47), (397, 21), (813, 33)]
    {
        let image = test_image(2 * width - 3, 3 * height + 1);
        let expected = plainly(&weights, &image, width as usize, height as usize);
        for net in nets(&weights) {
            let got = one(&net, &image, (width, height), 0.0);
            assert_eq!(got.len(), expected.len(), "{width}×{height}");
            for (got, expected) in got.iter().zip(&expected) {
                assert_eq!((got.x, got.y), (expected.x, expected.y));
                let close = |a: f32, b: f32| (a - b).abs() < 2e-5 * b.abs().max(1.0);
                assert!(
                    close(got.probability, expected.probability),
                    "{width}×{height}: {got:?}, not {expected:?}"
                );
                let mut corrections = got.correction.iter().zip(expected.correction);
                assert!(
                    corrections.all(|(a, b)| close(*a, b)),
                    "{width}×{height}: {got:?}, not {expected:?}"
                );
            }
        }
    }
}

#[test]
fn the_bound_drops_no_position_that_reaches_the_threshold() {
    for seed in 0..8 {
        let weights = weights(seed);
        for net in nets(&weights) {
            let image = test_image(900, 300);
            let all = one(&net, &image, (540, 181), 0.0);
            let mut sorted: Vec<f32> = all.iter().map(|spot| spot.probability).collect();
            sorted.sort_by(f32::total_cmp);
            for rank in [1, 10, 100, 1000, 10_000] {
                let threshold = sorted[sorted.len() - rank];
                let got = one(&net, &image, (540, 181), threshold);
                let expected: Vec<Spot> =
                    all.iter().copied().filter(|spot| spot.probability >= threshold).collect();
                assert!(
                    expected.len() >= rank && expected.len() < all.len(),
                    "seed {seed}, {rank}"
                );
                assert_eq!(got, expected, "seed {seed}, {threshold}");
            }
        }
    }
}

#[test]
fn rows_equal_those_of_an_area_resize() {
    if !is_supported() {
        return;
    }
    let image = test_image(1000, 700);
    // Windows of 2 and 3 pixels, of a few pixels, of exactly 16 × 16, and of more pixels than
    // 16-bit sums can hold.
    for (width, height) in
        [(601, 421), (500, 350), (334, 97), (201, 141), (63, 44), (62, 43), (12, 12), (999, 699)]
    {
        let whole = resize_area(&image, Rect::of(&image), width, height);
        for (left, count) in [(0, width), (5, 7), (width - 3, 3)] {
            let mut rows = Rows::new(&image, width, height, left, count);
            let stride = count.div_ceil(8) as usize;
            let mut planes = vec![[0.0; 8]; 3 * stride];
            for y in [0, 1, height / 2, height - 1] {
                #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
                // SAFETY: the instruction sets have just been checked.
                unsafe {
                    rows.fill(y, &mut planes, stride);
                }
                for x in 0..count {
                    for channel in 0..3 {
                        let got = planes[channel * stride + x as usize / 8][x as usize % 8];
                        let expected = whole[3 * (y * width + left + x) as usize + channel] - 127.5;
                        assert!(
                            (got - expected).abs() < 1e-4,
                            "{width}×{height} at {x}, {y}: {got}, not {expected}"
                        );
                    }
                }
            }
        }
    }
}

/// The exporter's graph of these weights: it has a second maximum for each channel with a negative
/// slope.
fn exported(weights: &Weights) -> FakeGraph {
    let falling: Vec<usize> =
        (0..10).filter(|&channel| weights.first_slope[channel] < 0.0).collect();
    let conv = 10 + falling.len();
    let (mut first, mut bias) = (weights.first.clone(), weights.first_bias.clone());
    let (mut keep, mut rise, mut share) =
        (vec![0.0; 10 * conv], vec![0.0; 10 * conv], vec![0.0; 100]);
    for channel in 0..10 {
        let slope = weights.first_slope[channel];
        rise[channel * conv + channel] = 1.0;
        if let Some(at) = falling.iter().position(|&other| other == channel) {
            first.extend(weights.first[27 * channel..][..27].iter().map(|tap| slope * tap));
            bias.push(slope * weights.first_bias[channel]);
            rise[channel * conv + 10 + at] = -1.0;
            keep[channel * conv + 10 + at] = 1.0;
            share[11 * channel] = 1.0;
        } else {
            keep[channel * conv + channel] = slope;
            share[11 * channel] = 1.0 - slope;
        }
    }
    let rest = weights.second_slope.iter().map(|slope| 1.0 - slope).collect();
    FakeGraph {
        operators: OPERATORS.to_vec(),
        constants: vec![
            ("first.conv.weight".into(), vec![conv, 3, 3, 3], first),
            ("first.conv.bias".into(), vec![conv], bias),
            ("first.keep".into(), vec![10, conv, 1, 1], keep),
            ("first.rise".into(), vec![10, conv, 1, 1], rise),
            ("first.share".into(), vec![10, 10, 1, 1], share),
            ("second.conv.weight".into(), vec![16, 10, 3, 3], weights.second.clone()),
            ("second.conv.bias".into(), vec![16], weights.second_bias.clone()),
            ("second.slopes.slope".into(), vec![16, 1, 1], weights.second_slope.clone()),
            ("second.slopes.rest".into(), vec![16, 1, 1], rest),
            ("third.weight".into(), vec![32, 16, 3, 3], weights.third.clone()),
            ("third.bias".into(), vec![32], weights.third_bias.clone()),
            ("linear.weight".into(), vec![5, 32, 1, 1], weights.linear.clone()),
            ("linear.bias".into(), vec![5], weights.head_bias.clone()),
            ("positive.weight".into(), vec![5, 32, 1, 1], weights.positive.clone()),
        ],
    }
}

#[test]
fn weights_are_read_from_the_exporters_graph() {
    let weights = weights(5);
    let slopes = &weights.first_slope;
    assert!(slopes.iter().any(|slope| *slope < 0.0) && slopes.iter().any(|slope| *slope > 0.0));
    let read = Weights::read(&exported(&weights)).unwrap();
    assert_eq!(
        (&read.first, &read.third, &read.positive),
        (&weights.first, &weights.third, &weights.positive)
    );
    assert!(read.first_slope.iter().zip(slopes).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn a_different_graph_is_rejected_by_the_name_of_the_difference() {
    let weights = weights(5);
    let refusal = |change: &dyn Fn(&mut FakeGraph)| {
        let mut graph = exported(&weights);
        change(&mut graph);
        Weights::read(&graph).unwrap_err().to_string()
    };
    let constant = |name: &'static str, change: fn(&mut Vec<usize>, &mut Vec<f32>)| {
        refusal(&|graph| {
            let (shape, data) = graph.constant(name);
            change(shape, data);
        })
    };
    let mismatch = "does not match the exporter's graph";
    assert_eq!(
        refusal(&|graph| graph.operators.swap(2, 3)),
        format!("the list of operators {mismatch}")
    );
    assert_eq!(
        refusal(&|graph| drop(graph.constants.remove(9))),
        format!("third.weight {mismatch}")
    );
    assert_eq!(
        constant("third.bias", |_, data| data[3] = f32::NAN),
        format!("third.bias {mismatch}")
    );
    assert_eq!(
        constant("linear.weight", |shape, _| shape[0] = 6),
        format!("linear.weight {mismatch}")
    );
    assert_eq!(
        constant("second.slopes.rest", |_, data| data[0] += 0.1),
        format!("second.slopes {mismatch}")
    );
    for name in ["first.keep", "first.rise", "first.share"] {
        assert_eq!(
            constant(name, |_, data| data[1] += 0.5),
            format!("first.keep {mismatch}"),
            "{name}"
        );
    }
    let bent = constant("first.conv.weight", |_, data| *data.last_mut().unwrap() += 0.1);
    assert_eq!(bent, format!("first.keep {mismatch}"));
    let mut positive = weights.clone();
    positive.positive.fill(0.5);
    assert!(kernel::Kernel::new(&positive).is_none(), "a bound must not drop positive channels");
}

#[test]
fn registers_of_either_width_give_the_same_values() {
    if !crate::registers::has_avx512() {
        return;
    }
    for seed in 0..4 {
        let weights = weights(seed);
        let wide = net(&weights).unwrap();
        let mut narrow = net(&weights).unwrap();
        narrow.kernel.avx512 = false;
        for size in [(12, 13), (64, 47), (397, 21), (540, 181)] {
            let image = test_image(2 * size.0 - 3, 3 * size.1 + 1);
            let all = one(&narrow, &image, size, 0.0);
            // What is read beyond the last column differs, and with it the rounding of the last
            // tile.
            let close = |a: f32, b: f32| (a - b).abs() < 2e-6 * b.abs().max(1.0);
            let same = |ours: &[Spot], theirs: &[Spot]| {
                assert_eq!(ours.len(), theirs.len(), "{size:?}");
                for (a, b) in ours.iter().zip(theirs) {
                    let mut corrections = a.correction.iter().zip(b.correction);
                    assert!(
                        (a.x, a.y) == (b.x, b.y)
                            && close(a.probability, b.probability)
                            && corrections.all(|(a, b)| close(*a, b)),
                        "{size:?}: {a:?}, not {b:?}"
                    );
                }
            };
            same(&one(&wide, &image, size, 0.0), &all);
            // One bounds the logit, and the other computes it.
            let mut sorted: Vec<f32> = all.iter().map(|spot| spot.probability).collect();
            sorted.sort_by(f32::total_cmp);
            let at = sorted.len() * 9 / 10;
            let gap = sorted[at..].windows(2).find(|pair| pair[1] - pair[0] > 1e-5);
            let Some(&[below, above]) = gap else { continue };
            let threshold = f32::midpoint(below, above);
            let probable = one(&narrow, &image, size, threshold);
            assert!(!probable.is_empty());
            same(&one(&wide, &image, size, threshold), &probable);
        }
    }
}
