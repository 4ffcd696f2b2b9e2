//! Parameters shared by several analyses: times and the slice of samples.

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use super::error::{ApiError, Code};
use crate::store::Slice;

/// A time range.
#[derive(Debug, Default)]
pub(crate) struct Filters<'a> {
    /// Start, inclusive.
    pub(crate) since: Option<&'a str>,
    /// End, exclusive.
    pub(crate) until: Option<&'a str>,
}

impl Filters<'_> {
    /// Parses the two times.
    pub(crate) fn times(
        &self,
    ) -> Result<(Option<OffsetDateTime>, Option<OffsetDateTime>), ApiError> {
        let parse = |name: &str, text: Option<&str>| {
            let wrong = |problem: &str| {
                let sent = "send it as in 2026-03-01T00:00:00Z, with + as %2B";
                ApiError::new(
                    Code::MalformedRequest,
                    format!("{name} is not a valid time ({problem}): {sent}"),
                )
            };
            let parse = |text: &str| {
                let time = OffsetDateTime::parse(text, &Rfc3339)
                    .map_err(|error| wrong(&error.to_string()))?;
                // The last hours of 9999 in a zone west of Greenwich are in year 10000 in UTC.
                let time = time
                    .checked_to_offset(UtcOffset::UTC)
                    .filter(|time| (1..=9999).contains(&time.year()));
                time.ok_or_else(|| wrong("the year is not between 1 and 9999 in UTC"))
            };
            text.map(parse).transpose()
        };
        Ok((parse("since", self.since)?, parse("until", self.until)?))
    }
}

/// The slice filters, at most one of them set: summaries exist for single slices, not for their
/// intersections.
#[derive(Debug, Default)]
pub(crate) struct SliceFilter {
    pub(crate) prompt_kind: Option<String>,
    pub(crate) category: Option<String>,
    pub(crate) relation: Option<String>,
    pub(crate) attribute: Option<String>,
    pub(crate) size: Option<String>,
    pub(crate) detectable: Option<String>,
    pub(crate) predicate: Option<String>,
    pub(crate) template: Option<String>,
    pub(crate) fine_attribute: Option<String>,
    pub(crate) aps_attribute: Option<String>,
}

/// Names of the filters, which are the kinds of slices.
pub(crate) const SLICES: [&str; 10] = [
    Slice::PROMPT_KIND,
    Slice::CATEGORY,
    Slice::RELATION,
    Slice::ATTRIBUTE,
    Slice::SIZE,
    Slice::DETECTABLE,
    Slice::PREDICATE,
    Slice::TEMPLATE,
    Slice::FINE_ATTRIBUTE,
    Slice::APS_ATTRIBUTE,
];
const RELATIONS: [&str; 3] = ["interaction", "location", "none"];
const SIZES: [&str; 3] = ["under_512", "512_to_1023", "1024_and_more"];

impl SliceFilter {
    /// Returns the requested slice; without a filter, all samples.
    pub(crate) fn slice(self) -> Result<Slice, ApiError> {
        for (name, given, known) in
            [("relation", &self.relation, RELATIONS), ("size", &self.size, SIZES)]
        {
            if let Some(given) = given.as_deref().filter(|given| !known.contains(given)) {
                let given: String = given.chars().take(80).collect();
                return Err(ApiError::new(
                    Code::MalformedRequest,
                    format!("{name} is `{given}`: send {}", known.join(", ")),
                ));
            }
        }
        let filters = [
            (Slice::PROMPT_KIND, self.prompt_kind),
            (Slice::CATEGORY, self.category),
            (Slice::RELATION, self.relation),
            (Slice::ATTRIBUTE, self.attribute),
            (Slice::SIZE, self.size),
            (Slice::DETECTABLE, self.detectable.map(|label| label.to_lowercase())),
            (Slice::PREDICATE, self.predicate.map(|label| label.to_lowercase())),
            (Slice::TEMPLATE, self.template.map(|label| label.to_lowercase())),
            (Slice::FINE_ATTRIBUTE, self.fine_attribute),
            (Slice::APS_ATTRIBUTE, self.aps_attribute),
        ];
        let mut given =
            filters.into_iter().filter_map(|(kind, label)| Some(Slice::new(kind, label?)));
        let slice = given.next().unwrap_or_else(Slice::all);
        match given.next() {
            None => Ok(slice),
            Some(second) => Err(ApiError::new(
                Code::MalformedRequest,
                format!(
                    "{} and {} are both given, but summaries exist for single slices only: send \
                     one of {}",
                    slice.kind,
                    second.kind,
                    SLICES.join(", ")
                ),
            )),
        }
    }
}
