//! `GET /`: scores an image of the reader's, or the example.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    response::{IntoResponse as _, Redirect, Response},
};
use bytes::Bytes;
use maud::{Markup, html};

use super::{
    address::Address,
    assets,
    view::{self, Section, View},
};
use crate::api::http::form::{Form, examine};
use crate::api::http::{ApiError, drain};
use crate::api::score::{self, ScoreResponse};
use crate::api::state::{App, Shared};
use crate::config::Limits;
use crate::metrics::REGISTRY;
use crate::scoring::{Metadata, Sample};

/// The example: an image, an image of the person, the prompt and its objects. NASA's portrait of
/// Eileen Collins is in the public domain.
const IMAGE: &str = "example.jpg";
const REFERENCE: &str = "example-face.jpg";
const PROMPT: &str = "a person in a space suit holding a helmet";
const OBJECTS: [&str; 2] = ["space suit", "helmet"];

/// Responds with the form.
pub(super) async fn form(
    State(app): Shared,
    address: Address,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let view =
        View::new(Section::Score, "Score an image", &address).style("score.css").script("score.js");
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let base = format!("http://{}", host.unwrap_or("127.0.0.1:8080"));
    let has_keys = app.store.has_keys().await?;
    let content = html! {
        h1 { "Score an image" }
        p.lead {
            "stellar-score measures how well an image from a text-to-image generator shows a given \
                person and follows its prompt. Drop an image with its prompt and a photo of the \
                person: every score comes with the evidence behind it. Samples under a method's name \
                also count on the " a href="/leaderboard" { "leaderboard" } "."
        }
        div.score {
            (fields(&app))
            aside aria-label="Example and other ways" {
                (example_card())
                (privacy(&app))
            }
        }
        (elsewhere(&base, has_keys))
    };
    view.respond(&app, &content)
}

/// Leads back to the form, for a reader who reloads the page of an error.
pub(super) async fn to_form() -> Redirect {
    Redirect::to("/")
}

/// `POST /score`: scores what was filled in, and leads to the sample.
pub(super) async fn submit(State(app): Shared, request: Request) -> Result<Response, ApiError> {
    let scored = drain::whole(request, |request| {
        score::respond(&app, Form::read_page(request, &app.limits))
    });
    Box::pin(scored).await.map(|scored| to_sample(&scored))
}

/// `POST /score/example`: scores the example, and leads to its sample.
pub(super) async fn example(State(app): Shared, request: Request) -> Result<Response, ApiError> {
    let scored =
        drain::whole(request, |_| score::respond(&app, async { example_form(&app.limits) }));
    Box::pin(scored).await.map(|scored| to_sample(&scored))
}

fn to_sample(scored: &ScoreResponse) -> Response {
    let mut response = Redirect::to(&format!("/samples/{}", scored.sample)).into_response();
    view::protect(response.headers_mut());
    response
}

fn example_form(limits: &Limits) -> Result<Form, ApiError> {
    let file = |name: &str| examine(Bytes::from(assets::bytes(name)), name, limits);
    Ok(Form {
        sample: Sample {
            image: file(IMAGE)?,
            prompt: Some(PROMPT.to_owned()),
            references: vec![file(REFERENCE)?],
            auxiliary: Vec::new(),
            metadata: Metadata {
                detectables: OBJECTS.map(str::to_owned).into(),
                ..Metadata::default()
            },
            dataset: None,
        },
        metrics: REGISTRY.iter().collect(),
        method: None,
        run: None,
        name: None,
        evidence: false,
    })
}

