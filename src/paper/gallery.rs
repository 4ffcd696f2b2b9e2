//! Images side by side, with a dot for each metric.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{ImageFormat, codecs::png::PngEncoder};
use maud::{Markup, html};

use super::{
    board::digits,
    part::{File, Part},
    people::short,
    source::{Answered, Source},
};
use crate::api::analysis::gallery::{GalleryImage, GalleryResponse, GalleryRowEntry};
use crate::client::ClientError;
use crate::figures::charts::{Chart, clip};
use crate::figures::table::{Cell, Column, Row, Table, latex};

/// Longest side of an image in the figure, in pixels.
const SIDE: u32 = 256;

/// Folder of the images, which has nothing else.
pub(super) const FOLDER: &str = "figures/gallery";

/// Width of a column of the drawing.
const COLUMN: f64 = 150.0;
const GAP: f64 = 12.0;
const DOT: f64 = 9.0;

/// Longest prompt, in characters.
const PROMPT: usize = 160;
const NAME: usize = 22;

/// Images as PNG by their hash.
type Images = BTreeMap<String, Vec<u8>>;

/// Why images are placeholders; nothing if they may be shown.
pub(super) type Withheld = Option<String>;

/// Reads the images and returns the figure.
pub(super) async fn part(
    source: Source<'_>,
    answer: &Answered<GalleryResponse>,
    withheld: &Withheld,
) -> Result<Part, ClientError> {
    let of = &answer.of;
    let mut images = Images::new();
    let mut absent = 0;
    if withheld.is_none() {
        for hash in hashes(of) {
            match image(source, hash).await? {
                Some(png) => drop(images.insert(hash.to_owned(), png)),
                None => absent += 1,
            }
        }
    }
    let names: Vec<&str> = of.metrics.iter().map(|code| short(code)).collect();
    let caption = format!(
        "Images of the same prompts. Dots, in this order: {}. A dot is filled where the metric ranks \
         the image first in its row, by the scores as measured; there is none without a score.{}",
        latex(&names.join(", ")),
        if withheld.is_some() { " Images may not be shown here." } else { "" }
    );
    let mut part = Part::new("gallery", "Gallery", caption)
        .requested(&answer.request)
        .tex(&tex(of, &images))
        .csv(&lines(of, withheld.is_none()))
        .svg("gallery", chart(of, &images).document());
    for (hash, png) in images {
        part.files.push(File { path: path(&hash), bytes: png });
    }
    part.remarks.extend(withheld.clone());
    if absent > 0 {
        part.remarks.push(format!(
            "{absent} images are placeholders, since the service keeps no thumbnail of them \
             (`store.thumbnails`)"
        ));
    }
    Ok(part)
}

fn hashes(of: &GalleryResponse) -> impl Iterator<Item = &str> {
    of.rows.iter().flat_map(|row| {
        let shown = row.images.iter().flatten().filter_map(|image| image.brief.image.as_deref());
        row.reference.as_deref().into_iter().chain(shown)
    })
}

