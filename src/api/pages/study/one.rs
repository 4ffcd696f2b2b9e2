//! `/study?study=ID`: one study, with its progress and its results.

use axum::response::Response;
use maud::{Markup, html};

use super::{
    list,
    methods::{alpha_words, no_interval},
    plan,
};
use crate::analysis::{StudyDifference, StudyMethod};
use crate::api::http::{ApiError, Id};
use crate::api::pages::{
    address::Address,
    charts::agreement::{self, Line, Words},
    number, questions,
    table::{Cell, Column, Table},
    view::{Section, View},
};
use crate::api::state::App;
use crate::api::studies::{
    self, AnnotatorProgress, ProgressResponse,
    results::{self, ResultsQuery, ResultsResponse},
};
use crate::store::{Question, StudyRecord, StudyState};

/// Maximum number of annotators that are shown.
const MOST: usize = 40;

pub(super) async fn read(app: &App, address: &Address) -> Result<Response, ApiError> {
    let id = Id::<StudyRecord>::parse(address.get("study").unwrap_or_default())?;
    let query: ResultsQuery = address.query(&["study"])?;
    let results = results::respond(app, Id::new(id.0), query).await?;
    let of = studies::respond(app, id).await?;
    let images = studies::unseen_images(app, of.study.id).await?;
    let facts = plan::facts(app, &of).await?;
    let mut view = View::new(Section::Study, &of.study.plan.title, address).style("study.css");
    let content = html! {
        div.title { h1 { bdi { (of.study.plan.title) } } (view.share()) }
        (lead(&of))
        @if !view.is_shared() { (actions(app, &of, images)) }
        (plan::section(&view, &of, &facts))
        (progress(&mut view, &of))
        (asked(&of, &results, address))
        @if results.results.answers == 0 {
            (none(&results))
        } @else {
            (numbers(&results))
            (shares(&mut view, &results))
            (settles(&mut view, &results))
            (positions(&mut view, &results))
        }
        (annotators(&mut view, &of))
        @if !view.is_shared() { (exports(&of)) }
    };
    view.respond(app, &content)
}

fn lead(of: &ProgressResponse) -> Markup {
    let plan = &of.study.plan;
    html! {
        p.lead {
            "Study " bdi { (plan.name) } ": " (list::form(&of.study)) ", " (plan.runs.len())
            " methods, " (number::count(of.items)) " items, " (plan.answers_per_item)
            " answers about each. State: " strong { (of.study.state.as_str()) } "."
        }
    }
}

fn actions(app: &App, of: &ProgressResponse, images: (usize, usize)) -> Markup {
    let vote = Address::new("/vote").with("study", of.study.id);
    let states = match of.study.state {
        StudyState::Draft => [("open", "Open the study")].as_slice(),
        StudyState::Open => [("closed", "Close the study")].as_slice(),
        StudyState::Closed => [("open", "Open the study again")].as_slice(),
    };
    html! {
        form.row method="post" action="/study/state" {
            input type="hidden" name="study" value=(of.study.id);
            @for (state, label) in states {
                button.main name="state" value=(state) { (label) }
            }
            @match of.study.state {
                StudyState::Draft => { a.button href=(vote) { "What annotators read first" } }
                StudyState::Open => { a.button href=(vote) { "The link for annotators" } }
                StudyState::Closed => {}
            }
        }
        @if of.study.state != StudyState::Closed { (unseen(app, images)) }
    }
}

/// Says how many of the first images annotators would not see at `/vote`.
fn unseen(app: &App, (unseen, images): (usize, usize)) -> Markup {
    html! {
        @if unseen > 0 {
            p.note.warn {
                "No thumbnail is stored of " (unseen) " of the first " (images) " images, so that annotators \
                    see placeholders. "
                @if !app.keeping.has_thumbnails() { "Set " code { "store.thumbnails" } " first. " }
                "Send these samples again, or publish the tasks on a platform."
            }
        }
    }
}

