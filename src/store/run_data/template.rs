//! The template of a prompt: its text without the objects.

/// Stands for an object in a template.
const OBJECT: &str = "[object]";

/// Returns a prompt's text in lower case with `[object]` in place of each of its detectables.
///
/// Detectables are found as whole words, the longest first, in the singular or with a plural `s`.
/// Prompts from one template, such as those of Stellar-T, then have one text. Returns `None` if the
/// text has none of them: such a prompt is not known to be from a template.
pub(super) fn template(text: &str, detectables: &[String]) -> Option<String> {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    let mut objects: Vec<Vec<String>> = detectables
        .iter()
        .map(|object| object.split_whitespace().map(str::to_lowercase).collect())
        .filter(|object: &Vec<String>| !object.is_empty())
        .collect();
    objects.sort_by_key(|object| std::cmp::Reverse(object.len()));
    let (mut found, mut at, mut has_object) = (Vec::new(), 0, false);
    while at < words.len() {
        let rest = &words[at..];
        if let Some(object) = objects.iter().find(|object| begins_with(rest, object)) {
            let last = &rest[object.len() - 1];
            // Punctuation after the object stays.
            let end = last.trim_end_matches(is_mark).len();
            found.push(format!("{OBJECT}{}", &last[end..]));
            (at, has_object) = (at + object.len(), true);
        } else {
            found.push(rest[0].clone());
            at += 1;
        }
    }
    has_object.then(|| found.join(" "))
}

fn is_mark(c: char) -> bool {
    c.is_ascii_punctuation()
}

/// Returns whether a text begins with the words of an object.
fn begins_with(words: &[String], object: &[String]) -> bool {
    let Some((last, first)) = object.split_last() else { return false };
    let Some(end) = words.get(first.len()) else { return false };
    let end = end.trim_end_matches(is_mark);
    words.starts_with(first) && (end == last || end.strip_suffix('s') == Some(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, objects: &[&str]) -> Option<String> {
        template(text, &objects.iter().map(|&object| object.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn objects_are_replaced_and_other_words_stay() {
        let horse = of("a person riding a  Horse near a tree", &["horse"]);
        assert_eq!(horse.as_deref(), Some("a person riding a [object] near a tree"));
        assert_eq!(of("a person riding a cow near a tree", &["cow"]), horse, "one template");
        let cups = of("holding two cups of coffee, at night.", &["cups of coffee", "night"]);
        assert_eq!(cups.as_deref(), Some("holding two [object], at [object]."));
        assert_eq!(of("a person with dogs", &["dog"]).as_deref(), Some("a person with [object]"));
    }

    #[test]
    fn a_text_without_an_object_is_from_no_template() {
        assert_eq!(of("a person in a seahorse costume", &["horse", " "]), None);
        assert_eq!(of("a person", &[]), None);
        assert_eq!(of("", &["horse"]), None);
    }
}
