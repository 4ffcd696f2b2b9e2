//! Compares noise, schedules and steps with PyTorch and diffusers. `scripts/diffusion_fixtures.py`
//! writes the files.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use stellar_diffusion::{Sampler, Schedule, randn};

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/diffusion");
    let text = std::fs::read_to_string(folder.join(name)).expect("the fixture is there");
    serde_json::from_str(&text).expect("the fixture is JSON")
}

#[derive(Deserialize)]
struct Noises {
    cases: Vec<Noise>,
}

#[derive(Deserialize)]
struct Noise {
    seed: u64,
    length: usize,
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct Schedulers {
    schedulers: Vec<Scheduler>,
}

#[derive(Deserialize)]
struct Scheduler {
    schedule: Value,
    plans: Vec<Planned>,
    run: Run,
}

#[derive(Deserialize)]
struct Planned {
    steps: usize,
    timesteps: Vec<f32>,
    sigmas: Vec<f32>,
    initial: f32,
}

#[derive(Deserialize)]
struct Run {
    noise: Vec<f32>,
    inputs: Vec<Vec<f32>>,
    predictions: Vec<Vec<f32>>,
    latents: Vec<f32>,
}

/// Largest difference of two lists of one length, relative to values above 1.
fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let each = ours.iter().zip(theirs).map(|(ours, theirs)| {
        assert!(ours.is_finite());
        (ours - theirs).abs() / theirs.abs().max(1.0)
    });
    each.fold(0.0, f32::max)
}

#[test]
fn noise_equals_pytorchs() {
    let Noises { cases } = read("noise.json");
    assert_eq!(cases.len(), 20);
    for Noise { seed, length, values } in cases {
        let all = randn(seed, length).unwrap();
        let ends = |at: &usize| *at < 32 || *at + 32 >= length || at.is_multiple_of(61);
        let ours: Vec<f32> = (0..length).filter(ends).map(|at| all[at]).collect();
        assert_eq!(ours.len(), values.len());
        let largest = ours.iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest <= 2e-6, "seed {seed}, {length} values: {largest:e}");
    }
}

#[test]
fn timesteps_and_noise_levels_equal_those_of_diffusers() {
    let Schedulers { schedulers } = read("schedule.json");
    assert_eq!(schedulers.len(), 4);
    for Scheduler { schedule, plans, .. } in schedulers {
        let schedule = Schedule::parse(&schedule.to_string()).unwrap();
        for Planned { steps, timesteps, sigmas, initial } in plans {
            let plan = schedule.plan(steps).unwrap();
            let name = format!("{:?} {:?} {steps}", schedule.kind, schedule.spacing);
            assert_eq!(plan.timesteps, timesteps, "{name}");
            assert_eq!(plan.sigmas, sigmas, "{name}");
            // The square root may differ in the last bit.
            assert!(difference(&[plan.initial], &[initial]) < 1e-7, "{name}");
        }
    }
}

#[test]
fn steps_equal_those_of_diffusers() {
    let Schedulers { schedulers } = read("schedule.json");
    for Scheduler { schedule, run, .. } in schedulers {
        let schedule = Schedule::parse(&schedule.to_string()).unwrap();
        let plan = Arc::new(schedule.plan(run.predictions.len()).unwrap());
        let mut sampler = Sampler::new(plan, run.noise);
        let mut largest = 0.0_f32;
        for (input, prediction) in run.inputs.iter().zip(run.predictions) {
            largest = largest.max(difference(&sampler.input(), input));
            sampler.advance(prediction).unwrap();
        }
        assert_eq!(sampler.timestep(), None);
        largest = largest.max(difference(&sampler.into_latents(), &run.latents));
        assert!(largest < 1e-5, "{:?} {:?}: {largest:e}", schedule.kind, schedule.spacing);
    }
}