fn progress(view: &mut View, of: &ProgressResponse) -> Markup {
    let count = |count: u64| Cell::number(Some(count as f64), number::count(count));
    let row = |each: &studies::QuestionProgress| {
        vec![
            Cell::text(&*each.question).shown(html! { (name(&each.question)) }).head(),
            count(each.answers),
            count(each.wanted),
            count(each.complete_items),
        ]
        .into()
    };
    let table = Table {
        name: "progress",
        caption: "Progress by question".to_owned(),
        columns: vec![
            Column::text("question"),
            Column::number("counted answers"),
            Column::number("wanted"),
            Column::number("complete items"),
        ],
        rows: of.questions.iter().map(row).collect(),
    };
    html! { h2 #progress { "Progress" } (view.table(&table)) }
}

/// Returns the name of a question by its word.
fn name(word: &str) -> String {
    Question::parse(word).map_or_else(|| word.to_owned(), |question| questions::name(&question))
}

fn asked(of: &ProgressResponse, results: &ResultsResponse, address: &Address) -> Markup {
    let question = Question::parse(&results.question).unwrap_or(Question::Overall);
    let many = results.study.images > 2;
    html! {
        p.asked { "The question: " strong {
            @if many { (questions::ask_many(&question)) } @else { (questions::ask(&question)) }
        } }
        @if of.questions.len() > 1 {
            nav.questions aria-label="Questions" {
                @for each in of.questions.iter().filter(|each| each.question != results.question) {
                    a href=(address.with("question", &each.question)) { (name(&each.question)) } " "
                }
            }
        }
    }
}

/// Says why there is no answer to show.
fn none(of: &ResultsResponse) -> Markup {
    let answers: usize = of.left_out.iter().map(|each| each.answers).sum();
    html! {
        div.card.empty {
            p { strong { "No answer to this question is counted yet." } }
            @if answers > 0 {
                p { (answers) @if answers == 1 { " answer is" } @else { " answers are" }
                    " of annotators who are left out. " a href="#annotators" { "The annotators" } }
            }
        }
    }
}

fn numbers(of: &ResultsResponse) -> Markup {
    let results = &of.results;
    html! {
        div.cards {
            div.card.figure {
                h2 { "Answers" }
                p.big { (number::count(results.answers as u64)) }
                p.fine { "by " (results.annotators) " annotators about " (results.prompts) " prompts. "
                    (results.ties) " ties. Not counted: " (results.cannot_tell) " × “cannot tell”, and \
                    those of " (of.left_out.len()) @if of.left_out.len() == 1 { " annotator who is" }
                    @else { " annotators who are" } " left out." }
            }
            div.card.figure {
                h2 { "Agreement" }
                @match results.agreement.alpha {
                    Some(alpha) => {
                        p.big { (number::rounded(alpha, 2)) }
                        p.fine {
                            "Krippendorff’s alpha (nominal)"
                            @if let Some((low, high)) =
                                results.agreement.alpha_low.zip(results.agreement.alpha_high)
                            {
                                " [" (number::rounded(low, 2)) ", " (number::rounded(high, 2)) "]"
                            }
                            " over " (results.agreement.shared) " items that several people answered. "
                            @if let Some(equal) = results.agreement.equal {
                                (number::percent(equal)) " of the pairs of answers are equal."
                            }
                        }
                    }
                    None => {
                        p.big { "none" }
                        p.fine { (alpha_words(results.agreement.no_alpha)) }
                    }
                }
            }
        }
    }
}

fn shares(view: &mut View, of: &ResultsResponse) -> Markup {
    let methods = &of.results.methods;
    let lines: Vec<Line> = methods
        .iter()
        .filter_map(|method| {
            Some(Line {
                label: method.method.clone(),
                value: method.share?,
                interval: method.share_low.zip(method.share_high),
                other: None,
            })
        })
        .collect();
    let chart = agreement::chart(
        Words {
            name: "first",
            title: "First-choice share by method".to_owned(),
            description: "The share of answers in which the method’s image was chosen, with 95 % \
                intervals. The table has the numbers."
                .to_owned(),
            reference: (of.results.chance, "chance"),
        },
        &lines,
    );
    let row = |method: &StudyMethod| {
        let percent = |share: Option<f64>, missing: &str| {
            Cell::number(share, share.map_or_else(|| missing.to_owned(), number::percent))
        };
        let missing = no_interval(method.no_interval);
        let strength = |value: Option<f64>, missing: &str| {
            let shown = value.map_or_else(|| missing.to_owned(), |of| number::rounded(of, 2));
            Cell::number(value, shown)
        };
        let board = Address::new("/leaderboard").with("method", &method.method);
        vec![
            Cell::text(&*method.method)
                .shown(html! { a href=(board) { bdi { (method.method) } } })
                .head(),
            Cell::number(Some(method.shown as f64), method.shown.to_string()),
            Cell::number(Some(method.chosen), number::rounded(method.chosen, 1)),
            percent(method.share, "not shown"),
            percent(method.share_low, missing),
            percent(method.share_high, missing),
            strength(method.strength, "no strengths"),
            strength(method.strength_low, "too few prompts"),
            strength(method.strength_high, "too few prompts"),
        ]
        .into()
    };
    let table = Table {
        name: "shares",
        caption: "Methods by first choices".to_owned(),
        columns: vec![
            Column::text("method"),
            Column::number("shown"),
            Column::number("chosen"),
            Column::number("share"),
            Column::number("share low"),
            Column::number("share high"),
            Column::number("strength"),
            Column::number("strength low"),
            Column::number("strength high"),
        ],
        rows: methods.iter().map(row).collect(),
    };
    html! {
        h2 #methods { "Which method do people choose?" }
        p {
            "The " strong { "share" } " is how often a method’s image was chosen where it was shown; "
            (number::percent(of.results.chance)) " is chance. The " strong { "strength" }
            " (Plackett-Luce) takes into account against which others it was shown: 0 is average, and a \
                lead of 1.1 means three choices to one. Intervals are over prompts, so that several \
                answers about one prompt are not taken as independent."
        }
        @if let Some(why) = &of.results.no_strengths { p.note.warn { "Strengths: " (why) "." } }
        @if of.results.penalised {
            p.note { "Some methods were always or never chosen. Half a win was added to each side of \
                every two methods that were shown together, so strengths are closer together than the \
                answers say." }
        }
        (view.chart(&chart))
        (view.table(&table))
    }
}

fn settles(view: &mut View, of: &ResultsResponse) -> Markup {
    let row = |each: &StudyDifference| {
        let name = |name: &str| Cell::text(name).shown(html! { bdi { (name) } });
        let strength = |value: Option<f64>| {
            let shown =
                value.map_or_else(|| "too few prompts".to_owned(), |of| number::rounded(of, 2));
            Cell::number(value, shown)
        };
        let more = each.more_answers.map(number::count);
        let words = if each.settled { "settled" } else { "cannot be said" };
        vec![
            name(&each.better).head(),
            name(&each.worse),
            strength(Some(each.difference)),
            strength(each.low),
            strength(each.high),
            Cell::number(
                each.more_answers.map(|more| more as f64),
                more.unwrap_or_else(|| words.to_owned()),
            ),
        ]
        .into()
    };
    let table = Table {
        name: "settles",
        caption: "What more answers would settle".to_owned(),
        columns: vec![
            Column::text("better"),
            Column::text("worse"),
            Column::number("difference"),
            Column::number("low"),
            Column::number("high"),
            Column::number("more answers"),
        ],
        rows: of.results.differences.iter().map(row).collect(),
    };
    html! {
        h2 #settles { "What would more answers settle?" }
        @if of.results.differences.is_empty() {
            p { "There are no strengths to compare yet." }
        } @else {
            p { "Methods in the order of their strengths. " strong { "More answers" } " would settle an \
                order with probability 0.8 if the difference is as measured, which small studies \
                overestimate." }
            (view.table(&table))
        }
    }
}

fn positions(view: &mut View, of: &ResultsResponse) -> Markup {
    let row = |(at, each): (usize, &crate::analysis::Proportion)| {
        let percent = |share: Option<f64>| {
            Cell::number(share, share.map_or_else(|| "no choice".to_owned(), number::percent))
        };
        vec![
            Cell::number(Some((at + 1) as f64), (at + 1).to_string()).head(),
            Cell::number(Some(each.count as f64), each.count.to_string()),
            percent(each.share),
            percent(each.low),
            percent(each.high),
        ]
        .into()
    };
    let table = Table {
        name: "positions",
        caption: "Choices by position".to_owned(),
        columns: vec![
            Column::number("position"),
            Column::number("chosen"),
            Column::number("share"),
            Column::number("low"),
            Column::number("high"),
        ],
        rows: of.results.positions.iter().enumerate().map(row).collect(),
    };
    html! {
        h2 #positions { "Does the position matter?" }
        p { "Every method is in every position equally often, so a habit adds noise and favours nobody. \
            Without one, each position has about " (number::percent(of.results.chance)) "." }
        (view.table(&table))
    }
}

fn annotators(view: &mut View, of: &ProgressResponse) -> Markup {
    let mut named: Vec<&AnnotatorProgress> = of.annotators.iter().collect();
    named.sort_by(|a, b| b.answers.cmp(&a.answers).then_with(|| a.annotator.cmp(&b.annotator)));
    let all = named.len();
    named.truncate(view.most(MOST));
    let row = |each: &&AnnotatorProgress| {
        let reason = each.excluded.as_deref();
        vec![
            Cell::text(&*each.annotator).shown(html! { bdi { (each.annotator) } }).head(),
            Cell::number(Some(each.answers as f64), each.answers.to_string()),
            Cell::text(match (reason, each.by_operator) {
                (None, _) => "counted",
                (Some(_), true) => "left out",
                (Some(_), false) => "left out by gold items",
            }),
            Cell::text(reason.unwrap_or_default())
                .shown(html! { bdi { (reason.unwrap_or_default()) } }),
        ]
        .into()
    };
    let table = Table {
        name: "annotators",
        caption: "Annotators".to_owned(),
        columns: vec![
            Column::text("annotator"),
            Column::number("answers"),
            Column::text("state"),
            Column::text("reason"),
        ],
        rows: named.iter().map(row).collect(),
    };
    let out: Vec<&&AnnotatorProgress> = named.iter().filter(|each| each.by_operator).collect();
    html! {
        h2 #annotators { "The annotators" }
        @if named.is_empty() {
            p { "Nobody has answered yet." }
        } @else {
            p { "Answers of annotators who are left out stay, and no analysis counts them." }
            (view.table(&table))
            @if all > named.len() {
                p.fine { "The " (named.len()) " with the most answers, of " (all) "." }
            }
            @if !view.is_shared() {
                form.filters method="post" action="/study/exclude" {
                    input type="hidden" name="study" value=(of.study.id);
                    label { "Annotator" input type="text" name="annotator" required maxlength="256"; }
                    label { "Reason" input type="text" name="reason" required maxlength="256"; }
                    button { "Leave out" }
                }
                @if !out.is_empty() {
                    form.filters method="post" action="/study/include" {
                        input type="hidden" name="study" value=(of.study.id);
                        label { "Left out"
                            select name="annotator" {
                                @for each in out {
                                    option value=(each.annotator) { (each.annotator) }
                                }
                            }
                        }
                        button { "Count again" }
                    }
                }
            }
        }
    }
}

fn exports(of: &ProgressResponse) -> Markup {
    let id = of.study.id;
    let metrics = Address::new("/study").with("study", id).with("view", "metrics");
    html! {
        h2 #exports { "To take away" }
        ul {
            li { a href=(metrics) { "Which metrics agree with these answers" } }
            li { "All answers with pseudonyms: "
                a download href=(format!("/v1/studies/{id}/answers?format=csv")) { "CSV" } ", "
                a download href=(format!("/v1/studies/{id}/answers?format=jsonl")) { "JSON lines" } }
            li { "Tasks for Mechanical Turk or Prolific: "
                a download href=(format!("/v1/studies/{id}/tasks?limit=1000")) { "CSV" } }
        }
    }
}
