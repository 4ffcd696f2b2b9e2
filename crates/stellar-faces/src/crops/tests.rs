use super::plan::Stage;
use super::*;
use crate::fake_graph::FakeGraph;
use stellar_stats::Rng;

/// Random weights of a plan in the exporter's format.
fn graph(plan: &Plan, seed: u64) -> FakeGraph {
    let mut rng = Rng::new(seed);
    let mut constants = Vec::new();
    let mut random = |name: String, shape: Vec<usize>, size: f64| {
        let count = shape.iter().product();
        let data: Vec<f32> = (0..count).map(|_| (size * (2.0 * rng.unit() - 1.0)) as f32).collect();
        constants.push((name, shape, data.clone()));
        data
    };
    let mut slopes = Vec::new();
    let (mut side, mut inputs) = (plan.side, 3);
    for (at, stage) in plan.stages.iter().enumerate() {
        let Stage { kernel, outputs, .. } = *stage;
        let size = 1.5 / ((inputs * kernel * kernel) as f64).sqrt();
        random(format!("stages.{at}.conv.weight"), vec![outputs, inputs, kernel, kernel], size);
        random(format!("stages.{at}.conv.bias"), vec![outputs], 0.3);
        let name = format!("stages.{at}.slopes");
        slopes.push((
            random(format!("{name}.slope"), vec![outputs, 1, 1], 1.2),
            name,
            vec![outputs, 1, 1],
        ));
        (side, inputs) = (stage.sides(side)[1], outputs);
    }
    random("dense.weight".into(), vec![side * side * inputs, plan.dense], 0.1);
    random("dense.bias".into(), vec![plan.dense], 0.3);
    slopes.push((
        random("slopes.slope".into(), vec![plan.dense], 1.2),
        "slopes".into(),
        vec![plan.dense],
    ));
    for (at, &count) in plan.heads.iter().enumerate() {
        random(format!("heads.{at}.weight"), vec![plan.dense, count], 0.2);
        random(format!("heads.{at}.bias"), vec![count], 0.3);
    }
    for (slope, name, shape) in slopes {
        constants.push((
            format!("{name}.rest"),
            shape,
            slope.iter().map(|slope| 1.0 - slope).collect(),
        ));
    }
    FakeGraph { operators: plan.operators(), constants }
}

fn prelu(value: f64, slope: f32) -> f64 {
    value.max(0.0) + f64::from(slope) * value.min(0.0)
}

/// Reference output of the graph for a crop: operator by operator, channels first and in double
/// precision.
fn plainly(plan: &Plan, graph: &FakeGraph, crop: &Levels) -> Vec<f64> {
    let take = |name: &str| graph.tensor(name).unwrap().1;
    let mut side = plan.side;
    let level = |at: usize| (f64::from(crop.data[at]) - 127.5) / 128.0;
    let mut maps: Vec<Vec<f64>> = (0..3)
        .map(|channel| (0..side * side).map(|place| level(3 * place + channel)).collect())
        .collect();
    for (at, stage) in plan.stages.iter().enumerate() {
        let kernel = stage.kernel;
        let [middle, end] = stage.sides(side);
        let (weight, bias) =
            (take(&format!("stages.{at}.conv.weight")), take(&format!("stages.{at}.conv.bias")));
        let slope = take(&format!("stages.{at}.slopes.slope"));
        let convolve = |output: usize, y: usize, x: usize| {
            let mut sum = f64::from(bias[output]);
            for (input, map) in maps.iter().enumerate() {
                for tap in 0..kernel * kernel {
                    let place = (y + tap / kernel) * side + x + tap % kernel;
                    sum += f64::from(weight[(output * maps.len() + input) * kernel * kernel + tap])
                        * map[place];
                }
            }
            prelu(sum, slope[output])
        };
        let next = |output: usize| {
            let map: Vec<f64> = (0..middle * middle)
                .map(|place| convolve(output, place / middle, place % middle))
                .collect();
            if stage.window == 0 {
                return map;
            }
            let most = |place: usize| {
                let (y, x) = (2 * (place / end), 2 * (place % end));
                let rows = y..(y + stage.window).min(middle);
                let columns = x..(x + stage.window).min(middle);
                let values = rows.flat_map(|y| columns.clone().map(move |x| middle * y + x));
                values.map(|at| map[at]).fold(f64::NEG_INFINITY, f64::max)
            };
            (0..end * end).map(most).collect()
        };
        maps = (0..stage.outputs).map(next).collect();
        side = end;
    }
    // Transposed from channel, row, column to column, row, channel.
    let places = (0..side * side).map(|at| at % side * side + at / side);
    let flat: Vec<f64> = places.flat_map(|place| maps.iter().map(move |map| map[place])).collect();
    let layer = |from: &[f64], weight: &[f32], bias: &[f32]| -> Vec<f64> {
        let sum = |output: usize| {
            let terms = from.iter().zip(weight.iter().skip(output).step_by(bias.len()));
            f64::from(bias[output])
                + terms.map(|(value, weight)| value * f64::from(*weight)).sum::<f64>()
        };
        (0..bias.len()).map(sum).collect()
    };
    let hidden = layer(&flat, take("dense.weight"), take("dense.bias"));
    let hidden: Vec<f64> = hidden
        .into_iter()
        .zip(take("slopes.slope"))
        .map(|(value, slope)| prelu(value, *slope))
        .collect();
    let heads = |at: usize| {
        layer(&hidden, take(&format!("heads.{at}.weight")), take(&format!("heads.{at}.bias")))
    };
    let logits = heads(0);
    let probability = 1.0 / (1.0 + (logits[0] - logits[1]).exp());
    std::iter::once(probability).chain((1..plan.heads.len()).flat_map(heads)).collect()
}