/// Reads a thumbnail as PNG; nothing if there is none.
async fn image(source: Source<'_>, hash: &str) -> Result<Option<Vec<u8>>, ClientError> {
    // The hash becomes the name of a file.
    if hash.is_empty() || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    match source.client.send(&["images", hash], reqwest::Client::get).await {
        Ok(answer) => Ok(png(&answer.body)),
        Err(
            ClientError::Problem { status: 404, .. } | ClientError::Foreign { status: 404, .. },
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Converts a thumbnail to PNG, which LaTeX can include.
fn png(webp: &[u8]) -> Option<Vec<u8>> {
    let image = image::load_from_memory_with_format(webp, ImageFormat::WebP).ok()?;
    let mut bytes = Vec::new();
    image.thumbnail(SIDE, SIDE).to_rgb8().write_with_encoder(PngEncoder::new(&mut bytes)).ok()?;
    Some(bytes)
}

fn path(hash: &str) -> String {
    format!("{FOLDER}/{hash}.png")
}

/// Images of a row with their captions: that of the person, and those of the methods.
struct Shown<'a> {
    hash: Option<&'a str>,
    caption: String,
    image: Option<&'a GalleryImage>,
}

fn shown<'a>(of: &'a GalleryResponse, row: &'a GalleryRowEntry) -> Vec<Shown<'a>> {
    let person =
        Shown { hash: row.reference.as_deref(), caption: "The person".to_owned(), image: None };
    let methods = of.runs.iter().zip(&row.images).map(|(run, image)| Shown {
        hash: image.as_ref().and_then(|image| image.brief.image.as_deref()),
        caption: clip(&run.method, NAME),
        image: image.as_ref(),
    });
    std::iter::once(person).chain(methods).collect()
}

fn prompt(row: &GalleryRowEntry) -> String {
    clip(row.prompt.as_deref().unwrap_or(&row.name), PROMPT)
}

fn chart(of: &GalleryResponse, images: &Images) -> Chart {
    let columns = of.runs.len() + 1;
    let per_line = ((COLUMN / DOT) as usize).max(1);
    let lines = of.metrics.len().div_ceil(per_line).max(1) as f64;
    let height = 24.0 + COLUMN + 20.0 + DOT * lines + 18.0;
    let width = GAP + columns as f64 * (COLUMN + GAP);
    let content = html! {
        @for (at, row) in of.rows.iter().enumerate() {
            @let top = height * at as f64;
            text x=(GAP) y=(top + 17.0) { (clip(&prompt(row), (width / 7.5) as usize)) }
            @for (place, shown) in shown(of, row).iter().enumerate() {
                @let x = GAP + place as f64 * (COLUMN + GAP);
                (picture(shown, images, x, top + 24.0))
                text.quiet x=(x) y=(top + 24.0 + COLUMN + 15.0) { (shown.caption) }
                @if let Some(image) = shown.image {
                    (dots(&of.metrics, image, x, top + 24.0 + COLUMN + 24.0, per_line))
                }
            }
        }
    };
    Chart {
        name: "gallery",
        title: "The same prompts, side by side".to_owned(),
        description: format!(
            "{} rows of images: the person, then {} methods. Below each image is a dot for each of \
             {} metrics, filled where the metric ranks the image first in its row.",
            of.rows.len(),
            of.runs.len(),
            of.metrics.len()
        ),
        size: (width, height * of.rows.len() as f64 + GAP),
        content,
    }
}

fn picture(shown: &Shown<'_>, images: &Images, x: f64, y: f64) -> Markup {
    let data = shown.hash.and_then(|hash| images.get(hash));
    html! {
        @if let Some(png) = data {
            image x=(x) y=(y) width=(COLUMN) height=(COLUMN)
                href=(format!("data:image/png;base64,{}", STANDARD.encode(png))) {}
        } @else {
            rect.grid fill="none" x=(x) y=(y) width=(COLUMN) height=(COLUMN) {}
            text.quiet.middle x=(x + COLUMN / 2.0) y=(y + COLUMN / 2.0) {
                @if shown.hash.is_some() { "image withheld" } @else { "no image" }
            }
        }
    }
}

fn dots(metrics: &[String], image: &GalleryImage, x: f64, y: f64, per_line: usize) -> Markup {
    html! {
        @for (at, code) in metrics.iter().enumerate() {
            @let cx = x + DOT * ((at % per_line) as f64 + 0.5);
            @let cy = y + DOT * (at / per_line) as f64;
            @if image.first.contains(code) {
                circle.dot cx=(cx) cy=(cy) r="3.2" { title { (short(code)) ": first" } }
            } @else if image.scores.contains_key(code) {
                circle.hollow cx=(cx) cy=(cy) r="3.2" { title { (short(code)) } }
            }
        }
    }
}

fn tex(of: &GalleryResponse, images: &Images) -> String {
    let columns = of.runs.len() + 1;
    let width = format!("{:.3}\\linewidth", 0.94 / columns as f64);
    let mut text = format!(
        "% Needs \\usepackage{{graphicx}}\n\\begin{{tabular}}{{@{{}}{}@{{}}}}\n",
        format!("p{{{width}}}").repeat(columns)
    );
    for row in &of.rows {
        let all = shown(of, row);
        let _ = writeln!(
            text,
            "\\multicolumn{{{columns}}}{{@{{}}p{{0.98\\linewidth}}@{{}}}}{{\\footnotesize {}}} \\\\",
            latex(&prompt(row))
        );
        let pictures = all.iter().map(|each| {
            if let Some(hash) = each.hash.filter(|hash| images.contains_key(*hash)) {
                return format!("\\includegraphics[width=\\linewidth]{{{}}}", path(hash));
            }
            let words = if each.hash.is_some() { "image withheld" } else { "no image" };
            format!(
                "\\fbox{{\\parbox[c][0.8\\linewidth][c]{{0.8\\linewidth}}{{\\centering\\scriptsize \
                 {words}}}}}"
            )
        });
        let _ = writeln!(text, "{} \\\\", pictures.collect::<Vec<_>>().join(" & "));
        let captions = all.iter().map(|each| {
            let dots = each.image.map(|image| tex_dots(&of.metrics, image)).unwrap_or_default();
            format!("\\scriptsize {} {dots}", latex(&each.caption))
        });
        let _ = writeln!(text, "{} \\\\[6pt]", captions.collect::<Vec<_>>().join(" & "));
    }
    text.push_str("\\end{tabular}\n");
    text
}

fn tex_dots(metrics: &[String], image: &GalleryImage) -> String {
    let dots = metrics.iter().map(|code| {
        if image.first.contains(code) {
            "\\bullet"
        } else if image.scores.contains_key(code) {
            "\\circ"
        } else {
            "\\cdot"
        }
    });
    // Between the dots, a line may break.
    let dots: Vec<String> = dots.map(|dot| format!("${dot}$")).collect();
    format!("\\newline {}", dots.join("\\hspace{0pt}"))
}

/// Returns a line for each image. People are named only if their photos may be shown.
fn lines(of: &GalleryResponse, has_people: bool) -> Table {
    let of_metrics = of.metrics.iter().flat_map(|code| [code.clone(), format!("{code}_first")]);
    let heads = ["name", "prompt", "identity", "method", "run", "image"];
    let heads = heads.into_iter().filter(|head| has_people || *head != "identity");
    let columns = heads.map(str::to_owned).chain(of_metrics).map(Column::text).collect();
    let mut rows: Vec<Row> = Vec::new();
    for row in &of.rows {
        for (run, image) in of.runs.iter().zip(&row.images) {
            let Some(image) = image else { continue };
            let optional = |text: &Option<String>| Cell::text(text.clone().unwrap_or_default());
            let mut cells = vec![Cell::text(&*row.name), optional(&row.prompt)];
            cells.extend(has_people.then(|| optional(&row.identity)));
            cells.extend([
                Cell::text(&*run.method),
                Cell::text(&*run.run),
                optional(&image.brief.image),
            ]);
            cells.extend(of.metrics.iter().flat_map(|code| {
                let score = image.scores.get(code);
                [digits(score), digits(score.map(|_| image.first.contains(code)))]
            }));
            rows.push(cells.into());
        }
    }
    Table { name: "gallery", caption: String::new(), columns, rows }
}
