//! The people of a dataset, and how alike their photos are.

use maud::{Markup, html};

use crate::api::datasets::consistency::ConsistencyResponse;
use crate::api::datasets::people::{OutlierEntry, PersonEntry};
use crate::api::http::encode;
use crate::api::pages::{
    charts::strip::{self, Dot},
    number,
    table::{Cell, Column, Row, Table},
    view::View,
};
use crate::metrics::{Disagreement, NoConsistency};

/// Maximum number of people that are shown.
const MOST: usize = 100;

/// Maximum number of people that are named in the warning.
const MOST_NAMED: usize = 10;

/// Maximum number of photos of a person that are named.
const MOST_REMARKS: usize = 5;

/// Maximum number of dots of the chart.
const MOST_DOTS: usize = 600;

/// Warns of people whose photos disagree.
pub(super) fn warning(people: &[PersonEntry]) -> Markup {
    let doubtful: Vec<_> = people.iter().filter(|person| person.disagreement.is_some()).collect();
    html! {
        @if !doubtful.is_empty() {
            div.note.warn role="note" {
                p {
                    strong {
                        "The photos of " (doubtful.len())
                        @if doubtful.len() == 1 { " person" } @else { " people" } " disagree: "
                    }
                    @for (at, person) in doubtful.iter().take(MOST_NAMED).enumerate() {
                        @if at > 0 { ", " }
                        bdi { (person.identity) }
                    }
                    @if doubtful.len() > MOST_NAMED { " and others" }
                    ". A photo of somebody else spoils every score of identity for that person. "
                    a href="#people" { "Look at them" } " before you trust " code { "ips" } " and "
                    code { "sis" } "."
                }
            }
        }
    }
}

pub(super) fn section(view: &mut View, of: &ConsistencyResponse) -> Markup {
    if of.people.is_empty() {
        return html! {
            h2 #people { "The people" }
            p { "No photo is enrolled. " code { "stellar-score dataset register FOLDER" } " sends them." }
        };
    }
    let mut people: Vec<&PersonEntry> = of.people.iter().collect();
    // Those to look at first.
    people.sort_by(|a, b| {
        let order = |of: &PersonEntry| (of.disagreement.is_none(), of.consistency.is_none());
        let value = |of: &PersonEntry| of.consistency.unwrap_or_default();
        order(a).cmp(&order(b)).then_with(|| value(a).total_cmp(&value(b)))
    });
    let dots: Vec<Dot> = of
        .people
        .iter()
        .filter_map(|person| {
            let value = person.consistency?;
            let label = format!("{}: {}", person.identity, number::rounded(value, 3));
            Some(Dot { label, value, is_marked: person.disagreement.is_some() })
        })
        .collect();
    html! {
        h2 #people { "Do the photos of each person agree?" }
        p {
            strong { "Consistency" } " is the mean similarity of a person’s photos to each other: each \
                photo is compared with the others as " code { "ips" } " compares an image with \
                reference images. A real photo of the person, sent as if it were generated, would get \
                about this " code { "ips" } ": it is the level to compare generators with. "
            a href=(format!("/v1/datasets/{}/consistency", encode(&of.dataset))) { "All people as JSON" }
        }
        @if dots.len() > 1 && dots.len() <= MOST_DOTS {
            @let marked = dots.iter().filter(|dot| dot.is_marked).count();
            @let text = format!("One dot for each of {} people, {marked} of them with photos that \
                disagree, in another colour. The table has the numbers.", dots.len());
            (view.chart(&strip::chart("consistency", "Consistency of the photos, one dot a person", text, &dots)))
        }
        (view.table(&table(&people[..people.len().min(view.most(MOST))])))
        @if people.len() > MOST {
            p.fine { "The first " (MOST) " of " (number::count(people.len() as u64)) " people: those \
                whose photos disagree, then the least alike. The downloads have all of them." }
        }
    }
}

