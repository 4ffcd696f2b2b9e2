//! Parsers for the text files of the download and of the Stellar prompts. Each file is parsed as a
//! whole, and an error names the number of the invalid line.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Values of one image by column name, in file order.
pub(super) type Labels = Vec<(String, i64)>;

/// Description of an invalid line.
type Wrong = String;

/// Returns the number of an image: `12.jpg` is 12.
pub(super) fn image_number(name: &str) -> Option<u32> {
    name.split_once('.')?.0.parse().ok()
}

fn numbered(line: usize, name: &str) -> Result<u32, Wrong> {
    image_number(name)
        .ok_or_else(|| format!("line {line}: {name:?} is not an image name like 12.jpg"))
}

/// Parses `celebahq_ids.txt`: a header, then an image and its split per line. Returns the split by
/// image.
pub(super) fn splits(text: &str) -> Result<BTreeMap<u32, String>, Wrong> {
    let mut splits = BTreeMap::new();
    for (at, line) in text.trim_matches('\n').lines().enumerate().skip(1) {
        let (at, mut cells) = (at + 1, line.trim_end().split(','));
        let image = numbered(at, cells.next().unwrap_or_default())?;
        let split = cells.next().unwrap_or_default();
        if !matches!(split, "test" | "val") {
            return Err(format!("line {at}: the split is {split:?}: it must be test or val"));
        }
        if splits.insert(image, split.to_owned()).is_some() {
            return Err(format!("line {at}: image {image} occurs twice"));
        }
    }
    if splits.is_empty() {
        return Err("it names no images".to_owned());
    }
    Ok(splits)
}

/// Parses `CelebAMask-HQ-attribute-anno.txt`: the number of images, the names of the attributes,
/// then one image per line.
pub(super) fn attributes(text: &str) -> Result<HashMap<u32, Labels>, Wrong> {
    let mut lines = text.trim_matches('\n').lines().enumerate().skip(1);
    let (_, header) = lines.next().ok_or("it ends before the names of the attributes")?;
    let names: Vec<&str> = header.split_whitespace().collect();
    lines.map(|(at, line)| labels(at + 1, &names, line.split_whitespace())).collect()
}

/// Parses `combined_annotation_hq.txt`: columns separated by tabs, with the image in the first
/// column.
pub(super) fn finegrained(text: &str) -> Result<HashMap<u32, Labels>, Wrong> {
    let mut lines = text.trim_matches('\n').lines().enumerate();
    let (_, header) = lines.next().ok_or("it is empty")?;
    let cells = |line: &'_ str| line.trim_end_matches('\r').trim_matches('\t').to_owned();
    let header = cells(header);
    let names: Vec<&str> = header.split('\t').skip(1).collect();
    lines.map(|(at, line)| labels(at + 1, &names, cells(line).split('\t'))).collect()
}

fn labels<'a>(
    line: usize,
    names: &[&str],
    mut cells: impl Iterator<Item = &'a str>,
) -> Result<(u32, Labels), Wrong> {
    let image = numbered(line, cells.next().unwrap_or_default())?;
    let values: Vec<&str> = cells.collect();
    if values.len() != names.len() {
        return Err(format!("line {line}: {} values for {} attributes", values.len(), names.len()));
    }
    let value = |(name, value): (&&str, &&str)| match value.trim().parse() {
        Ok(value) => Ok(((*name).to_owned(), value)),
        Err(_) => Err(format!("line {line}: {name} is {value:?}, which is not an integer")),
    };
    Ok((image, names.iter().zip(&values).map(value).collect::<Result<_, _>>()?))
}

/// Parses `identity_CelebA-HQ.txt`: an image and its person's number per line, in file order.
pub(super) fn identities(text: &str) -> Result<Vec<(u32, i64)>, Wrong> {
    let mut seen = HashMap::new();
    let mut list = Vec::new();
    for (at, line) in text.trim_matches('\n').lines().enumerate() {
        let (at, mut cells) = (at + 1, line.split_whitespace());
        let image = numbered(at, cells.next().unwrap_or_default())?;
        let person = cells.next().unwrap_or_default();
        let person = person
            .parse()
            .map_err(|_| format!("line {at}: {person:?} is not a person's number"))?;
        if seen.insert(image, at).is_some() {
            return Err(format!("line {at}: image {image} occurs twice"));
        }
        list.push((image, person));
    }
    Ok(list)
}

