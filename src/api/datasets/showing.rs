//! Whether images of people may be shown to others than the users of the service.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::api::http::ApiError;
use crate::api::state::App;

/// A run whose images are to be shown.
pub(crate) struct ShownRun {
    pub(crate) method: String,
    pub(crate) dataset: Option<String>,
}

/// Returns why images and photos of these runs may not leave the service; `None` if they may.
///
/// Every run must be over a registered dataset, and all datasets of the service must say that their
/// photos may be shown to others (`redistributable`): a sample may have photos of another dataset
/// than its run names. `private` is a dataset that does not say so.
pub(crate) fn reason(
    runs: &[ShownRun],
    is_registered: impl Fn(&str) -> bool,
    private: Option<&str>,
) -> Option<String> {
    if runs.is_empty() {
        return Some("there is no run, so nothing says that photos may be shown".to_owned());
    }
    let of_run = |run: &ShownRun| match &run.dataset {
        None => Some(format!(
            "the run of {} names no dataset, so nothing says that its photos may be shown",
            run.method
        )),
        Some(name) if !is_registered(name) => Some(format!(
            "the dataset {name} is not registered, so nothing says that its photos may be shown"
        )),
        Some(_) => None,
    };
    let of_dataset =
        private.map(|name| format!("the dataset {name} is not declared as redistributable"));
    runs.iter().find_map(of_run).or(of_dataset)
}

/// Like [`reason`], from the store. Runs that were deleted have nothing to show.
pub(crate) async fn withheld(
    app: &App,
    runs: impl IntoIterator<Item = Uuid>,
) -> Result<Option<String>, ApiError> {
    let mut shown = Vec::new();
    for run in runs {
        if let Some(run) = app.store.run(run).await? {
            shown.push(ShownRun { method: run.name.method, dataset: run.facts.dataset });
        }
    }
    let names: BTreeSet<&str> = shown.iter().filter_map(|run| run.dataset.as_deref()).collect();
    let mut registered = BTreeSet::new();
    for name in names {
        if app.store.dataset(name).await?.is_some() {
            registered.insert(name);
        }
    }
    let private = app.store.private_dataset().await?;
    Ok(reason(&shown, |name| registered.contains(name), private.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_runs_are_over_registered_datasets_and_no_dataset_is_private() {
        let run = |dataset: Option<&str>| ShownRun {
            method: "mine".to_owned(),
            dataset: dataset.map(ToOwned::to_owned),
        };
        let is_registered = |name: &str| name == "D";
        let why =
            |runs: &[ShownRun], private| reason(runs, is_registered, private).unwrap_or_default();
        assert_eq!(why(&[run(Some("D"))], None), "");
        assert!(why(&[], None).contains("no run"));
        assert!(why(&[run(Some("D")), run(None)], None).contains("names no dataset"));
        assert!(why(&[run(Some("D")), run(Some("E"))], None).contains("E is not registered"));
        assert!(why(&[run(Some("D"))], Some("F")).contains("F is not declared"));
    }
}
