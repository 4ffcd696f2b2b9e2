//! The images of a sample, with the evidence drawn on them.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::super::{images, number};
use crate::api::samples::{SampleResponse, StoredEvidence};
use crate::scoring::{FaceEvidence, ImageFaces, RelationEvidence};
use crate::service::Evidence;

/// Most reference and most auxiliary images that are shown.
const MOST_PHOTOS: usize = 12;

/// Most boxes of each kind that are drawn.
const MOST_BOXES: usize = 40;

/// Size of an image, and of a label on it, in its pixels.
#[derive(Clone, Copy)]
struct Frame {
    width: f64,
    height: f64,
    font: f64,
}

impl Frame {
    /// The generated image is shown large.
    fn large(size: [u32; 2]) -> Self {
        Self::new(size, 30.0)
    }

    fn small(size: [u32; 2]) -> Self {
        Self::new(size, 18.0)
    }

    /// Creates the frame of an image whose longer side is so many lines of labels long.
    fn new(size: [u32; 2], lines: f64) -> Self {
        let [width, height] = size.map(f64::from);
        Self { width, height, font: width.max(height) / lines }
    }
}

/// A box: left, top, right, bottom in pixels.
type Corners = [f64; 4];

/// Renders the generated image beside the images of the person.
pub(super) fn images(
    sample: &SampleResponse,
    stored: Option<&StoredEvidence>,
    has_thumbnails: bool,
) -> Markup {
    let evidence = stored.map(|of| &of.evidence);
    let faces = |of: &str| evidence.and_then(|all| all.faces.iter().find(|faces| faces.of == of));
    html! {
        div.images {
            (layers(evidence))
            div.sample-images {
                figure.generated {
                    @match &sample.image {
                        Some(image) => {
                            (canvas(
                                "image", &image.hash, "The generated image",
                                [image.width, image.height],
                                &drawn(evidence, Frame::large([image.width, image.height])),
                            ))
                        }
                        None => {
                            div.card.empty { p { "No image: the scores were imported." } }
                        }
                    }
                    figcaption { "Generated image" }
                }
                div.photos {
                    (photos("reference", "Reference", &sample.references, evidence, faces))
                    (photos("auxiliary", "Auxiliary", &sample.auxiliary, evidence, faces))
                    @if sample.references.is_empty() && sample.auxiliary.is_empty() {
                        div.card.empty {
                            p { "No image of the person was sent, so nothing says whom the image \
                                should show." }
                        }
                    }
                }
            }
            @if !has_thumbnails && sample.image.is_some() {
                p.fine.not-kept {
                    "This service keeps no images. Whoever runs it can set "
                    code { "store.thumbnails = 384" } ": images that are scored from then on are shown."
                }
            }
            p.fine.kept hidden {
                "These images are copies in your browser, until this tab is closed."
            }
        }
    }
}

fn photos<'a>(
    kind: &str,
    label: &str,
    hashes: &[String],
    evidence: Option<&Evidence>,
    faces: impl Fn(&str) -> Option<&'a ImageFaces>,
) -> Markup {
    html! {
        @for (at, hash) in hashes.iter().enumerate().take(MOST_PHOTOS) {
            @let of = format!("{kind}[{at}]");
            @let alt = format!("{label} image {}", at + 1);
            @let found = faces(&of);
            figure {
                @match found.and_then(|found| Some((found, found.size?))) {
                    Some((found, size)) => {
                        (canvas(&of, hash, &alt, size, &photo_layers(found, evidence, &of, Frame::small(size))))
                    }
                    None => {
                        div data-of=(of) { (images::image(hash, &alt)) }
                    }
                }
                figcaption {
                    (label) " " (at + 1)
                    @if let Some(found) = found {
                        span.fine { " · " (face_count(found.faces.len())) }
                    }
                }
            }
        }
        @if hashes.len() > MOST_PHOTOS {
            p.fine { "and " (hashes.len() - MOST_PHOTOS) " more" }
        }
    }
}

