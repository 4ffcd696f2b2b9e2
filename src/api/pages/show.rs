//! How pages name runs, samples and metrics, and say what a number means.

use maud::{Markup, html};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{address::Address, charts::clip, images};
use crate::analysis::NoInterval;
use crate::api::http::{ApiError, encode};
use crate::api::runs::ranked::Brief;
use crate::api::runs::{self, RunOrder, RunResponse, RunsQuery};
use crate::api::state::App;
use crate::metrics::{self, Direction, NullReason};
use crate::store::{RunState, Slice};

/// Characters of a name in lists.
pub(super) const NAME: usize = 80;

/// Renders the command that makes a first run.
pub(super) fn submit() -> Markup {
    html! {
        pre tabindex="0" {
            code { "stellar-score submit --method NAME --dataset FOLDER --images FOLDER" }
        }
    }
}

/// Renders the name of a run.
pub(super) fn run_name(method: &str, run: &str) -> Markup {
    html! { bdi { (clip(method, NAME)) } " / " bdi { (clip(run, NAME)) } }
}

/// Renders a link to a run.
pub(super) fn run_link(id: Uuid, method: &str, run: &str) -> Markup {
    html! { a href=(format!("/runs/{id}")) { (run_name(method, run)) } }
}

/// Renders the state of a run.
pub(super) fn state(state: RunState) -> Markup {
    html! {
        @match state {
            RunState::Open => span.tag { "open" },
            RunState::Finishing => span.tag.warn { "finishing" },
            RunState::Finished => span.tag.good { "finished" },
        }
    }
}

/// Renders a time, to the minute.
pub(super) fn time(at: OffsetDateTime) -> Markup {
    let text = format!(
        "{}-{:02}-{:02} {:02}:{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute()
    );
    html! { time datetime=(format!("{}Z", text.replace(' ', "T"))) { (text) " UTC" } }
}

/// Renders a metric's code with its direction and a link to its meaning.
pub(super) fn metric(code: &str) -> Markup {
    html! {
        a href=(format!("/metrics-guide#{code}"))
            title=[metrics::find(code).map(|metric| metric.title)] { (code) }
        @if let Some((arrow, words)) = direction(code) {
            " " span title=(words) aria-label=(words) role="img" { (arrow) }
        }
    }
}

/// Returns the arrow of a metric's direction, and its words.
pub(super) fn direction(code: &str) -> Option<(&'static str, &'static str)> {
    match metrics::find(code)?.direction {
        Direction::HigherIsBetter => Some(("↑", "higher is better")),
        Direction::LowerIsBetter => Some(("↓", "lower is better")),
        Direction::Support => None,
    }
}

/// Returns why a number has no interval.
pub(super) fn no_interval(reason: NoInterval) -> &'static str {
    match reason {
        NoInterval::TooFewPeople => "no interval: too few people",
        NoInterval::TooFewPrompts => "no interval: too few prompts",
        NoInterval::TooFewShared => "no interval: too few shared judgements",
        NoInterval::NoVariation => "no interval: all people give the same number",
        NoInterval::Pending => "the interval follows within seconds: reload",
        NoInterval::Declared => "declared, not measured",
    }
}

/// Longest name of a method, in bytes, that lists link to its own page or its runs.
pub(super) const LINKED: usize = 200;

/// Returns the address of the page of a method.
pub(super) fn method_page(method: &str) -> Address {
    Address::new(format!("/methods/{}", encode(method)))
}

/// Returns a code as words.
pub(super) fn words(code: &str) -> String {
    code.replace('_', " ")
}

/// Returns the words of a kind of slices.
pub(super) fn slice_kind(kind: &str) -> &'static str {
    match kind {
        Slice::ATTRIBUTE => "Attribute of the person",
        Slice::CATEGORY => "Category of the prompt",
        Slice::PROMPT_KIND => "Kind of prompt",
        Slice::RELATION => "Relation in the prompt",
        Slice::SIZE => "Size of the image",
        _ => "All samples",
    }
}

