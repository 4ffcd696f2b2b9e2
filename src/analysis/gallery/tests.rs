use super::*;
use crate::analysis::compare::tests::simulated;
use crate::store::MetricColumn;

const METRICS: [&str; 4] = ["clip_t", "aesthetic", "dreamsim", "dino"];

/// A run with samples `a`, `b` and `c` of two people, and these scores by metric and sample.
fn run(id: u128, scores: [[f64; 3]; 4]) -> Arc<RunData> {
    let mut data = simulated(1, 3, 1, 2, 0.0);
    data.run = Uuid::from_u128(id);
    data.names = ["a", "b", "c"].map(str::to_owned).to_vec();
    data.identities = ["ada", "ada", "eve"].map(|name| Some(name.to_owned())).to_vec();
    data.categories = [vec!["sport"], vec![], vec!["sport", "art"]]
        .map(|list| list.into_iter().map(str::to_owned).collect())
        .to_vec();
    data.metrics = METRICS
        .iter()
        .zip(scores)
        .map(|(code, values)| {
            let values = values.map(Some).to_vec();
            ((*code).to_owned(), MetricColumn { version: 1, values, ..MetricColumn::default() })
        })
        .collect();
    Arc::new(data)
}

/// In row `a` all metrics prefer the first run; in `b` two of four; in `c` three of four.
fn runs() -> [Arc<RunData>; 2] {
    let first = [[0.9, 0.9, 0.1], [9.0, 9.0, 9.0], [0.1, 0.9, 0.1], [0.9, 0.1, 0.9]];
    [run(1, first), run(2, [[0.5; 3], [5.0; 3], [0.5; 3], [0.5; 3]])]
}

fn options(sort: GallerySort) -> GalleryOptions {
    let filter = GalleryFilter { slice: Slice::all(), identity: None };
    GalleryOptions { filter, metrics: None, sort, offset: 0, limit: 20 }
}

fn names(found: &Gallery) -> Vec<&str> {
    found.rows.iter().map(|row| &*row.name).collect()
}

#[test]
fn rows_are_ordered_by_the_disagreement_of_the_metrics() {
    let found = gallery(&runs(), &[], &options(GallerySort::Disagreement));
    assert_eq!(names(&found), ["b", "c", "a"]);
    let of: Vec<_> = found.rows.iter().map(|row| row.disagreement).collect();
    assert_eq!(of, [Some(1.0), Some(0.5), Some(0.0)]);
    assert_eq!(names(&gallery(&runs(), &[], &options(GallerySort::Name))), ["a", "b", "c"]);
}

#[test]
fn a_metric_marks_the_best_image_of_a_row_in_its_direction() {
    let found = gallery(&runs(), &[], &options(GallerySort::Name));
    assert_eq!(found.metrics, METRICS);
    let firsts =
        |row: usize, run: usize| found.rows[row].images[run].as_ref().unwrap().first.clone();
    assert_eq!(firsts(0, 0), [true; 4]);
    assert_eq!(firsts(1, 0), [true, true, false, false]);
    assert_eq!(firsts(1, 1), [false, false, true, true]);
    let equal = [run(1, [[0.5; 3]; 4]), run(2, [[0.5; 3]; 4])];
    let found = gallery(&equal, &[], &options(GallerySort::Name));
    assert_eq!(found.rows[0].images[0].as_ref().unwrap().first, [false; 4]);
    assert_eq!(found.rows[0].disagreement, None);
}

#[test]
fn people_are_compared_with_the_metrics_on_the_images_they_judged() {
    let pair = |a, b, preference| {
        let (a, b) = (Uuid::from_u128(a), Uuid::from_u128(b));
        JudgedPair { a, b, preference, trial: None }
    };
    let judged = [
        ("a".to_owned(), pair(2, 1, 1)),
        ("c".to_owned(), pair(1, 2, 1)),
        ("b".to_owned(), pair(1, 2, 0)),
        ("b".to_owned(), pair(1, 3, 1)),
    ];
    let found = gallery(&runs(), &judged, &options(GallerySort::People));
    assert_eq!(names(&found), ["a", "c", "b"]);
    let of: Vec<_> = found.rows.iter().map(|row| (row.against_people, row.votes)).collect();
    assert_eq!(of, [(Some(1.0), 1), (Some(0.25), 1), (None, 0)]);
}

#[test]
fn rows_are_filtered_and_cut_to_pages() {
    let mut of = options(GallerySort::Name);
    of.filter.slice = Slice::new(Slice::CATEGORY, "sport");
    assert_eq!(names(&gallery(&runs(), &[], &of)), ["a", "c"]);
    of.filter.identity = Some("eve".to_owned());
    let found = gallery(&runs(), &[], &of);
    assert_eq!((names(&found), found.total), (vec!["c"], 1));
    assert_eq!(found.identities.len(), 2, "choices do not depend on the filter");
    let of = GalleryOptions { offset: 1, limit: 1, ..options(GallerySort::Name) };
    let found = gallery(&runs(), &[], &of);
    assert_eq!((names(&found), found.total), (vec!["b"], 3));
}

#[test]
fn a_row_needs_two_runs_unless_there_is_one() {
    let [one, mut other] = runs();
    Arc::make_mut(&mut other).restrict(&["b".to_owned()].into());
    let found = gallery(&[one.clone(), other], &[], &options(GallerySort::Name));
    assert_eq!(names(&found), ["b"]);
    assert_eq!(gallery(&[one], &[], &options(GallerySort::Name)).total, 3);
    assert_eq!(gallery(&[], &[], &options(GallerySort::Name)).total, 0);
}
