//! The vocabulary of the drawn world: what prompts can say and drawings can show.

/// Something that a person does with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// As in a prompt, after the person.
    pub words: &'static str,
    /// The object, as a detector is asked for it.
    pub object: &'static str,
    /// The category of the prompt.
    pub category: &'static str,
}

/// Where a person is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// As in a prompt, after the activity.
    pub words: &'static str,
    /// What is drawn there, as a detector is asked for it.
    pub object: &'static str,
}

const fn activity(words: &'static str, object: &'static str, category: &'static str) -> Activity {
    Activity { words, object, category }
}

const fn place(words: &'static str, object: &'static str) -> Place {
    Place { words, object }
}

/// What people do.
pub const ACTIVITIES: [Activity; 8] = [
    activity("riding a horse", "horse", "sports"),
    activity("holding an umbrella", "umbrella", "everyday"),
    activity("eating a pizza", "pizza", "culinary"),
    activity("playing a guitar", "guitar", "arts"),
    activity("driving a car", "car", "everyday"),
    activity("carrying a surfboard", "surfboard", "sports"),
    activity("reading a book", "book", "leisure"),
    activity("wearing a hat", "hat", "everyday"),
];

/// Where people are.
pub const PLACES: [Place; 8] = [
    place("next to a tree", "tree"),
    place("in front of a building", "building"),
    place("on a mountain", "mountain"),
    place("under a bridge", "bridge"),
    place("near a boat", "boat"),
    place("beside a bicycle", "bicycle"),
    place("in a garden", "garden"),
    place("by a window", "window"),
];

/// What a free prompt is about; `{}` is the person.
pub const MOODS: [&str; 8] = [
    "A watercolour of {} lost in thought",
    "{} laughing at a long-forgotten joke",
    "A film poster with {} as the hero",
    "{} as an astronaut far from home",
    "A mosaic of {} in the style of Ravenna",
    "{} dancing as if nobody watched",
    "A postcard from {} on holiday",
    "{} waiting for the last train",
];

/// When that is.
pub const TIMES: [&str; 8] = [
    "at dawn",
    "at noon",
    "on a rainy evening",
    "by moonlight",
    "in early spring",
    "in the heat of summer",
    "in late autumn",
    "on the first day of snow",
];
