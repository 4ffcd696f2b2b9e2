//! The questions put to annotators, in words.

use std::borrow::Cow;

use maud::{Markup, html};

use crate::api::questions::Questions;
use crate::store::Question;

/// Returns the question as it is asked about two images.
pub(super) fn ask(question: &Question) -> Cow<'static, str> {
    match question {
        Question::Overall => "Which image is better overall?".into(),
        Question::Object => "Which image shows the objects of the prompt better?".into(),
        Question::Relation => "Which image shows better what the prompt says happens?".into(),
        Question::Identity => "Which image looks more like the person?".into(),
        Question::Own(word) => format!("Which image is better: {}?", word.replace('_', " ")).into(),
    }
}

/// Returns the question as it is asked about several images.
pub(super) fn ask_many(question: &Question) -> Cow<'static, str> {
    match question {
        Question::Overall => "Which image is best overall?".into(),
        Question::Object => "Which image shows the objects of the prompt best?".into(),
        Question::Relation => "Which image shows best what the prompt says happens?".into(),
        Question::Identity => "Which image looks most like the person?".into(),
        Question::Own(word) => {
            format!("Which image is the best: {}?", word.replace('_', " ")).into()
        }
    }
}

/// Returns a hint that says what to look at.
pub(super) fn hint(question: &Question) -> &'static str {
    match question {
        Question::Overall => "Take everything into account: the prompt, the person, the quality.",
        Question::Object => {
            "Are the things that the prompt names there, and are they easy to recognise?"
        }
        Question::Relation => {
            "Is the person doing what the prompt says, or in the place that it says?"
        }
        Question::Identity => {
            "Compare the faces with the photos. Ignore the prompt and the quality of the image."
        }
        Question::Own(_) => "The people who run this study tell you what to look at.",
    }
}

/// Returns the name of a question.
pub(super) fn name(question: &Question) -> String {
    match question {
        Question::Overall => "Overall".to_owned(),
        Question::Object => "Objects".to_owned(),
        Question::Relation => "Relations".to_owned(),
        Question::Identity => "Identity".to_owned(),
        Question::Own(word) => {
            let words = word.replace('_', " ");
            let mut chars = words.chars();
            chars.next().map_or(String::new(), |first| {
                first.to_ascii_uppercase().to_string() + chars.as_str()
            })
        }
    }
}

/// Renders a choice of the question.
pub(super) fn select(questions: &Questions, chosen: &Question) -> Markup {
    html! {
        select name="question" {
            @for each in questions.all() {
                option value=(each.as_str()) selected[each == chosen] { (name(each)) }
            }
        }
    }
}
