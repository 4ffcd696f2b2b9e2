//! Codes of the service in words.

use serde_json::Value;

use crate::metrics::{Flag, LeftOut, NullReason, SkipReason, Unmapped};

/// Says why a score is null, and how to get a number.
pub(super) fn reason(code: &str) -> (String, Option<&'static str>) {
    let known: Option<NullReason> = serde_json::from_value(Value::from(code)).ok();
    let Some(reason) = known else { return (code.replace('_', " "), None) };
    let why = match reason {
        NullReason::NoPrompt => "no prompt was sent",
        NullReason::NoReference => "no reference image was sent",
        NullReason::NoFaceInReference => "no face in the reference images",
        NullReason::NoFaceInImage => "no face in the generated image",
        NullReason::NoOtherPhoto => "no other image of the person",
        NullReason::NoFaceInOtherPhoto => "no face in the other images of the person",
        NullReason::NoDetectables => "no objects were named",
        NullReason::NoRelations => "the prompt has no such relation",
        NullReason::NoMappedRelations => "the scene graph knows none of the relations",
        NullReason::NeedsDataset => "no dataset with labelled photos was named",
        NullReason::NoAttributes => "no attribute can be judged",
        NullReason::Unavailable => "the pack cannot compute it",
    };
    (why.to_owned(), Some(reason.help()))
}

/// Returns a short and a long explanation of a flag.
pub(super) fn flag(code: &str) -> (String, &'static str) {
    let known: Option<Flag> = serde_json::from_value(Value::from(code)).ok();
    let Some(flag) = known else { return (code.replace('_', " "), "") };
    let (short, long) = match flag {
        Flag::Truncated => (
            "text cut off",
            "The prompt or a label is longer than the text model reads; the rest was ignored.",
        ),
        Flag::NoFaceInImage => (
            "no face in the image",
            "No face was found in the generated image, so the score is 0: the method failed here.",
        ),
        Flag::FacelessPhotos => (
            "photos without a face",
            "Images of the person without a face were left out; the others count.",
        ),
        Flag::Ungrounded => (
            "objects by class only",
            "The pack has no object detector: objects count only if the scene graph knows them.",
        ),
        Flag::ApproximatePredicate => (
            "approximate relation",
            "A relation was judged by a word that is only close to that of the prompt.",
        ),
    };
    (short.to_owned(), long)
}

/// Says why an object was not looked for.
pub(super) fn skipped(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::Role => "skipped: it says what the person is, which identity scores judge",
        SkipReason::Empty => "skipped: it has no words",
        SkipReason::Duplicate => "skipped: the same as an earlier one",
    }
}

/// Says why a relation has no score.
pub(super) fn unmapped(reason: Unmapped) -> &'static str {
    match reason {
        Unmapped::Subject => "not scored: its subject is not the person",
        Unmapped::Predicate => "not scored: the scene graph has no similar predicate",
    }
}

/// Says why an attribute does not count.
pub(super) fn left_out(reason: LeftOut) -> &'static str {
    match reason {
        LeftOut::Constant => "left out: all labelled photos agree, so nothing can be learnt",
        LeftOut::Unlabelled => "left out: no labelled photo",
        LeftOut::NoTarget => "left out: the sample does not say what is wanted",
    }
}

/// Returns an image of a sample in words.
pub(super) fn image_of(of: &str) -> String {
    let number = |index: &str| index.parse::<usize>().map_or(0, |index| index + 1);
    let index = |prefix: &str| of.strip_prefix(prefix)?.strip_suffix(']');
    match (index("reference["), index("auxiliary[")) {
        (Some(at), _) => format!("reference {}", number(at)),
        (_, Some(at)) => format!("auxiliary {}", number(at)),
        _ => "generated image".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_codes_of_other_versions_are_shown_as_words() {
        assert_eq!(reason("not_imported"), ("not imported".to_owned(), None));
        assert_eq!(flag("new_flag").0, "new flag");
        assert_eq!(reason("no_prompt").0, "no prompt was sent");
    }

    #[test]
    fn images_are_counted_from_one() {
        assert_eq!(image_of("reference[0]"), "reference 1");
        assert_eq!(image_of("auxiliary[11]"), "auxiliary 12");
        assert_eq!(image_of("image"), "generated image");
    }
}