fn fields(app: &App) -> Markup {
    let image_mib = app.limits.image_mib;
    html! {
        form #score.card method="post" action="/score" enctype="multipart/form-data" {
            h2 { "Your sample" }
            div.drops {
                (drop_zone("image", "Generated image", "Required. PNG, JPEG or WebP.", false))
                (drop_zone(
                    "reference", "Reference images",
                    "The person, as the generator was given. Needed for identity scores.", true,
                ))
            }
            label.field {
                span { "Prompt" }
                textarea name="prompt" rows="2"
                    placeholder="The text that the image was generated from" {}
            }
            label.field {
                span { "Objects to find " span.fine { "separated by commas" } }
                input type="text" name="detectables" placeholder="skateboard, helmet";
            }
            details {
                summary { "Method, run and more" }
                div.pair {
                    label.field {
                        span { "Method " span.fine { "the sample counts on its leaderboard row" } }
                        input type="text" name="method" autocomplete="off";
                    }
                    label.field {
                        span { "Run " span.fine { "needs a method" } }
                        input type="text" name="run" placeholder="default" autocomplete="off";
                    }
                }
                label.field {
                    span { "Name of the sample " span.fine { "default: its content hash" } }
                    input type="text" name="name" autocomplete="off";
                }
                (drop_zone(
                    "auxiliary", "Auxiliary images",
                    "Further images of the person, which the generator was not given.", true,
                ))
                label.field {
                    span { "Metadata " span.fine { "as JSON" } }
                    textarea.code name="metadata" rows="3" spellcheck="false"
                        placeholder="{\"identity\": \"000\", \"categories\": [\"sports\"]}" {}
                }
            }
            div.submit {
                button.main type="submit" { "Score" }
                span.fine { "At most " (image_mib) " MiB an image. The first score takes longest." }
            }
            p.status role="status" hidden {}
            progress hidden aria-label="Progress" {}
            p.note.bad role="alert" hidden {}
        }
    }
}

fn drop_zone(name: &'static str, label: &str, hint: &str, several: bool) -> Markup {
    html! {
        div.drop data-drop=(name) {
            label for=(name) { strong { (label) } }
            p.fine #(format!("{name}-hint")) { (hint) span.js hidden { " Drop or paste it here." } }
            input type="file" #(name) name=(name) multiple[several] required[name == "image"]
                accept="image/png,image/jpeg,image/webp" aria-describedby=(format!("{name}-hint"));
            div.previews {}
        }
    }
}

fn example_card() -> Markup {
    html! {
        form #example.card method="post" action="/score/example" {
            h2 { "Example" }
            p.fine { "See what a score looks like. The prompt: “" (PROMPT) "”." }
            div.pictures {
                figure {
                    img src=(assets::address(IMAGE)) width="160" height="160"
                        alt="An astronaut in an orange suit in front of a flag" data-of="image";
                    figcaption.fine { "generated" }
                }
                figure {
                    img src=(assets::address(REFERENCE)) width="160" height="160"
                        alt="The face of the same person" data-of="reference[0]";
                    figcaption.fine { "reference" }
                }
            }
            button type="submit" { "Score this example" }
            p.status role="status" hidden {}
            p.note.bad role="alert" hidden {}
        }
    }
}

fn privacy(app: &App) -> Markup {
    html! {
        div.card {
            h2 { "What is stored" }
            p.fine {
                "The scores, the prompt, and the hashes of the images. "
                @if app.keeping.has_thumbnails() {
                    "Small copies of the images, so that pages can show them. "
                } @else {
                    "Not the images: only your browser keeps small copies, until this tab is closed. "
                }
                "Evidence, such as the boxes of faces, expires."
            }
        }
    }
}

/// The same request without a page. The script fills in what the form has.
fn elsewhere(base: &str, has_keys: bool) -> Markup {
    let curl_key =
        if has_keys { " -H \"Authorization: Bearer $STELLAR_KEY\" \\\n    " } else { "" };
    let python_key = if has_keys {
        "\n    headers={\"Authorization\": \"Bearer \" + os.environ[\"STELLAR_KEY\"]},"
    } else {
        ""
    };
    let import = if has_keys { "import os\n\n" } else { "" };
    html! {
        section.elsewhere #elsewhere data-keys=[has_keys.then_some("1")] {
            h2 { "The same from a program" }
            p.fine { "Filled in with what the form has. The fields are described in the "
                a href="/docs/" { "API" } "." }
            div.programs {
                div {
                    h3 { "curl" button.copy type="button" data-copy="curl" hidden { "Copy" } }
                    pre #curl tabindex="0" {
                        "curl" (curl_key) " -F image=@image.png -F prompt='…' \\\n"
                        "     -F reference=@person.jpg -F evidence=true \\\n"
                        "     " (base) "/v1/score"
                    }
                }
                div {
                    h3 { "Python" button.copy type="button" data-copy="python" hidden { "Copy" } }
                    pre #python tabindex="0" {
                        (import) "import requests\n\n"
                        "response = requests.post(\n    \"" (base) "/v1/score\"," (python_key) "\n"
                        "    files=[\n        (\"image\", open(\"image.png\", \"rb\")),\n"
                        "        (\"reference\", open(\"person.jpg\", \"rb\")),\n    ],\n"
                        "    data={\"prompt\": \"…\", \"evidence\": \"true\"},\n)\n"
                        "print(response.json()[\"scores\"])"
                    }
                }
            }
        }
    }
}
