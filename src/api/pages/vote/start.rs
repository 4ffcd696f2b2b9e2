//! The start pages of `/vote`: what is asked, what is recorded, and under which pseudonym; and the
//! person whom both kinds of ballot show.

use maud::{Markup, html};
use uuid::Uuid;

use crate::api::pages::{address::Address, images, questions};
use crate::api::state::App;
use crate::store::{Question, StudyRecord};

/// Maximum number of photos of the person that are shown.
const MOST_PHOTOS: usize = 4;

const CALM: [&str; 16] = [
    "amber", "brisk", "calm", "clear", "early", "fair", "gentle", "keen", "light", "mild", "quiet",
    "rapid", "silver", "steady", "warm", "wide",
];

const NAMES: [&str; 16] = [
    "badger", "crane", "dolphin", "falcon", "gecko", "heron", "ibex", "lark", "lynx", "marten",
    "otter", "plover", "robin", "seal", "swift", "wren",
];

pub(super) fn page(app: &App, address: &Address, question: &Question) -> Markup {
    let known = address.get("annotator");
    let pseudonym = known.map_or_else(suggestion, ToOwned::to_owned);
    html! {
        h1 { "Vote" }
        p.lead {
            "You see two images that were made for the same prompt, and choose one. Votes show which \
                method people prefer, and which metrics agree with people."
        }
        form.card.start method="get" action="/vote" {
            h2 { "Before you begin" }
            ul {
                li { "You see no scores and no names of methods, and the side of each image is random." }
                li { "Some pairs come twice. Answer as you see them then: this measures how certain \
                    such votes are, not you." }
                li { "There is no right answer and no time limit. Stop when you like." }
            }
            h3 { "What is recorded" }
            p {
                "Your answer, its time, which image was on the left, and your pseudonym. No cookie is \
                    set. The audit log of this service also has the time and the network address \
                    of each answer."
            }
            p {
                "To have all your answers deleted, tell the operator your pseudonym. Do not use your \
                    name."
            }
            @if let Some(goal) = address.get("goal") {
                input type="hidden" name="goal" value=(goal);
            }
            div.fields {
                label { "Pseudonym"
                    input type="text" name="annotator" required maxlength="100" value=(pseudonym)
                        autocomplete="off" spellcheck="false";
                }
                label { "Question" (questions::select(&app.questions, question)) }
            }
            p.fine { "Keep the same pseudonym when you come back: it tells which pairs you have seen." }
            label.check {
                input type="checkbox" name="consent" value="yes" required;
                " I have read this, and agree that my answers are stored and published under the \
                    pseudonym."
            }
            p { button.main { "Begin" } }
        }
    }
}

/// Renders photos of the person, if there are any.
pub(super) fn person(photos: &[String]) -> Markup {
    html! {
        @if !photos.is_empty() {
            div.person {
                h2 { "The person" }
                div.photos {
                    @for (at, photo) in photos.iter().take(MOST_PHOTOS).enumerate() {
                        (images::image(photo, &format!("Photo {} of the person", at + 1)))
                    }
                }
            }
        }
    }
}

/// Renders the start page of a study, in which an annotator is asked about so many items at most.
pub(super) fn of_study(address: &Address, study: &StudyRecord, items: usize) -> Markup {
    let pseudonym = address.get("annotator").map_or_else(suggestion, ToOwned::to_owned);
    let plan = &study.plan;
    html! {
        h1 { bdi { (plan.title) } }
        p.lead {
            "You see " (plan.images()) " images that were made for the same prompt, and choose "
            @if plan.images() == 2 { "the better one." } @else { "the best one." }
            " You are asked about " @if items == 1 { "1 item" } @else { "at most " (items) " items" }
            @if plan.questions.len() > 1 { ", with " (plan.questions.len()) " questions about each" } "."
        }
        form.card.start method="get" action="/vote" {
            h2 { "Before you begin" }
            input type="hidden" name="study" value=(study.id);
            @if let Some(consent) = &plan.consent {
                @for line in consent.lines().filter(|line| !line.trim().is_empty()) {
                    p { bdi { (line) } }
                }
            } @else {
                ul {
                    li { "You see no scores and no names of methods, and the order of the images is \
                        random." }
                    li { "There is no time limit. Stop when you like." }
                }
            }
            h3 { "What is recorded" }
            p {
                "Your answers, their times, the order of the images, and your pseudonym. No cookie is \
                    set. The audit log of this service also has the time and the network address of \
                    each answer. Exports have other pseudonyms and no times."
            }
            @if plan.gold.is_some() {
                p { "Some items have a known right answer. Answers of people who miss too many of \
                    them are not counted." }
            }
            p { "To have all your answers deleted, tell the people who run the study your pseudonym. \
                Do not use your name." }
            div.fields {
                label { "Pseudonym"
                    input type="text" name="annotator" required maxlength="100" value=(pseudonym)
                        autocomplete="off" spellcheck="false";
                }
            }
            p.fine { strong { "Write this name down" } ": you need it to continue." }
            label.check {
                input type="checkbox" name="consent" value="yes" required;
                " I have read this and agree."
            }
            p { button.main { "Begin" } }
        }
    }
}

/// Returns a random pseudonym. The last bytes of a new id are random.
fn suggestion() -> String {
    let random = *Uuid::now_v7().as_bytes();
    let pick = |words: [&'static str; 16], byte: u8| words[usize::from(byte % 16)];
    let number = u16::from_le_bytes([random[14], random[15]]) % 1_000;
    format!("{}-{}-{number:03}", pick(CALM, random[12]), pick(NAMES, random[13]))
}
