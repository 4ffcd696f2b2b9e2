//! Gold items as lines of text: the name of the samples, the method whose image is right, and the
//! methods of the other images.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::api::http::form::clean_label;
use crate::api::http::{ApiError, Code};
use crate::api::runs::{self, RunOrder, RunsQuery};
use crate::api::state::App;
use crate::api::studies::create::{MOST_GOLD, gold_without_image};
use crate::store::{GoldItem, StudyPlan};

/// Runs of a method among which one is looked up by name.
const RUNS: u32 = 1_000;

/// Characters of a cell that an error repeats.
const SHOWN: usize = 80;

/// Reads gold items, one a line. Errors name the line.
pub(super) async fn read(
    app: &App,
    text: &str,
    plan: &StudyPlan,
) -> Result<Vec<GoldItem>, ApiError> {
    let mut methods = Methods::of(app, plan).await?;
    let mut items = Vec::new();
    let mut places = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("gold items, line {}", at + 1);
        if items.len() == MOST_GOLD {
            return Err(invalid(format!("a study has at most {MOST_GOLD}")).within(&place));
        }
        let item = item(&mut methods, line, plan).await.map_err(|error| error.within(&place))?;
        items.push(item);
        places.push(place);
    }
    if let Some((at, run)) = gold_without_image(app, &items).await? {
        let problem =
            format!("{} has no image of the name “{}”", methods.name(run), shown(&items[at].name));
        return Err(invalid(problem).within(&places[at]));
    }
    Ok(items)
}

fn invalid(problem: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidField, problem)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

async fn item(
    methods: &mut Methods<'_>,
    line: &str,
    plan: &StudyPlan,
) -> Result<GoldItem, ApiError> {
    let images = plan.images();
    let cells = cells(line);
    let Some((name, named)) = cells.split_first().filter(|(_, named)| !named.is_empty()) else {
        return Err(invalid(
            "write the name of the samples, a comma, and the method whose image is right",
        ));
    };
    let name = clean_label("the name of the samples", name)?;
    let mut found = Vec::new();
    for text in named.iter().take(images + 1) {
        found.push(methods.find(text).await?);
    }
    let right = found[0];
    // All methods are shown at once, so that the others are known.
    if found.len() == 1 && images == plan.runs.len() && plan.runs.contains(&right) {
        return Ok(GoldItem { name, runs: plan.runs.clone(), right });
    }
    if found.len() != images {
        return Err(invalid(format!(
            "an item has {images} images, and this line names {} of them: write the method whose \
             image is right, and then the other {}",
            named.len(),
            images - 1
        )));
    }
    if found.iter().collect::<BTreeSet<_>>().len() < found.len() {
        return Err(invalid("it names a method twice"));
    }
    Ok(GoldItem { name, runs: found, right })
}

/// Splits a line at its commas, or at its tabs if it was copied from a table. A name with a comma
/// is quoted. The reader of CSV files takes no quote after a space, which people write.
fn cells(line: &str) -> Vec<String> {
    let delimiter = if line.contains('\t') { '\t' } else { ',' };
    let mut cells = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (cell, after) = if let Some(quoted) = rest.strip_prefix('"') {
            unquoted(quoted)
        } else {
            let end = rest.find(delimiter).unwrap_or(rest.len());
            (rest[..end].trim().to_owned(), &rest[end..])
        };
        rest = after.split_once(delimiter).map_or("", |(_, next)| next).trim_start();
        if !cell.is_empty() {
            cells.push(cell);
        }
    }
    cells
}

/// Reads a quoted cell after its first quote, and returns what follows. Two quotes are one.
fn unquoted(text: &str) -> (String, &str) {
    let mut cell = String::new();
    let mut rest = text;
    while let Some((part, after)) = rest.split_once('"') {
        cell.push_str(part);
        let Some(further) = after.strip_prefix('"') else { return (cell, after) };
        cell.push('"');
        rest = further;
    }
    (cell + rest, "")
}

/// The methods that a line may name.
struct Methods<'a> {
    app: &'a App,
    /// The runs of the study, by method.
    chosen: BTreeMap<String, Uuid>,
    /// Runs of other methods that were looked up, by method.
    others: BTreeMap<String, Vec<(String, Uuid)>>,
}

impl<'a> Methods<'a> {
    async fn of(app: &'a App, plan: &StudyPlan) -> Result<Self, ApiError> {
        let mut chosen = BTreeMap::new();
        for &id in &plan.runs {
            // A run that does not exist is refused with the plan.
            if let Some(run) = app.store.run(id).await? {
                chosen.insert(run.name.method, id);
            }
        }
        Ok(Self { app, chosen, others: BTreeMap::new() })
    }

    /// Returns the run of a chosen method, or of any `method / run`.
    async fn find(&mut self, text: &str) -> Result<Uuid, ApiError> {
        if let Some(run) = self.chosen.get(text) {
            return Ok(*run);
        }
        // Names may have the separator, too.
        for (at, separator) in text.match_indices(" / ") {
            let (method, run) = (&text[..at], &text[at + separator.len()..]);
            let runs = self.runs_of(method).await?;
            if let Some((_, id)) = runs.iter().find(|(name, _)| name == run) {
                return Ok(*id);
            }
        }
        let chosen = self.chosen.keys().map(|name| shown(name)).collect::<Vec<_>>().join(", ");
        Err(invalid(format!(
            "“{}” is no method of the study: write one of {chosen}, or another run of this service \
             as method / run",
            shown(text)
        )))
    }

    async fn runs_of(&mut self, method: &str) -> Result<&[(String, Uuid)], ApiError> {
        if !self.others.contains_key(method) {
            let query = RunsQuery {
                method: Some(method.to_owned()),
                dataset: None,
                state: None,
                order: RunOrder::Newest,
                after: None,
                limit: Some(RUNS),
            };
            let found = runs::respond(self.app, query).await?.runs;
            let found = found.into_iter().map(|run| (run.run, run.run_id)).collect();
            self.others.insert(method.to_owned(), found);
        }
        Ok(&self.others[method])
    }

    fn name(&self, run: Uuid) -> String {
        if let Some((method, _)) = self.chosen.iter().find(|(_, id)| **id == run) {
            return shown(method);
        }
        for (method, runs) in &self.others {
            if let Some((name, _)) = runs.iter().find(|(_, id)| *id == run) {
                return format!("{} / {}", shown(method), shown(name));
            }
        }
        format!("the run {run}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_commas_or_tabs_and_may_quote() {
        assert_eq!(cells(" 07 , A ,"), ["07", "A"]);
        assert_eq!(cells("07\tA, B\tC"), ["07", "A, B", "C"]);
        assert_eq!(cells("\"a, \"\"b\"\"\",A"), ["a, \"b\"", "A"]);
        assert_eq!(cells("05, \"d, e\" , f"), ["05", "d, e", "f"]);
        assert_eq!(cells("\"open,A"), ["open,A"]);
        assert_eq!(cells(","), [""; 0]);
    }
}
