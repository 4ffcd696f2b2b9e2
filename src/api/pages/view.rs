//! A page as a whole: navigation, notices, content and downloads.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    address::{Address, DOWNLOAD, SHARE},
    assets,
    charts::Chart,
    portable,
    table::{Format, Table},
};
use crate::api::http::{ApiError, Code, not_found};
use crate::api::state::App;
use crate::clock;
use crate::pack_id::{PackId, Weights};

/// What pages may load and where forms may go. No inline style or script runs, and no other host is
/// asked.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Sections of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Score,
    Leaderboard,
    Runs,
    Submissions,
    Gallery,
    Correlations,
    Study,
    Vote,
    Datasets,
    Metrics,
    /// A page that no section has.
    None,
}

impl Section {
    const ALL: [Self; 10] = [
        Self::Score,
        Self::Leaderboard,
        Self::Runs,
        Self::Submissions,
        Self::Gallery,
        Self::Correlations,
        Self::Vote,
        Self::Study,
        Self::Datasets,
        Self::Metrics,
    ];

    fn link(self) -> (&'static str, &'static str) {
        match self {
            Self::Score => ("/", "Score"),
            Self::Leaderboard => ("/leaderboard", "Leaderboard"),
            Self::Runs => ("/runs", "Runs"),
            Self::Submissions => ("/submissions", "Submissions"),
            Self::Gallery => ("/gallery", "Gallery"),
            Self::Correlations => ("/correlations", "Correlations"),
            Self::Vote => ("/vote", "Vote"),
            Self::Study => ("/study", "Study"),
            Self::Datasets => ("/datasets", "Datasets"),
            Self::Metrics => ("/metrics-guide", "Metrics"),
            Self::None => ("", ""),
        }
    }
}

/// A page that is being put together.
pub(super) struct View {
    section: Section,
    title: String,
    address: Address,
    styles: Vec<&'static str>,
    scripts: Vec<&'static str>,
    wanted: Option<String>,
    share: Option<String>,
    file: Option<Response>,
    /// Whether the page shows scores of the loaded pack, or may lead to them.
    has_loaded: bool,
}

impl View {
    /// Begins a page at this address.
    pub(super) fn new(section: Section, title: impl Into<String>, address: &Address) -> Self {
        Self {
            section,
            title: title.into(),
            address: address.without(DOWNLOAD).without(SHARE),
            styles: Vec::new(),
            scripts: Vec::new(),
            wanted: address.get(DOWNLOAD).map(ToOwned::to_owned),
            share: address.get(SHARE).map(ToOwned::to_owned),
            file: None,
            has_loaded: true,
        }
    }

    /// Sets whether the page shows scores of the loaded pack; by default it may.
    pub(super) fn has_loaded(&mut self, has_loaded: bool) {
        self.has_loaded = has_loaded;
    }

    /// Adds a style sheet of `assets/pages/`.
    pub(super) fn style(mut self, name: &'static str) -> Self {
        self.styles.push(name);
        self
    }

    /// Adds a script of `assets/pages/`. It runs when the page is read.
    pub(super) fn script(mut self, name: &'static str) -> Self {
        self.scripts.push(name);
        self
    }

    /// Renders a table with its downloads.
    pub(super) fn table(&mut self, table: &Table) -> Markup {
        let name = table.name;
        for (format, word) in [(Format::Csv, "csv"), (Format::Latex, "latex")] {
            if self.wants(word, name) {
                let (kind, ending, text) = match format {
                    Format::Csv => ("text/csv; charset=utf-8", "csv", table.csv()),
                    Format::Latex => ("application/x-tex; charset=utf-8", "tex", table.latex()),
                };
                self.file = Some(file(kind, &format!("{name}.{ending}"), text));
            }
        }
        if self.is_shared() {
            return html! { div.table data-table=(name) { (table.bare()) } };
        }
        table.html(
            &self.download("csv", name).to_string(),
            &self.download("latex", name).to_string(),
        )
    }

    /// Renders a chart with its download.
    pub(super) fn chart(&mut self, chart: &Chart) -> Markup {
        if self.wants("svg", chart.name) {
            let name = format!("{}.svg", chart.name);
            self.file = Some(file("image/svg+xml", &name, chart.document()));
        }
        let download = (!self.is_shared()).then(|| self.download("svg", chart.name));
        chart.figure(download.map(|address| address.to_string()).as_deref())
    }

    /// Returns whether the page becomes one file to share: without forms, links and scripts.
    pub(super) fn is_shared(&self) -> bool {
        self.share.is_some()
    }

    /// Renders the link to the page as one file.
    pub(super) fn share(&self) -> Markup {
        html! {
            @if !self.is_shared() {
                a.button download href=(self.address.with(SHARE, "html")) { "Share as a file" }
            }
        }
    }

    /// Renders a link, which in a file to share is only its text.
    pub(super) fn link(&self, to: &Address, text: &Markup) -> Markup {
        html! { @if self.is_shared() { (text) } @else { a href=(to) { (text) } } }
    }

    /// Returns the number of rows to render: `shown` on the page, and all in a download.
    pub(super) fn most(&self, shown: usize) -> usize {
        if self.wanted.is_some() { usize::MAX } else { shown }
    }

    fn download(&self, format: &str, name: &str) -> Address {
        self.address.with(DOWNLOAD, format!("{format}:{name}"))
    }

    fn wants(&self, format: &str, name: &str) -> bool {
        self.wanted.as_deref() == Some(&*format!("{format}:{name}"))
    }

