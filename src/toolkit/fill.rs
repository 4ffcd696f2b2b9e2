//! Conversion of a run's scores to the toolkit's files.

use std::collections::BTreeMap;

use super::table::{AttributeColumn, Columns, Table};
use super::{FILES, File};

/// Scores by the code of our metric; every list is in the order of the samples.
pub type Scores = BTreeMap<String, Vec<Option<f64>>>;

/// Target and prediction of each attribute; every list is in the order of the samples.
pub type Predictions = BTreeMap<String, Vec<Option<(bool, bool)>>>;

/// Returns the kinds of file for which there is at least one score.
#[must_use]
pub fn files(scores: &Scores, predictions: &Predictions) -> Vec<&'static File> {
    let some = |(_, code): &(&str, &str)| {
        scores.get(*code).is_some_and(|values| values.iter().any(Option::is_some))
    };
    let fills = |file: &&File| {
        if file.is_attributes() {
            return predictions.values().flatten().any(Option::is_some);
        }
        file.scores.iter().any(some)
    };
    FILES.iter().filter(fills).collect()
}

/// Creates one file. A column without scores is present and empty. The file of attributes contains
/// only the samples for which all attributes are predicted.
#[must_use]
pub fn fill(
    file: &'static File,
    names: Vec<String>,
    mut scores: Scores,
    predictions: Predictions,
) -> Table {
    if !file.is_attributes() {
        let mut column = |code: &'static str| {
            (code, scores.remove(code).unwrap_or_else(|| vec![None; names.len()]))
        };
        let columns = file.scores.iter().map(|(_, code)| column(code)).collect();
        return Table { file, names, columns: Columns::Scores(columns) };
    }
    let known: Vec<_> =
        predictions.into_iter().filter(|(_, all)| all.iter().any(Option::is_some)).collect();
    let rows: Vec<usize> =
        (0..names.len()).filter(|&row| known.iter().all(|(_, all)| all[row].is_some())).collect();
    let columns = known.into_iter().map(|(attribute, all)| {
        let (targets, predictions) = rows.iter().filter_map(|&row| all[row]).unzip();
        AttributeColumn { attribute, targets, predictions }
    });
    let columns = Columns::Attributes(columns.collect());
    Table { file, names: rows.iter().map(|&row| names[row].clone()).collect(), columns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolkit::parse;

    fn names() -> Vec<String> {
        ["a", "b"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_file_exists_once_it_has_a_score() {
        let scores = Scores::from([
            ("clip_t".to_owned(), vec![Some(0.1), None]),
            ("ips".to_owned(), vec![None, None]),
            ("hpsv2".to_owned(), vec![Some(0.2), Some(0.3)]),
        ]);
        let found = files(&scores, &Predictions::new());
        assert_eq!(
            found.iter().map(|file| file.name).collect::<Vec<_>>(),
            ["clip", "human_preference_score"]
        );
        let text = fill(found[1], names(), scores, Predictions::new()).write();
        assert_eq!(
            text,
            ",name,human_preference_score_v1,human_preference_score_v2\n0,a,,0.2\n1,b,,0.3\n"
        );
        assert!(parse(&text, Some("human_preference_score.csv"), 1000).is_ok());
    }

    #[test]
    fn samples_without_predictions_are_omitted_from_the_file_of_attributes() {
        let predictions = Predictions::from([
            ("Young".to_owned(), vec![Some((true, false)), None]),
            ("Male".to_owned(), vec![Some((false, false)), Some((true, true))]),
            ("Double_Chin".to_owned(), vec![None, None]),
        ]);
        let found = files(&Scores::new(), &predictions);
        assert_eq!(found.len(), 1);
        let text = fill(found[0], names(), Scores::new(), predictions).write();
        assert_eq!(text, ",name,Male_target,Male_pred,Young_target,Young_pred\n0,a,-1,-1,1,-1\n");
    }
}