fn crops(side: u32, count: usize) -> Vec<Levels> {
    let mut rng = Rng::new(3);
    let mut crop = || Levels {
        height: side,
        width: side,
        data: (0..3 * side * side).map(|_| (255.0 * rng.unit()) as f32).collect(),
    };
    (0..count).map(|_| crop()).collect()
}

#[test]
fn any_number_of_crops_is_judged_like_the_graph() {
    if !crate::registers::is_supported() {
        return;
    }
    for (plan, counts) in [(&R_NET, &[0, 1, 4, 5, 6, 7, 8, 9, 12, 13][..]), (&O_NET, &[1, 7])] {
        let graph = graph(plan, 11);
        let mut net = CropNet::new(plan, &graph).unwrap();
        let wide = net.kernel.avx512;
        let crops = crops(plan.side as u32, *counts.iter().max().unwrap());
        let expected: Vec<Vec<f64>> =
            crops.iter().map(|crop| plainly(plan, &graph, crop)).collect();
        for &count in counts {
            net.kernel.avx512 = wide;
            let verdicts = net.judge(&crops[..count]);
            assert_eq!(verdicts.len(), count);
            net.kernel.avx512 = false;
            assert_eq!(net.judge(&crops[..count]), verdicts, "the width of registers is no matter");
            for (verdict, expected) in verdicts.iter().zip(&expected) {
                let actual = std::iter::once(verdict.probability)
                    .chain(verdict.correction)
                    .chain(verdict.landmarks);
                for (actual, expected) in actual.zip(expected) {
                    assert!(
                        (f64::from(actual) - expected).abs() < 2e-5,
                        "{actual} is not {expected}"
                    );
                }
            }
        }
        let probabilities: Vec<f64> = expected.iter().map(|outputs| outputs[0]).collect();
        assert!(
            probabilities.iter().any(|p| (p - probabilities[0]).abs() > 0.01),
            "{probabilities:?} are too similar"
        );
    }
}

#[test]
fn a_different_graph_is_rejected_by_the_name_of_the_difference() {
    let graph = graph(&R_NET, 5);
    let refusal = |change: &dyn Fn(&mut FakeGraph)| {
        let mut graph = graph.clone();
        change(&mut graph);
        CropNet::refine(&graph).unwrap_err().to_string()
    };
    let mismatch = "does not match the exporter's graph";
    assert_eq!(
        refusal(&|graph| graph.operators.swap(2, 3)),
        format!("the list of operators {mismatch}")
    );
    assert_eq!(
        refusal(&|graph| graph.constant("dense.bias").1[3] = f32::NAN),
        format!("dense.bias {mismatch}")
    );
    assert_eq!(
        refusal(&|graph| graph.constant("heads.1.weight").0[1] = 5),
        format!("heads.1.weight {mismatch}")
    );
    let bent = refusal(&|graph| graph.constant("stages.1.slopes.rest").1[0] += 0.1);
    assert_eq!(bent, format!("stages.1.slopes {mismatch}"));
    let other = CropNet::decide(&graph).unwrap_err().to_string();
    assert_eq!(other, format!("the list of operators {mismatch}"));
}

#[test]
#[should_panic(expected = "a crop of 24×24 is expected")]
fn a_crop_of_another_size_panics() {
    let net = CropNet::refine(&graph(&R_NET, 1));
    let _ = net.expect("a crop of 24×24 is expected only by CPUs with AVX2").judge(&crops(48, 1));
}