    /// Responds with the page, or with the download that was requested instead.
    pub(super) fn respond(self, app: &App, content: &Markup) -> Result<Response, ApiError> {
        if let Some(file) = self.file {
            return Ok(file);
        }
        if self.wanted.is_some() {
            return Err(not_found("such file on this page: follow a link of the page"));
        }
        if let Some(share) = &self.share {
            if share != "html" {
                let known: String = share.chars().take(80).collect();
                let problem = format!("share is `{known}`: send html");
                return Err(ApiError::new(Code::MalformedRequest, problem));
            }
            let content = portable::plain(content);
            let document = self.document(&app.scoring.pack().id(), &content);
            let name = format!("{}.html", slug(&self.title));
            return Ok(file("text/html; charset=utf-8", &name, document.into_string()));
        }
        Ok(page(&self.shell(&app.scoring.pack().id(), content)))
    }

    /// Renders one document without other parts: it can be read from a disk or an e-mail.
    fn document(&self, pack: &PackId, content: &Markup) -> Markup {
        let styles = ["style.css", "chart.css"].iter().chain(&self.styles);
        let date = clock::now().date();
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta http-equiv="Content-Security-Policy"
                        content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                    title { (self.title) " · stellar-score" }
                    style { @for name in styles { (PreEscaped(assets::text(name))) } }
                }
                body.shared {
                    @if self.has_loaded && pack.weights == Weights::Demo { (demo_notice()) }
                    main { (content) }
                    footer {
                        "stellar-score " (crate::VERSION) " · " (date) " · loaded pack " (pack.name)
                        " " code { (pack.digest) } " · weights " (pack.weights.as_str())
                    }
                }
            }
        }
    }

    fn shell(&self, pack: &PackId, content: &Markup) -> Markup {
        let digest: String = pack.digest.chars().take(12).collect();
        html! {
            (DOCTYPE)
            html lang="en" {
                (head(&self.title, &self.styles, &self.scripts))
                body {
                    (bar(self.section))
                    @if self.has_loaded && pack.weights == Weights::Demo { (demo_notice()) }
                    main #main { (content) }
                    footer {
                        "stellar-score " (crate::VERSION) " · pack " (pack.name) " "
                        code title=(pack.digest) { (digest) } " · weights " (pack.weights.as_str())
                        " · " a href="/docs/" { "API" }
                    }
                }
            }
        }
    }
}

fn demo_notice() -> Markup {
    html! {
        aside.notice.demo aria-label="Notice" {
            strong { "Demo weights: scores of the loaded pack mean nothing. " }
            "It is there to try everything, and knows nothing but the drawings of the synthetic \
                dataset. Imported scores, and those of other packs, are not concerned."
        }
    }
}

/// Returns a title as the name of a file.
fn slug(title: &str) -> String {
    let plain =
        |char: char| if char.is_ascii_alphanumeric() { char.to_ascii_lowercase() } else { '-' };
    let name: String = title.chars().map(plain).take(60).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "page".to_owned() } else { name.to_owned() }
}

/// Renders the page of an error.
pub(super) fn error(status: StatusCode, title: &str, detail: &str, request_id: &str) -> Response {
    let content = html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, &[], &[]))
            body {
                (bar(Section::None))
                main #main {
                    h1 { (title) }
                    p.lead { (detail) }
                    p.fine { "Status " (status.as_u16()) " · request " code { (request_id) } }
                    p { a href="/leaderboard" { "Leaderboard" } " · " a href="/" { "Score an image" } }
                }
            }
        }
    };
    let mut response = page(&content);
    *response.status_mut() = status;
    response
}

fn head(title: &str, styles: &[&str], scripts: &[&str]) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="robots" content="noindex";
            title { (title) " · stellar-score" }
            link rel="icon" type="image/svg+xml" href=(assets::address("icon.svg"));
            @for name in ["style.css", "chart.css"].iter().chain(styles) {
                link rel="stylesheet" href=(assets::address(name));
            }
            // Before the first paint, so that a chosen theme does not flash.
            script src=(assets::address("theme.js")) {}
            @for name in ["common.js"].iter().chain(scripts) {
                script defer src=(assets::address(name)) {}
            }
        }
    }
}

fn bar(section: Section) -> Markup {
    html! {
        a.skip href="#main" { "Skip to content" }
        header.bar {
            a.brand href="/" { (PreEscaped(STAR)) "stellar-score" }
            nav aria-label="Pages" {
                @for each in Section::ALL {
                    @let (address, label) = each.link();
                    a href=(address) aria-current=[(each == section).then_some("page")] { (label) }
                }
            }
            button #theme type="button" hidden title="Light or dark" aria-label="Switch between light and dark" { "◐" }
        }
    }
}

const STAR: &str = r#"<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 1.5l2.6 7.1 7.6.3-6 4.6 2.1 7.3-6.3-4.2-6.3 4.2 2.1-7.3-6-4.6 7.6-.3z"/></svg>"#;

/// Creates a response with a page. Pages show personal data, so that nobody but the reader's
/// browser may keep them.
fn page(content: &Markup) -> Response {
    let mut response = content.0.clone().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    protect(headers);
    response
}

/// Adds the headers that keep a response to its reader.
pub(super) fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "private, no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::VARY, "Authorization"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Responds to a form with the address that the browser goes on to.
pub(super) fn see_other(address: &Address) -> Response {
    let mut response = Redirect::to(&address.to_string()).into_response();
    protect(response.headers_mut());
    response
}

fn file(kind: &'static str, name: &str, text: String) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    protect(headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""));
    headers.insert(header::CONTENT_DISPOSITION, disposition.expect("a plain file name"));
    response
}