fn face_count(count: usize) -> String {
    match count {
        0 => "no face found".to_owned(),
        1 => "1 face".to_owned(),
        _ => format!("{count} faces"),
    }
}

/// The switches of the layers. Style sheets read them, so that they work without a script.
fn layers(evidence: Option<&Evidence>) -> Markup {
    let Some(evidence) = evidence else { return html! {} };
    let has_faces = evidence.faces.iter().any(|of| !of.faces.is_empty());
    let has_objects = evidence.objects.iter().any(|object| object.corners.is_some());
    let has_relations = evidence.relations.iter().any(|of| of.subject_box.is_some());
    // Boxes of relations cover most of an image.
    let switch = |id: &str, label: &str, class: &str| {
        html! {
            label.switch {
                input type="checkbox" id=(id) checked[class != "relation"] autocomplete="off";
                span.swatch.(class) {} (label)
            }
        }
    };
    html! {
        @if has_faces || has_objects || has_relations {
            fieldset.layers {
                legend.fine { "Show on the images" }
                @if has_faces { (switch("show-faces", "Faces", "face")) }
                @if has_objects { (switch("show-objects", "Objects", "object")) }
                @if has_relations { (switch("show-relations", "Relations", "relation")) }
            }
        } @else {
            p.fine { "Nothing to draw: neither faces, objects nor relations were found." }
        }
    }
}

/// An image with a drawing on it, both in pixels of the upright image.
fn canvas(of: &str, hash: &str, alt: &str, [width, height]: [u32; 2], layers: &Markup) -> Markup {
    html! {
        svg.canvas viewBox=(format!("0 0 {width} {height}")) preserveAspectRatio="xMinYMin meet"
            role="img" aria-label=(alt) {
            // The inner one cuts off boxes that are partly beyond the image.
            svg width=(width) height=(height) {
                rect.ground width=(width) height=(height) {}
                image data-of=(of) href=(images::address(hash)) width=(width) height=(height) {}
                (layers)
            }
        }
    }
}

/// The layers of the generated image.
fn drawn(evidence: Option<&Evidence>, frame: Frame) -> Markup {
    let Some(evidence) = evidence else { return html! {} };
    let faces = evidence.faces.iter().find(|of| of.of == "image");
    html! {
        g.layer-objects {
            @for object in evidence.objects.iter().take(MOST_BOXES) {
                @if let Some(corners) = object.corners {
                    @let label = labelled(&object.label, object.score);
                    (boxed("object", corners, &label, frame))
                }
            }
        }
        g.layer-relations {
            @for relation in evidence.relations.iter().take(MOST_BOXES) {
                (arrow(relation, frame))
            }
        }
        @if let Some(faces) = faces {
            g.layer-faces {
                @for (at, face) in faces.faces.iter().enumerate().take(MOST_BOXES) {
                    (marked(face, &face_label(at, face, None), frame))
                }
            }
        }
    }
}

/// The faces of an image of the person, with their similarity to the generated face.
fn photo_layers(found: &ImageFaces, evidence: Option<&Evidence>, of: &str, frame: Frame) -> Markup {
    let pairs = evidence.into_iter().flat_map(|all| all.matches.values().flatten());
    let cosines: BTreeMap<usize, f64> =
        pairs.filter(|pair| pair.photo == of).map(|pair| (pair.photo_face, pair.cosine)).collect();
    html! {
        g.layer-faces {
            @for (at, face) in found.faces.iter().enumerate().take(MOST_BOXES) {
                (marked(face, &face_label(at, face, cosines.get(&at).copied()), frame))
            }
        }
    }
}

fn face_label(at: usize, face: &FaceEvidence, cosine: Option<f64>) -> String {
    let number = at + 1;
    match cosine {
        Some(cosine) => format!("face {number}: {} similar", number::rounded(cosine, 2)),
        None => format!("face {number}: {}", number::percent(face.probability.into())),
    }
}

fn labelled(label: &str, score: Option<f64>) -> String {
    // Long labels are in the table.
    let mut short: String = label.chars().take(24).collect();
    if short.len() < label.len() {
        short.push('…');
    }
    match score {
        Some(score) => format!("{short} {}", number::percent(score)),
        None => short,
    }
}

