//! `/vote?study=ID`: the items of a study for annotators, one at a time.

use axum::{
    extract::{Request, State},
    response::Response,
};
use maud::{Markup, html};

use super::{start, undo};
use crate::api::http::form::clean_label;
use crate::api::http::{ApiError, Code, Id};
use crate::api::pages::{
    address::Address,
    images, questions,
    view::{Section, View, see_other},
};
use crate::api::state::{App, Shared};
use crate::api::studies::{
    self,
    answers::{self, NewAnswer},
    next::{self, Done, StudyNextResponse, StudyTask},
};
use crate::store::{Question, StudyRecord};

/// Who answers in which study.
struct Session {
    study: StudyRecord,
    annotator: String,
}

impl Session {
    /// Reads the session from the parameters of the page or the fields of a form; the name is
    /// missing without a pseudonym or consent.
    async fn read(app: &App, address: &Address) -> Result<(StudyRecord, Option<String>), ApiError> {
        let id = Id::<StudyRecord>::parse(address.get("study").unwrap_or_default())?;
        let study = studies::find(app, id).await?;
        let name = address.get("annotator").map(|name| clean_label("annotator", name));
        let consents = address.get("consent") == Some("yes");
        Ok((study, name.transpose()?.filter(|_| consents)))
    }

    fn address(&self) -> Address {
        Address::new("/vote")
            .with("study", self.study.id)
            .with("annotator", &self.annotator)
            .with("consent", "yes")
    }
}

/// `GET /vote?study=`: the start page, the next item, or the end.
pub(super) async fn read(app: &App, address: &Address) -> Result<Response, ApiError> {
    let (study, annotator) = Session::read(app, address).await?;
    let mut view =
        View::new(Section::Vote, &study.plan.title, address).style("vote.css").script("vote.js");
    // Annotators see no score.
    view.has_loaded(false);
    let Some(annotator) = annotator else {
        let items = studies::most_items(app, study.id, &study.plan).await?;
        return view.respond(app, &start::of_study(address, &study, items));
    };
    let session = Session { study, annotator };
    let item = address.get("item").and_then(|item| item.parse().ok());
    let named = item.zip(address.get("question").and_then(Question::parse));
    let next = next::respond(app, &session.study, &session.annotator, named).await?;
    let content = html! {
        @match (&next.task, next.done) {
            (Some(task), _) => {
                (header(&session, &next, task))
                (ballot(&session, task))
            }
            (None, done) => (finished(&session, &next, done)),
        }
        (undo::form("/vote/study/undo", &session.address(), address.get("undo")))
    };
    view.respond(app, &content)
}

fn header(session: &Session, next: &StudyNextResponse, task: &StudyTask) -> Markup {
    let question = Question::parse(&task.question).unwrap_or(Question::Overall);
    let many = task.images.len() > 2;
    html! {
        div.ask {
            h1 { @if many { (questions::ask_many(&question)) } @else { (questions::ask(&question)) } }
            p.fine { (questions::hint(&question)) }
        }
        div.progress {
            label {
                span { (next.answered) " of " (next.quota) " as " bdi { (session.annotator) } }
                progress value=(next.answered) max=(next.quota) {
                    (next.answered) " of " (next.quota)
                }
            }
        }
    }
}

