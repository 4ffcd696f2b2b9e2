//! `/vote`: pairs of images for annotators, one at a time. No score is shown.
//!
//! The annotator's pseudonym is in the address, not in a cookie: a link begins a session with its
//! question and pseudonym, two tabs can be two annotators, and nothing stays in the browser.

mod start;
pub(super) mod study;
mod undo;

use axum::{
    extract::{Request, State},
    response::Response,
};
use maud::{Markup, html};
use uuid::Uuid;

use super::{
    address::Address,
    images, questions, show,
    view::{Section, View, see_other},
};
use crate::api::http::form::clean_label;
use crate::api::http::{ApiError, Code, Id};
use crate::api::preferences::{
    self, answers,
    entry::{PreferenceEntry, Side},
    next::{self, NextEntry, NextQuery, NextResponse},
    turns::{Asked, Purpose},
};
use crate::api::state::{App, Shared};
use crate::store::{Preference, Question};

/// Answers of a round, unless the address has another number.
const GOAL: usize = 50;

/// Pairs among which one with images is sought.
const FURTHER: u32 = 100;

/// Parameters of the page that the API does not have.
const OWN: [&str; 7] = ["consent", "goal", "undo", "name", "run_a", "run_b", "repeat"];

/// Who votes on what.
struct Session {
    question: Question,
    annotator: String,
    goal: usize,
}

impl Session {
    /// Reads the session from the parameters of the page or the fields of a form; `None` without a
    /// pseudonym or consent.
    fn read(address: &Address, question: Question) -> Result<Option<Self>, ApiError> {
        let Some(annotator) = address.get("annotator") else { return Ok(None) };
        let annotator = clean_label("annotator", annotator)?;
        let goal = match address.get("goal").map(str::parse) {
            None => GOAL,
            Some(Ok(goal)) if (1..=10_000).contains(&goal) => goal,
            Some(_) => {
                let problem = "goal is not a number from 1 to 10000";
                return Err(ApiError::new(Code::MalformedRequest, problem));
            }
        };
        let consents = address.get("consent") == Some("yes");
        Ok(consents.then_some(Self { question, annotator, goal }))
    }

    /// Returns the address at which the session continues.
    fn address(&self) -> Address {
        let address = Address::new("/vote")
            .with("question", self.question.as_str())
            .with("annotator", &self.annotator)
            .with("consent", "yes");
        if self.goal == GOAL { address } else { address.with("goal", self.goal) }
    }
}

/// `GET /vote`: the start page, or the next pair.
pub(super) async fn read(State(app): Shared, address: Address) -> Result<Response, ApiError> {
    if address.get("study").is_some() {
        return study::read(&app, &address).await;
    }
    let query: NextQuery = address.query(&OWN)?;
    let word = query.question.clone().unwrap_or_default();
    let question = app.questions.of(word, Code::MalformedRequest)?;
    let view = View::new(Section::Vote, "Vote", &address).style("vote.css").script("vote.js");
    let Some(session) = Session::read(&address, question.clone())? else {
        return view.respond(&app, &start::page(&app, &address, &question));
    };
    let NextResponse { answered, mut pairs, .. } = next_pairs(&app, &session, 1).await?;
    let has_images = |pair: &NextEntry| pair.image_a.is_some() && pair.image_b.is_some();
    if pairs.first().is_some_and(|pair| !has_images(pair)) {
        // Scores were imported: others may have images.
        pairs = next_pairs(&app, &session, FURTHER).await?.pairs;
    }
    let answered = answered.unwrap_or_default();
    let named = match named(&address)? {
        Some(asked) => next::one(&app, &session.question, &session.annotator, asked).await?,
        None => None,
    };
    let without_images = !pairs.is_empty();
    let pair = named.into_iter().chain(pairs).find(has_images);
    let content = html! {
        (header(&session, answered))
        @match &pair {
            Some(pair) => (ballot(&session, pair)),
            None => (finished(&app, &session, answered, without_images)),
        }
        (undo::form("/vote/undo", &session.address(), address.get("undo")))
        (others(&app, &session))
    };
    view.respond(&app, &content)
}

async fn next_pairs(app: &App, session: &Session, limit: u32) -> Result<NextResponse, ApiError> {
    let query = NextQuery {
        question: Some(session.question.clone().into()),
        annotator: Some(session.annotator.clone()),
        limit: Some(limit),
    };
    next::respond(app, query).await
}