fn table(people: &[&PersonEntry]) -> Table {
    let count = |count: usize| Cell::number(Some(count as f64), number::count(count as u64));
    let row = |of: &&PersonEntry| {
        let value = |value: Option<f64>| {
            let missing = || of.reason.map_or("—", reason).to_owned();
            Cell::number(value, value.map_or_else(missing, |value| number::rounded(value, 3)))
        };
        Row {
            class: if of.disagreement.is_some() { "doubtful" } else { "" },
            cells: vec![
                Cell::text(&*of.identity).shown(html! { bdi { (of.identity) } }).head(),
                count(of.photos),
                count(of.with_face),
                value(of.consistency),
                least_alike(of),
                remarks(of),
            ],
        }
    };
    Table {
        name: "people",
        caption: "People by the consistency of their photos".to_owned(),
        columns: vec![
            Column::text("person"),
            Column::number("photos"),
            Column::number("with a face"),
            Column::number("consistency"),
            Column::number("least alike photo"),
            Column::text("remarks"),
        ],
        rows: people.iter().map(row).collect(),
    }
}

fn least_alike(of: &PersonEntry) -> Cell {
    let Some((value, name)) = of.lowest.zip(of.lowest_photo.as_ref()) else {
        return Cell::number(None, "—");
    };
    let shown = number::rounded(value, 3);
    Cell::number(Some(value), &*shown).shown(html! { (shown) " (photo " bdi { (name) } ")" })
}

fn remarks(of: &PersonEntry) -> Cell {
    match of.disagreement {
        None => Cell::text(""),
        Some(Disagreement::LowConsistency) => {
            Cell::text("far below the other people of this dataset")
        }
        Some(Disagreement::OutlierPhotos) => {
            let photo =
                |of: &OutlierEntry| format!("photo {} looks more like {}", of.name, of.closer_to);
            let text = of.outliers.iter().map(photo).collect::<Vec<_>>().join("; ");
            Cell::text(text).shown(html! {
                @for (at, photo) in of.outliers.iter().take(MOST_REMARKS).enumerate() {
                    @if at > 0 { "; " }
                    "photo " bdi { (photo.name) } " looks more like " bdi { (photo.closer_to) }
                }
                @if of.outliers.len() > MOST_REMARKS {
                    "; and " (of.outliers.len() - MOST_REMARKS) " more"
                }
            })
        }
    }
}

/// Says why there is no consistency.
fn reason(reason: NoConsistency) -> &'static str {
    match reason {
        NoConsistency::FacesNotStored => "faces not stored",
        NoConsistency::NoFace => "no face found",
        NoConsistency::OnePhoto => "one photo with a face",
        NoConsistency::TooManyPhotos => "over 500 photos",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_whose_photos_disagree_are_named_and_their_photos_too() {
        let person = |identity: &str, disagreement| PersonEntry {
            identity: identity.to_owned(),
            photos: 3,
            with_face: 3,
            unknown: 0,
            consistency: Some(0.4),
            reason: None,
            lowest: Some(0.1),
            lowest_photo: Some("2".to_owned()),
            disagreement,
            outliers: Vec::new(),
        };
        assert_eq!(warning(&[person("a", None)]).into_string(), "");
        let outlier = OutlierEntry {
            name: "<i>2".to_owned(),
            image: String::new(),
            similarity: Some(0.1),
            closer_to: "<b>else".to_owned(),
        };
        let mut doubtful = person("<script>", Some(Disagreement::OutlierPhotos));
        doubtful.outliers = vec![outlier];
        let text = warning(&[person("a", None), doubtful.clone()]).into_string();
        assert!(text.contains("1 person disagree") && text.contains("&lt;script&gt;"), "{text}");
        let html = remarks(&doubtful).shown.unwrap().into_string();
        assert!(html.contains("&lt;i&gt;2") && html.contains("&lt;b&gt;else"), "{html}");
        assert_eq!(remarks(&doubtful).value, "photo <i>2 looks more like <b>else");
        assert_eq!(remarks(&person("a", None)).value, "");
    }
}