fn ballot(session: &Session, task: &StudyTask) -> Markup {
    let has = |choice: &str| task.choices.iter().any(|each| each == choice);
    let many = task.images.len() > 2;
    html! {
        form.ballot #ballot method="post" action="/vote/study" data-many[many] {
            @for (name, value) in session.address().parameters() {
                input type="hidden" name=(name) value=(value);
            }
            input type="hidden" name="item" value=(task.item);
            input type="hidden" name="question" value=(task.question);
            div.brief {
                @if let Some(prompt) = &task.prompt {
                    div.prompt {
                        h2 { "Prompt" }
                        blockquote { bdi { (prompt) } }
                    }
                }
                (start::person(&task.photos))
            }
            div.pair.many[many] {
                @for (at, image) in task.images.iter().enumerate() {
                    @let key = at + 1;
                    div.side {
                        div.frame {
                            (images::image(image.as_deref().unwrap_or_default(), &format!("Image {key}")))
                        }
                        button.main name="choice" value=(key) data-key=(key) aria-keyshortcuts=(key) {
                            kbd aria-hidden="true" { (key) } " Image " (key) " is "
                            @if many { "the best" } @else { "better" }
                        }
                    }
                }
            }
            @if has("tie") || has("cannot_tell") {
                div.neither {
                    @if has("tie") {
                        button name="choice" value="tie" data-key="e" aria-keyshortcuts="e" {
                            kbd aria-hidden="true" { "e" } " Equally good"
                        }
                    }
                    @if has("cannot_tell") {
                        button name="choice" value="cannot_tell" data-key="c" aria-keyshortcuts="c" {
                            kbd aria-hidden="true" { "c" } " Cannot tell"
                        }
                    }
                }
            }
            p.fine.keys hidden {
                "Keys: " kbd { "1" } " to " kbd { (task.images.len()) } " choose an image, "
                @if has("tie") { kbd { "e" } " equally good, " }
                @if has("cannot_tell") { kbd { "c" } " cannot tell, " }
                kbd { "u" } " undo."
            }
        }
    }
}

fn finished(session: &Session, next: &StudyNextResponse, done: Option<Done>) -> Markup {
    html! {
        h1 { bdi { (session.study.plan.title) } }
        div.card.empty {
            @match done {
                Some(Done::NotOpen) => {
                    p { strong { "This study is not open." } }
                    p { "Nobody is asked now. The people who run it open and close it." }
                }
                Some(Done::Excluded) => {
                    p { strong { "You are asked nothing more in this study." } }
                    p { "Ask the people who run it if you think that this is a mistake." }
                }
                _ => {
                    p { strong { "That is all. Thank you." } }
                    p { "You have answered " (next.answered)
                        @if next.answered == 1 { " item." } @else { " items." } }
                }
            }
            @if let Some(code) = &next.completion_code {
                p { "Your completion code:" }
                p.big { code #completion { (code) } }
                p.fine {
                    "Enter it where you came from"
                    // The code of all annotators is one of a platform.
                    @if session.study.plan.completion_code.is_some() { ", so that you are paid." }
                    @else { ", if you are asked for a code." }
                }
            }
        }
    }
}

/// Reads the fields of a form, and the session that it belongs to.
async fn fields(app: &App, request: Request) -> Result<(Address, Session), ApiError> {
    let form = Address::read_form("/vote", request).await?;
    let (study, annotator) = Session::read(app, &form).await?;
    let annotator = annotator.ok_or_else(|| {
        let problem =
            "an answer needs a pseudonym and your consent: begin at the link of the study";
        ApiError::new(Code::InvalidField, problem)
    })?;
    Ok((form, Session { study, annotator }))
}

/// `POST /vote/study`: records an answer and goes on to the next item.
pub(crate) async fn cast(State(app): Shared, request: Request) -> Result<Response, ApiError> {
    let (form, session) = fields(&app, request).await?;
    let new: NewAnswer = form.query(&["study", "consent"])?;
    let recorded = answers::respond(&app, &session.study, new).await?;
    Ok(see_other(&session.address().with("undo", recorded.id)))
}

/// `POST /vote/study/undo`: withdraws an answer of the annotator, and shows its item again.
pub(crate) async fn withdraw(State(app): Shared, request: Request) -> Result<Response, ApiError> {
    let (form, session) = fields(&app, request).await?;
    let id = form.get("id").unwrap_or_default();
    let withdrawn = answers::remove(&app, &session.study, id, &session.annotator).await?;
    // A second click on "Undo" finds nothing, which is what it asks for.
    let address = match withdrawn {
        Some(answer) => {
            let question = answer.question.as_str();
            session.address().with("item", answer.item).with("question", question)
        }
        None => session.address(),
    };
    Ok(see_other(&address))
}