/// Returns the label of a slice within its kind, as words.
pub(super) fn slice_label(kind: &str, label: &str) -> String {
    match (kind, label.strip_prefix('!')) {
        (Slice::ATTRIBUTE, Some(name)) => format!("not {}", words(name)),
        (Slice::ATTRIBUTE | Slice::SIZE | Slice::RELATION, _) => words(label),
        _ => label.to_owned(),
    }
}

/// Returns what to do about a null score; empty for reasons of other programs.
pub(super) fn help(reason: &str) -> &'static str {
    serde_json::from_value::<NullReason>(reason.into()).map_or("", NullReason::help)
}

/// Renders a sample: its image, linked to its page, with a caption. `alt` says what the image is.
pub(super) fn sample(alt: &str, of: Option<&Brief>, caption: &Markup) -> Markup {
    html! {
        figure.sample {
            @if let Some(of) = of {
                a href=(format!("/samples/{}", of.id)) {
                    @match &of.image {
                        Some(hash) => (images::image(hash, alt)),
                        None => span.none { "No image: the scores were imported" },
                    }
                }
            } @else {
                span.none { "No sample of this name" }
            }
            figcaption { (caption) }
        }
    }
}

/// Returns what an image shows, as far as its sample says it.
pub(super) fn alt(name: &str, of: Option<&Brief>) -> String {
    match of.and_then(|of| of.prompt.as_deref()) {
        Some(prompt) => format!("Generated for: {}", clip(prompt, 100)),
        None => format!("Sample {}", clip(name, NAME)),
    }
}

/// Renders a prompt, clipped to what a list shows.
pub(super) fn prompt(of: Option<&Brief>) -> Markup {
    let text = of.and_then(|of| of.prompt.as_deref());
    html! {
        @if let Some(text) = text { bdi { (clip(text, 160)) } } @else { span.fine { "no prompt" } }
    }
}

/// Returns the runs with scores among the `limit` newest ones over a dataset, or over any.
pub(super) async fn scored_runs(
    app: &App,
    dataset: Option<String>,
    limit: u32,
) -> Result<Vec<RunResponse>, ApiError> {
    let list = RunsQuery {
        method: None,
        dataset,
        state: None,
        order: RunOrder::Newest,
        after: None,
        limit: Some(limit),
    };
    let mut listed = runs::respond(app, list).await?.runs;
    listed.retain(|run| run.counts.scored > 0);
    Ok(listed)
}

/// Renders the choice of a run by name in a form. `runs` are the newest ones.
pub(super) fn run_choice(
    field: &'static str,
    label: &str,
    runs: &[RunResponse],
    chosen: Option<Uuid>,
) -> Markup {
    html! {
        label {
            (label)
            select.run name=(field) {
                option value="" { "Choose a run" }
                @if let Some(id) = chosen && runs.iter().all(|run| run.run_id != id) {
                    option value=(id) selected { "run " (id) }
                }
                @for run in runs {
                    option value=(run.run_id) selected[chosen == Some(run.run_id)] {
                        (clip(&run.method, 30)) " / " (clip(&run.run, 30))
                        @if let Some(dataset) = &run.dataset { " (" (clip(dataset, 20)) ")" }
                    }
                }
            }
        }
    }
}

/// Bytes of a list of names to choose from.
const NAMES: usize = 8_000;

/// Renders names to choose from in a field, as many as a page has room for.
pub(super) fn names<'a>(id: &'static str, names: impl Iterator<Item = &'a str>) -> Markup {
    let mut bytes = 0;
    let names = names.take_while(|name| {
        bytes += name.len() + 30;
        bytes < NAMES
    });
    html! { datalist id=(id) { @for name in names { option value=(name) {} } } }
}

/// Renders the hidden fields of a form: the parameters that it does not have itself.
pub(super) fn hidden(address: &Address, own: &[&str]) -> Markup {
    html! {
        @for (name, value) in address.parameters() {
            @if !own.contains(&&**name) { input type="hidden" name=(name) value=(value); }
        }
    }
}