/// The prompts of one identity, in the format of the file in its folder.
#[expect(clippy::struct_field_names, reason = "the keys of the file")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Prompts {
    pub(super) prompts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) detectables: Option<Vec<Vec<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) categories: Option<Vec<Vec<String>>>,
    /// All other keys of the file.
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

/// Parses `stellar_t.json` and `stellar_h.json`: prompts by the identity's folder.
pub(super) fn prompts(text: &str) -> Result<BTreeMap<String, Prompts>, Wrong> {
    let all: BTreeMap<String, Prompts> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    for (identity, of) in &all {
        let count = of.prompts.len();
        if count == 0 {
            return Err(format!("identity {identity} has no prompts"));
        }
        for (key, list) in [("detectables", &of.detectables), ("categories", &of.categories)] {
            if let Some(list) = list.as_ref().filter(|list| list.len() != count) {
                return Err(format!(
                    "identity {identity} has {count} prompts and {} {key}",
                    list.len()
                ));
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_read_by_image_after_the_header() {
        let read = splits("file,split\n7.jpg,test\n12.jpg,val,more\n").unwrap();
        assert_eq!(read, BTreeMap::from([(7, "test".to_owned()), (12, "val".to_owned())]));
    }

    #[test]
    fn attributes_are_read_by_the_names_of_the_second_line() {
        let read = attributes("2\nYoung Male\n0.jpg  1 -1\n1.jpg -1  1\n").unwrap();
        assert_eq!(read[&1], [("Young".to_owned(), -1), ("Male".to_owned(), 1)]);
    }

    #[test]
    fn finegrained_attributes_are_separated_by_tabs() {
        let read = finegrained("name\tBangs\tSmiling\n5.jpg\t0\t5\t\n").unwrap();
        assert_eq!(read[&5], [("Bangs".to_owned(), 0), ("Smiling".to_owned(), 5)]);
    }

    #[test]
    fn identities_keep_the_order_of_the_file() {
        assert_eq!(identities("9.jpg 4\n3.jpg 4\n").unwrap(), [(9, 4), (3, 4)]);
    }

    #[test]
    fn an_invalid_line_is_reported_with_its_number() {
        for (problem, words) in [
            (splits("h\n1.jpg,test\n1.jpg,val").unwrap_err(), "line 3: image 1 occurs twice"),
            (splits("h\n1.jpg,train").unwrap_err(), "line 2: the split is \"train\""),
            (splits("h\nx,test").unwrap_err(), "line 2: \"x\" is not an image name"),
            (splits("file,split\n").unwrap_err(), "names no images"),
            (
                attributes("1\nYoung Male\n0.jpg 1").unwrap_err(),
                "line 3: 1 values for 2 attributes",
            ),
            (attributes("1\nYoung\n0.jpg yes").unwrap_err(), "line 3: Young is \"yes\""),
            (attributes("1").unwrap_err(), "ends before"),
            (finegrained("n\tBangs\n0.jpg\tx").unwrap_err(), "line 2: Bangs is \"x\""),
            (identities("0.jpg x").unwrap_err(), "line 1: \"x\" is not a person's number"),
            (identities("0.jpg 1\n0.jpg 2").unwrap_err(), "line 2: image 0 occurs twice"),
            (prompts(r#"{"000": {"prompts": []}}"#).unwrap_err(), "identity 000 has no prompts"),
            (
                prompts(r#"{"000": {"prompts": ["a"], "detectables": []}}"#).unwrap_err(),
                "1 prompts and 0 detectables",
            ),
        ] {
            assert!(problem.contains(words), "{problem}");
        }
    }
}