/// Returns the pair that the address names, which was withdrawn before.
fn named(address: &Address) -> Result<Option<Asked>, ApiError> {
    let [Some(name), Some(a), Some(b)] = ["name", "run_a", "run_b"].map(|each| address.get(each))
    else {
        return Ok(None);
    };
    let run = |id: &str| {
        let problem = "run_a or run_b is not the id of a run";
        id.parse::<Uuid>().map_err(|_| ApiError::new(Code::MalformedRequest, problem))
    };
    let is_repeat = address.get("repeat") == Some("true");
    let purpose = if is_repeat { Purpose::Repeat } else { Purpose::New };
    Ok(Some(Asked { purpose, ..Asked::new(name.to_owned(), run(a)?, run(b)?) }))
}

fn header(session: &Session, answered: usize) -> Markup {
    let (rounds, within) = (answered / session.goal, answered % session.goal);
    let is_round = answered > 0 && within == 0;
    let shown = if is_round { session.goal } else { within };
    html! {
        div.ask {
            h1 { (questions::ask(&session.question)) }
            p.fine { (questions::hint(&session.question)) }
        }
        div.progress {
            label {
                span {
                    (answered) @if answered == 1 { " answer" } @else { " answers" }
                    " as " bdi { (session.annotator) }
                }
                progress value=(shown) max=(session.goal) {
                    (shown) " of " (session.goal)
                }
                span.fine { (shown) " of " (session.goal) " in this round" }
            }
        }
        @if is_round {
            p.note role="status" {
                strong { "Round " (rounds) " is complete. Thank you. " }
                "You can stop here, or go on with the next round."
            }
        }
    }
}

/// Renders a pair with the form of its answer.
fn ballot(session: &Session, pair: &NextEntry) -> Markup {
    let (image_a, image_b) = (pair.image_a.as_deref(), pair.image_b.as_deref());
    let is_a_first = pair.show_first == Side::A;
    let (left, right) = if is_a_first { (image_a, image_b) } else { (image_b, image_a) };
    let (left_value, right_value) = if is_a_first { ("a", "b") } else { ("b", "a") };
    html! {
        form.ballot #ballot method="post" action="/vote" {
            @for (name, value) in session.address().parameters() {
                input type="hidden" name=(name) value=(value);
            }
            input type="hidden" name="name" value=(pair.name);
            input type="hidden" name="run_a" value=(pair.run_a);
            input type="hidden" name="run_b" value=(pair.run_b);
            input type="hidden" name="shown_first" value=(if is_a_first { "a" } else { "b" });
            @if pair.purpose == Purpose::Repeat {
                input type="hidden" name="repeat" value="true";
            }
            div.brief {
                @if let Some(prompt) = &pair.prompt {
                    div.prompt {
                        h2 { "Prompt" }
                        blockquote { bdi { (prompt) } }
                    }
                }
                (start::person(&pair.photos))
            }
            div.pair {
                (side(left, "Left image", left_value, "1", "Left is better", "1 ArrowLeft"))
                (side(right, "Right image", right_value, "2", "Right is better", "2 ArrowRight"))
            }
            div.neither {
                button name="preferred" value="tie" data-key="3" aria-keyshortcuts="3 ArrowDown" {
                    kbd aria-hidden="true" { "3" } " Equally good"
                }
                button name="preferred" value="cannot_tell" data-key="4" aria-keyshortcuts="4" {
                    kbd aria-hidden="true" { "4" } " Cannot tell"
                }
            }
            p.fine.keys hidden {
                "Keys: " kbd { "1" } " or " kbd { "←" } " left, " kbd { "2" } " or " kbd { "→" }
                " right, " kbd { "3" } " or " kbd { "↓" } " equally good, " kbd { "4" }
                " cannot tell, " kbd { "u" } " undo."
            }
            p.fine {
                strong { "Equally good" } " is an answer: it counts as half a win for each image. "
                strong { "Cannot tell" } " is none: it is kept, and counts for no image. Use it if \
                    an image is missing or you cannot judge."
            }
        }
    }
}