/// A face with its landmarks.
fn marked(face: &FaceEvidence, label: &str, frame: Frame) -> Markup {
    let [left, _, _, bottom] = face.corners.map(f64::from);
    html! {
        (outline("face", face.corners.map(f64::from)))
        // Below the box: those of objects are above.
        (text_at("face", left, bottom + frame.font, label, frame))
        @for [x, y] in face.landmarks {
            circle.face cx=(rounded(x.into())) cy=(rounded(y.into())) r=(rounded(frame.font * 0.2)) {}
        }
    }
}

/// A relation as an arrow from the person to the object.
fn arrow(relation: &RelationEvidence, frame: Frame) -> Markup {
    let (Some(subject), Some(object)) = (relation.subject_box, relation.object_box) else {
        return html! {};
    };
    let middle = |[left, top, right, bottom]: Corners| {
        [f64::midpoint(left, right), f64::midpoint(top, bottom)]
    };
    let ([x1, y1], [x2, y2]) = (middle(subject), middle(object));
    let text = format!("{} {}", relation.predicate, relation.object);
    let label = labelled(&text, relation.score);
    html! {
        (outline("relation", subject))
        (outline("relation", object))
        line.relation x1=(rounded(x1)) y1=(rounded(y1)) x2=(rounded(x2)) y2=(rounded(y2)) {}
        circle.relation cx=(rounded(x2)) cy=(rounded(y2)) r=(rounded(frame.font * 0.4)) {}
        (text_at("relation", f64::midpoint(x1, x2), f64::midpoint(y1, y2), &label, frame))
    }
}

fn outline(class: &str, [left, top, right, bottom]: Corners) -> Markup {
    html! {
        rect.(class) x=(rounded(left)) y=(rounded(top))
            width=(rounded((right - left).max(0.0))) height=(rounded((bottom - top).max(0.0))) {}
    }
}

fn boxed(class: &str, corners: Corners, label: &str, frame: Frame) -> Markup {
    let [left, top, ..] = corners;
    html! {
        (outline(class, corners))
        (text_at(class, left, top - frame.font * 0.3, label, frame))
    }
}

/// A label within the image.
fn text_at(class: &str, x: f64, y: f64, label: &str, frame: Frame) -> Markup {
    let Frame { width, height, font } = frame;
    // How wide letters are, on average.
    let length = label.chars().count() as f64 * font * 0.6;
    let x = x.min(width - length).max(font * 0.2);
    let y = y.max(font).min(height - font * 0.3);
    html! {
        text.(class) x=(rounded(x)) y=(rounded(y)) font-size=(rounded(font)) { (label) }
    }
}

/// Rounds a position to a hundredth of a pixel at most, and what no browser could draw to 0.
fn rounded(value: f64) -> String {
    if !value.is_finite() || value.abs() > 1e7 {
        return "0".to_owned();
    }
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stay_within_the_image_and_are_escaped() {
        let drawn =
            text_at("face", 990.0, -5.0, "<b> & co", Frame::large([1000, 500])).into_string();
        assert!(drawn.contains("&lt;b&gt; &amp; co"), "{drawn}");
        let x: f64 =
            drawn.split("x=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
        assert!(x < 1000.0 - 8.0 * 16.0, "{drawn}");
        assert!(drawn.contains("y=\"33.3\""), "{drawn}");
    }

    #[test]
    fn positions_that_are_not_finite_are_drawn_at_the_edge() {
        let drawn = outline("face", [f64::NAN, 1.26, f64::INFINITY, 3.0]).into_string();
        assert!(drawn.contains(r#"x="0" y="1.3" width="0" height="1.7""#), "{drawn}");
    }

    #[test]
    fn long_labels_are_cut() {
        assert_eq!(labelled(&"é".repeat(30), Some(0.5)), format!("{}… 50 %", "é".repeat(24)));
        assert_eq!(labelled("dog", None), "dog");
    }
}
