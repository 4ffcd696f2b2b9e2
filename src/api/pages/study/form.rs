//! The form of a new study.

use maud::{Markup, html};

use crate::api::pages::{address::Address, questions};
use crate::api::runs::RunResponse;
use crate::api::state::App;
use crate::api::studies::create::{MOST_CONSENT, MOST_RUNS};

/// Fields whose characters are checked with the plan, so that an error keeps what was filled in.
pub(super) const TEXTS: [&str; 10] = [
    "name",
    "title",
    "dataset",
    "split",
    "kind",
    "people",
    "names",
    "gold",
    "consent",
    "completion_code",
];

/// Limit of the form in bytes: thousands of names fit.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// Images and answers of an item that empty fields stand for.
pub(super) const IMAGES: u32 = 4;
pub(super) const ANSWERS: u32 = 3;

/// What the form is filled in with.
pub(super) struct Filled<'a> {
    /// The fields that were sent, or the address of the page.
    pub(super) fields: &'a Address,
    /// Whether the form was sent. A box that is not checked is not sent.
    pub(super) is_sent: bool,
}

impl Filled<'_> {
    fn value(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_default()
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.fields.all(name).any(|each| each == value)
    }

    /// Returns whether a box is checked; `by_default` before the form is sent.
    fn checks(&self, name: &str, value: &str, by_default: bool) -> bool {
        self.has(name, value) || (by_default && !self.is_sent)
    }

    fn text(&self, name: &str, label: &str, hint: &str) -> Markup {
        html! {
            label { (label)
                input type="text" name=(name) placeholder=(hint) maxlength="256" value=(self.value(name));
            }
        }
    }

    fn number(&self, name: &str, label: &str, hint: &str, range: [&str; 3]) -> Markup {
        let [least, most, step] = range;
        html! {
            label { (label)
                input type="number" name=(name) min=(least) max=(most) step=(step) placeholder=(hint)
                    value=(self.value(name));
            }
        }
    }

    fn area(&self, name: &str, label: &str, hint: &str, rows: u8, most: Option<usize>) -> Markup {
        html! {
            label.area { (label)
                textarea name=(name) rows=(rows) maxlength=[most] placeholder=(hint) {
                    (self.value(name))
                }
            }
        }
    }
}

/// Renders the form. `runs` are those to choose from.
pub(super) fn form(app: &App, runs: &[RunResponse], filled: &Filled<'_>) -> Markup {
    html! {
        form.card.study method="post" action="/study/new" {
            (compared(runs, filled))
            (asked(app, filled))
            (prompts(filled))
            (often(filled))
            (gold(filled))
            (annotators(filled))
            p.fine { "The study begins as a draft that nobody is asked about: look at it, then open it. \
                A plan cannot be changed; make another study instead." }
            p { button.main { "Create the draft" } }
        }
    }
}

fn compared(runs: &[RunResponse], filled: &Filled<'_>) -> Markup {
    html! {
        fieldset {
            legend { "What is compared" }
            p.fine { "One run of each method, 2 to " (MOST_RUNS) ". They are compared on the samples whose \
                names they all have." }
            div.choices {
                @for run in runs {
                    label.check {
                        input type="checkbox" name="runs" value=(run.run_id)
                            checked[filled.has("runs", &run.run_id.to_string())];
                        span {
                            bdi { (run.method) } " / " bdi { (run.run) } " "
                            span.fine {
                                @if let Some(dataset) = &run.dataset { bdi { (dataset) } ", " }
                                (run.counts.scored) " samples"
                            }
                        }
                    }
                }
            }
        }
    }
}

