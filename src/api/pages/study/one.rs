//! `/study?study=ID`: one study, with its progress and its results.

use axum::response::Response;
use maud::{Markup, html};

use super::{
    list,
    methods::{alpha_words, no_interval},
    people, plan,
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
    self, ProgressResponse,
    results::{self, ResultsQuery, ResultsResponse},
};
use crate::store::{Question, StudyRecord, StudyState};

/// Prompts below which nothing is said to be certain: intervals over few prompts are too narrow.
const FEWEST_PROMPTS: usize = 10;

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
            (verdict(&results))
            (numbers(&results))
            (shares(&mut view, &results))
            (settles(&mut view, &results))
            (positions(&mut view, &results))
        }
        (people::section(&mut view, &of))
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
            Column::number("answers"),
            Column::number("wanted"),
            Column::number("complete items"),
        ],
        rows: of.questions.iter().map(row).collect(),
    };
    html! {
        h2 #progress { "Progress" }
        p.fine { "With “cannot tell”; without answers about gold items and those of annotators who are \
            left out." }
        (view.table(&table))
    }
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
                h2 { "Counted answers" }
                p.big { (number::count(results.answers as u64)) }
                p.fine {
                    "by " (results.annotators)
                    @if results.annotators == 1 { " annotator" } @else { " annotators" }
                    " about " (results.prompts)
                    @if results.prompts == 1 { " prompt. " } @else { " prompts. " }
                    @if of.study.plan.ties {
                        (results.ties) @if results.ties == 1 { " tie. " } @else { " ties. " }
                    }
                    "Not counted: " (results.cannot_tell) " × “cannot tell”, and those of "
                    (of.left_out.len()) @if of.left_out.len() == 1 { " annotator who is" }
                    @else { " annotators who are" } " left out."
                    @if of.study.plan.gold.is_some() { " Answers about gold items never count." }
                }
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

/// Renders what the result says in one sentence.
fn verdict(of: &ResultsResponse) -> Markup {
    let (methods, chance) = (&of.results.methods, of.results.chance);
    let most = methods.iter().filter_map(|of| of.share).fold(f64::NEG_INFINITY, f64::max);
    let mut first = methods.iter().filter(|of| of.share == Some(most));
    let Some(method) = first.next() else { return html! {} };
    if let Some(other) = first.next() {
        return html! {
            p.asked { bdi { (method.method) } " and " bdi { (other.method) } " are chosen equally often ("
                (number::percent(most)) "), and no method more often: which of them people prefer is \
                not certain." }
        };
    }
    // The next one is that by strength, which takes into account who met whom.
    let lead = of.results.differences.first().filter(|lead| lead.better == method.method);
    html! {
        p.asked {
            strong { bdi { (method.method) } " is chosen most often" } " (" (number::percent(most))
            @match method.share_low.zip(method.share_high) {
                None => { "); it is not certain that people prefer it: there are too few answers." },
                Some((low, high)) => {
                    ", 95 % interval " (percents(low, high)) ")"
                    @if low > chance && of.results.prompts < FEWEST_PROMPTS {
                        "; it is not certain that people prefer it: the answers are about "
                        (of.results.prompts) @if of.results.prompts == 1 { " prompt" } @else { " prompts" }
                        " only."
                    } @else if low > chance {
                        ", more often than by chance (" (number::percent(chance)) "). "
                        @match lead {
                            Some(lead) if lead.settled => {
                                "It is ahead of " bdi { (lead.worse) } ", the next one."
                            },
                            Some(lead) => {
                                "Whether people prefer it to " bdi { (lead.worse) } ", the next one, is \
                                    not certain."
                            },
                            None => {},
                        }
                    } @else {
                        "; it is not certain that people prefer it: the interval contains chance ("
                        (number::percent(chance)) ")."
                    }
                },
            }
        }
    }
}

/// Returns the ends of an interval as percentages.
fn percents(low: f64, high: f64) -> String {
    format!("{} to {}", number::rounded(low * 100.0, 0), number::percent(high))
}

fn shares(view: &mut View, of: &ResultsResponse) -> Markup {
    let methods = &of.results.methods;
    // Ties are parts of choices.
    let decimals = usize::from(methods.iter().any(|of| of.chosen.fract() > 0.0));
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
            Cell::number(Some(method.chosen), number::rounded(method.chosen, decimals)),
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
        let words = if each.settled { "none" } else { "cannot be said" };
        let order = if each.settled { "one is ahead" } else { "not distinguishable" };
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
            Cell::text(order).class("verdict"),
        ]
        .into()
    };
    let table = Table {
        name: "settles",
        caption: "What more answers would settle".to_owned(),
        columns: vec![
            Column::text("one"),
            Column::text("other"),
            Column::number("difference"),
            Column::number("low"),
            Column::number("high"),
            Column::number("more answers"),
            Column::text("so far"),
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
        p { "Over whole blocks of items, every method is in every position equally often, so a habit \
            adds noise and favours nobody. Without one, each position has about "
            (number::percent(of.results.chance)) "." }
        (view.table(&table))
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