fn side(
    hash: Option<&str>,
    alt: &str,
    value: &str,
    key: &str,
    label: &str,
    shortcuts: &str,
) -> Markup {
    html! {
        div.side {
            div.frame { (images::image(hash.unwrap_or_default(), alt)) }
            button.main name="preferred" value=(value) data-key=(key) aria-keyshortcuts=(shortcuts) {
                kbd aria-hidden="true" { (key) } " " (label)
            }
        }
    }
}

fn finished(app: &App, session: &Session, answered: usize, without_images: bool) -> Markup {
    let other = app.questions.all().iter().find(|each| **each != session.question);
    html! {
        div.card.empty {
            @if without_images {
                p { strong { "The remaining pairs have no images." } }
                p { "Only scores of these samples were imported, so there is nothing to look at." }
            } @else if answered > 0 {
                p { strong { "You have answered every pair for this question. Thank you." } }
                @if let Some(other) = other {
                    p { a.button href=(session.address().with("question", other.as_str())) {
                        "Go on with: " (questions::name(other))
                    } }
                }
                p { a href=(Address::new("/study").with("question", session.question.as_str())) {
                    "What the votes say"
                } }
            } @else {
                p { strong { "There is nothing to compare yet." } }
                p { "Two methods must have images of the same name, which means for the same \
                    prompt. Send the images of a second method:" }
                (show::submit())
                p { a href="/runs" { "Runs of this service" } }
            }
        }
    }
}

fn others(app: &App, session: &Session) -> Markup {
    html! {
        nav.questions aria-label="Questions" {
            span.fine { "Other questions: " }
            @for each in app.questions.all().iter().filter(|each| **each != session.question) {
                a href=(session.address().with("question", each.as_str())) {
                    (questions::name(each))
                }
                " "
            }
            a.fine href=(Address::new("/vote").with("question", session.question.as_str())) {
                "Change the pseudonym"
            }
        }
    }
}

/// Reads the fields of a form, and the session that it belongs to.
async fn fields(app: &App, request: Request) -> Result<(Address, Session), ApiError> {
    let form = Address::read_form("/vote", request).await?;
    let query: NextQuery = form.query(&[
        "consent",
        "goal",
        "undo",
        "name",
        "run_a",
        "run_b",
        "repeat",
        "shown_first",
        "preferred",
        "id",
    ])?;
    let question = app.questions.of(query.question.unwrap_or_default(), Code::InvalidField)?;
    let session = Session::read(&form, question)?.ok_or_else(|| {
        let problem = "a vote needs a pseudonym and your consent: begin at /vote";
        ApiError::new(Code::InvalidField, problem)
    })?;
    Ok((form, session))
}

/// `POST /vote`: records an answer and goes on to the next pair.
pub(super) async fn cast(State(app): Shared, request: Request) -> Result<Response, ApiError> {
    let (form, session) = fields(&app, request).await?;
    let entry: PreferenceEntry = form.query(&["consent", "goal"])?;
    let (name, runs) = (entry.name.clone(), [entry.run_a, entry.run_b]);
    let is_repeat = entry.repeat == Some(true);
    preferences::respond(&app, vec![entry], |_| "the vote".to_owned()).await?;
    let own = answers(&app, &session.question, &session.annotator).await?;
    let is_it = |vote: &&Preference| {
        let of = vote.judgement.runs().map(Some);
        vote.name == name && vote.is_repeat == is_repeat && (of == runs || of == [runs[1], runs[0]])
    };
    let address = match own.iter().find(is_it) {
        Some(vote) => session.address().with("undo", vote.id),
        None => session.address(),
    };
    Ok(see_other(&address))
}

/// `POST /vote/undo`: withdraws an answer of the annotator, and shows its pair again.
pub(super) async fn withdraw(State(app): Shared, request: Request) -> Result<Response, ApiError> {
    let (form, session) = fields(&app, request).await?;
    let id = Id::<Preference>::parse(form.get("id").unwrap_or_default())?.0;
    let own = answers(&app, &session.question, &session.annotator).await?;
    let mut address = session.address();
    // A second click on "Undo" finds nothing, which is what it asks for.
    if let Some(vote) = own.iter().find(|vote| vote.id == id) {
        preferences::withdraw(&app, id).await?;
        let [a, b] = vote.judgement.runs();
        address = address.with("name", &vote.name).with("run_a", a).with("run_b", b);
        if vote.is_repeat {
            address = address.with("repeat", "true");
        }
    }
    Ok(see_other(&address))
}