fn asked(app: &App, filled: &Filled<'_>) -> Markup {
    // Several images if a number was computed for several.
    let k = filled.value("k").parse().unwrap_or(IMAGES);
    let form = match filled.value("form") {
        "" if k > 2 => "best_of",
        form => form,
    };
    let ask = if form == "best_of" { questions::ask_many } else { questions::ask };
    html! {
        fieldset {
            legend { "What is asked" }
            div.fields {
                label { "Name"
                    input type="text" name="name" required maxlength="256" value=(filled.value("name"));
                }
                (filled.text("title", "Title for annotators", "the name"))
                label { "Form"
                    select name="form" {
                        option value="pairs" { "pairs: which is better?" }
                        option value="best_of" selected[form == "best_of"] {
                            "best of k: which is the best?"
                        }
                    }
                }
                (filled.number("k", "k, of best of k", &IMAGES.to_string(), ["2", "8", "1"]))
            }
            div.choices {
                @for (at, each) in app.questions.all().iter().enumerate() {
                    label.check {
                        input type="checkbox" name="questions" value=(each.as_str())
                            checked[filled.checks("questions", each.as_str(), at == 0)];
                        span { (questions::name(each)) " " span.fine { (ask(each)) } }
                    }
                }
            }
            p.fine { "At most 8 questions, which follow each other about each item. The operator adds \
                questions (" code { "analysis.questions" } ")." }
            div.choices {
                label.check {
                    input type="checkbox" name="cannot_tell" value="yes"
                        checked[filled.checks("cannot_tell", "yes", true)];
                    "“Cannot tell” is an answer"
                }
                label.check {
                    input type="checkbox" name="ties" value="yes"
                        checked[filled.checks("ties", "yes", false)];
                    "“Equally good” is an answer (pairs only)"
                }
            }
        }
    }
}

fn prompts(filled: &Filled<'_>) -> Markup {
    html! {
        fieldset {
            legend { "About which prompts" }
            p.fine { "Without a choice: all names that the runs have in common." }
            div.fields {
                (filled.text("dataset", "Dataset of the runs", "any"))
                (filled.text("split", "Split of the runs", "any"))
                (filled.text("kind", "Kind of the prompts", "all"))
                (filled.text("people", "People, separated by commas", "all"))
                (filled.number("sample", "Samples to draw", "all", ["1", "10000", "1"]))
                (filled.number("seed", "Seed", "0", ["0", "4294967295", "1"]))
            }
            (filled.area("names", "Names of samples, one a line", "all", 2, None))
        }
    }
}

fn often(filled: &Filled<'_>) -> Markup {
    let count = |name, label, hint: &str| filled.number(name, label, hint, ["1", "1000", "1"]);
    html! {
        fieldset {
            legend { "How often" }
            div.fields {
                (count("answers_per_item", "Answers about an item", &ANSWERS.to_string()))
                (count("quota", "Items of an annotator, at most", "1000"))
                (count("sets_per_prompt", "Items for a prompt", "by the form"))
            }
        }
    }
}

fn gold(filled: &Filled<'_>) -> Markup {
    html! {
        fieldset {
            legend { "Items with known right answers" }
            p.fine { "They find annotators who answer at random. One item a line: the name of the samples, \
                the method whose image is right, and the methods of the other images, separated by \
                commas. The others can be left out if an item shows all methods. " code { "method / run" }
                " names any other run of this service, such as one with bad images. The "
                a href="/gallery" { "gallery" } " shows names of samples." }
            (filled.area("gold", "Gold items, one a line", "000-0-00, StarNet\n000-0-02, Kamon", 4, None))
            div.fields {
                (filled.number("gold_share", "Share that must be right", "0.7", ["0", "1", "any"]))
                (filled.number("gold_least", "after so many answers to them", "3, or all", ["1", "100", "1"]))
                (filled.number("gold_every", "One of so many items is one", "10", ["2", "100", "1"]))
            }
        }
    }
}

fn annotators(filled: &Filled<'_>) -> Markup {
    let hint = "Who asks and for what, how long it takes, what is paid, whom to ask. Without a text of \
        yours, annotators read that of this service.";
    html! {
        fieldset {
            legend { "What annotators read" }
            (filled.area("consent", "What they agree to; each line is a paragraph", hint, 6, Some(MOST_CONSENT)))
            div.fields {
                label { "Completion code"
                    input type="text" name="completion_code" maxlength="64"
                        placeholder="one for each annotator" value=(filled.value("completion_code"));
                }
            }
        }
    }
}
