//! Content of a page for a file that leaves the service: without links, forms and scripts, and with
//! images only if their datasets allow it.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use maud::{Markup, PreEscaped};
use uuid::Uuid;

use crate::api::datasets::showing;
use crate::api::http::ApiError;
use crate::api::state::App;
use crate::content::ContentHash;

/// Maximum number of images in a file. Others have a placeholder.
const MOST_IMAGES: usize = 200;

/// Elements that are left out with their content.
const LEFT_OUT: [&str; 4] = ["form", "button", "script", "nav"];

/// Prepares content for a file to share; on a page it stays as it is. Images are included if those
/// of all runs may be shown to others.
pub(super) async fn content(
    is_shared: bool,
    app: &App,
    content: Markup,
    runs: impl IntoIterator<Item = Uuid>,
) -> Result<Markup, ApiError> {
    if !is_shared {
        return Ok(content);
    }
    let mut images = HashMap::new();
    if showing::withheld(app, runs).await?.is_none() {
        for hash in hashes(&content.0).take(MOST_IMAGES) {
            let Some(of) = ContentHash::from_hex(hash) else { continue };
            if let Some(webp) = app.store.thumbnail(of).await? {
                images.insert(hash, format!("data:image/webp;base64,{}", STANDARD.encode(webp)));
            }
        }
    }
    Ok(PreEscaped(rewrite(&content.0, |hash| images.get(hash).map(String::as_str))))
}

/// Returns content without links, forms, scripts and images, for a page that has not prepared it.
pub(super) fn plain(content: &Markup) -> Markup {
    PreEscaped(rewrite(&content.0, |_| None))
}

/// Returns the hashes of the images that a page shows.
fn hashes(html: &str) -> impl Iterator<Item = &str> {
    html.split("src=\"/images/").skip(1).filter_map(|rest| rest.split('"').next())
}

/// Rewrites HTML that maud has rendered: no text and no attribute has a raw `<` or `>`.
fn rewrite<'a>(html: &'a str, image: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    let (mut svg, mut links) = (0_usize, Vec::new());
    while let Some(start) = rest.find('<') {
        text.push_str(&rest[..start]);
        let Some(end) = rest[start..].find('>').map(|end| start + end + 1) else { break };
        let tag = &rest[start..end];
        rest = &rest[end..];
        let name = tag.trim_start_matches(['<', '/']);
        let name = &name[..name.find([' ', '>', '/']).unwrap_or(name.len())];
        let is_end = tag.starts_with("</");
        match name {
            _ if LEFT_OUT.contains(&name) => {
                let close = format!("</{name}>");
                rest = rest.find(&close).map_or("", |at| &rest[at + close.len()..]);
            }
            "a" if is_end => text.push_str(links.pop().unwrap_or("</a>")),
            "a" if attribute(tag, "href").is_none_or(|to| to.starts_with('#')) => {
                links.push("</a>");
                text.push_str(tag);
            }
            "a" => {
                let (open, close) = if svg > 0 { ("<g>", "</g>") } else { ("<span>", "</span>") };
                links.push(close);
                text.push_str(open);
            }
            "img" => {
                let alt = attribute(tag, "alt").unwrap_or_default();
                let source = attribute(tag, "src").unwrap_or_default();
                let included = source.strip_prefix("/images/").and_then(&image);
                let included = included.or_else(|| source.starts_with("data:").then_some(source));
                if let Some(data) = included {
                    text.push_str("<img class=\"thumbnail\" src=\"");
                    text.push_str(data);
                    text.push_str("\" alt=\"");
                    text.push_str(alt);
                    text.push_str("\">");
                } else {
                    text.push_str("<span class=\"thumbnail withheld\">Image not included: ");
                    text.push_str(alt);
                    text.push_str("</span>");
                }
            }
            _ => {
                if name == "svg" {
                    svg = if is_end { svg.saturating_sub(1) } else { svg + 1 };
                }
                text.push_str(tag);
            }
        }
    }
    text.push_str(rest);
    text
}

/// Returns the value of an attribute, escaped as it is.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    tag[start..].split('"').next()
}

#[cfg(test)]
mod tests {
    use maud::html;

    use super::*;

    #[test]
    fn links_forms_and_scripts_are_left_out_and_texts_stay() {
        let page = html! {
            h1 { "<a href=x>" }
            form method="get" { input name="a"; button { "Show" } }
            p { a href="/runs/1" { strong { "one" } } " and " a href="#here" { "here" } }
            svg { a href="/x" { circle r="1" {} } }
            button { "Copy" }
            p title="a > b" { "end" }
        };
        assert_eq!(
            rewrite(&page.0, |_| None),
            "<h1>&lt;a href=x&gt;</h1><p><span><strong>one</strong></span> and \
             <a href=\"#here\">here</a></p><svg><g><circle r=\"1\"></circle></g></svg>\
             <p title=\"a &gt; b\">end</p>"
        );
    }

    #[test]
    fn images_are_included_or_replaced_by_their_description() {
        let page = html! { img src="/images/ab" alt="\"x\" <y>"; img src="/images/cd" alt="z"; };
        assert_eq!(hashes(&page.0).collect::<Vec<_>>(), ["ab", "cd"]);
        let found = rewrite(&page.0, |hash| (hash == "ab").then_some("data:x"));
        assert_eq!(
            found,
            "<img class=\"thumbnail\" src=\"data:x\" alt=\"&quot;x&quot; &lt;y&gt;\">\
             <span class=\"thumbnail withheld\">Image not included: z</span>"
        );
    }
}
