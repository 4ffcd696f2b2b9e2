//! Whether images of people may be shown to others than the users of the service.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::api::http::ApiError;
use crate::api::state::App;

/// Returns why images and photos of these runs may not leave the service; `None` if they may.
///
/// Every run must be over a registered dataset, and all datasets of the service must say that their
/// photos may be shown to others (`redistributable`): a sample may have photos of another dataset
/// than its run names. Runs that were deleted have nothing to show.
pub(crate) async fn withheld(
    app: &App,
    runs: impl IntoIterator<Item = Uuid>,
) -> Result<Option<String>, ApiError> {
    let mut names = BTreeSet::new();
    for run in runs {
        let Some(run) = app.store.run(run).await? else { continue };
        let Some(name) = run.facts.dataset else {
            return Ok(Some(format!(
                "the run of {} names no dataset, so nothing says that its photos may be shown",
                run.name.method
            )));
        };
        names.insert(name);
    }
    if names.is_empty() {
        return Ok(Some("there is no run, so nothing says that photos may be shown".to_owned()));
    }
    for name in names {
        if app.store.dataset(&name).await?.is_none() {
            return Ok(Some(format!(
                "the dataset {name} is not registered, so nothing says that its photos may be shown"
            )));
        }
    }
    let private = app.store.private_dataset().await?;
    Ok(private.map(|name| format!("the dataset {name} is not declared as redistributable")))
}
