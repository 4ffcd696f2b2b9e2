//! What readers must know about each metric, in plain words: a short name, what high and low scores
//! look like, and how the metric fails.

/// What a metric looks at; the order is that in which readers meet the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Whether the image shows the person.
    Identity,
    /// Whether the image shows what the prompt asks for.
    Prompt,
    /// Whether people would like the image.
    Preference,
    /// Whether the image resembles the reference image as a whole.
    Resemblance,
    /// Helps to read other metrics and ranks nothing.
    Support,
}

impl Topic {
    /// All topics, in order.
    pub const ALL: [Self; 5] =
        [Self::Identity, Self::Prompt, Self::Preference, Self::Resemblance, Self::Support];

    /// Returns the question of a topic.
    #[must_use]
    pub fn question(self) -> &'static str {
        match self {
            Self::Identity => "Does the image show the person?",
            Self::Prompt => "Does the image show what the prompt asks for?",
            Self::Preference => "Would people like the image?",
            Self::Resemblance => "Does the image resemble the reference image as a whole?",
            Self::Support => "Help in reading the others; not ranked",
        }
    }
}

/// A metric in plain words.
#[derive(Debug)]
pub struct Guide {
    /// Name in a word or two.
    pub name: &'static str,
    /// Abbreviation as in papers.
    pub short: &'static str,
    /// What the metric looks at.
    pub topic: Topic,
    /// What it asks, in one sentence.
    pub question: &'static str,
    /// An image with a high number.
    pub high: &'static str,
    /// An image with a low number.
    pub low: &'static str,
    /// Cases in which the number misleads.
    pub failure_modes: &'static [&'static str],
    /// Largest differences from the reference that `pack verify` allows, at single and at half
    /// precision; `None` if there is no number to compare with.
    pub tolerance: Option<(f64, f64)>,
}

impl Guide {
    /// Returns name and abbreviation, as in `Identity (IPS)`.
    #[must_use]
    pub fn label(&self) -> String {
        if self.name == self.short {
            self.name.to_owned()
        } else {
            format!("{} ({})", self.name, self.short)
        }
    }
}

pub(super) static CLIP_T: Guide = Guide {
    name: "Prompt match",
    short: "CLIP-T",
    topic: Topic::Prompt,
    question: "How well does the image fit the whole prompt?",
    high: "The prompt asks for a person riding a horse on a beach, and the image shows that scene.",
    low: "The image is a plain portrait: the person is there, horse and beach are not.",
    failure_modes: &[
        "It reads the prompt as a bag of ideas: who does what to whom, counts and left or right hardly matter.",
        "Written words in the image raise the score without any depicted scene.",
        "Long prompts are cut at 77 tokens and flagged; what follows has no influence.",
        "Values of different CLIP models are not comparable.",
    ],
    tolerance: Some((1e-4, 5e-3)),
};

pub(super) static CLIP_I: Guide = Guide {
    name: "Image resemblance",
    short: "CLIP-I",
    topic: Topic::Resemblance,
    question: "How similar is the image to the reference image as a whole?",
    high: "The reference image itself, or a copy with small edits.",
    low: "A new scene with another composition, however well it shows the person.",
    failure_modes: &[
        "Pasting the reference image gives the best possible value. Read it with the prompt match.",
        "Background, clothing and pose count as much as the person.",
    ],
    tolerance: Some((1e-4, 5e-3)),
};

pub(super) static CLIP_N: Guide = Guide {
    name: "Prompt baseline",
    short: "CLIP-N",
    topic: Topic::Support,
    question: "How well does the reference image itself fit the prompt?",
    high: "The prompt asks for a portrait, and the reference image is one.",
    low: "The prompt asks for a scene that the reference image does not show.",
    failure_modes: &[
        "It says nothing about a method: it only depends on the prompts and the reference images.",
        "It needs a prompt and a reference image. Without it, the penalty cannot be decided.",
    ],
    tolerance: Some((1e-4, 5e-3)),
};

pub(super) static AESTHETIC: Guide = Guide {
    name: "Aesthetics",
    short: "LAION",
    topic: Topic::Preference,
    question: "Does the image look like those that people rated as beautiful?",
    high: "A sharp portrait with soft light and a calm background.",
    low: "A blurred snapshot with hard flash and compression artefacts.",
    failure_modes: &[
        "It sees neither the prompt nor the person: a beautiful wrong image scores high.",
        "It prefers the styles of its training images, such as paintings and studio light.",
        "Distorted hands and faces hardly lower it.",
    ],
    tolerance: Some((1e-3, 2e-2)),
};

pub(super) static HPSV1: Guide = Guide {
    name: "Human preference 1",
    short: "HPS v1",
    topic: Topic::Preference,
    question: "Would people choose this image for the prompt?",
    high: "A clean image of the prompt's scene in a style that people choose.",
    low: "An image that misses the prompt or is visibly broken.",
    failure_modes: &[
        "Compare images of the same prompts only: prompts differ more than methods.",
        "It learned from images of early diffusion models and may misjudge other styles.",
        "It does not see who the person is.",
    ],
    tolerance: Some((1e-4, 5e-3)),
};

pub(super) static HPSV2: Guide = Guide {
    name: "Human preference 2",
    short: "HPS v2",
    topic: Topic::Preference,
    question: "Would people choose this image for the prompt?",
    high: "A detailed, coherent image of everything in the prompt.",
    low: "An image with artefacts, or one that leaves out what the prompt names.",
    failure_modes: &[
        "Checkpoints v2.0 and v2.1 give different numbers; the provenance names the checkpoint.",
        "Images are shrunk with black borders, so very wide or tall ones lose detail.",
        "It does not see who the person is.",
    ],
    tolerance: Some((1e-4, 5e-3)),
};

pub(super) static PICK_SCORE: Guide = Guide {
    name: "PickScore",
    short: "PickScore",
    topic: Topic::Preference,
    question: "Would users of an image generator pick this image for the prompt?",
    high: "The image that most users would take from a pair.",
    low: "The image that most users would discard.",
    failure_modes: &[
        "Differences are small numbers: 0.01 is already a clear preference.",
        "Compare images of the same prompts only.",
        "It does not see who the person is.",
    ],
    tolerance: Some((1e-4, 5e-3)),
};

pub(super) static IMAGE_REWARD: Guide = Guide {
    name: "ImageReward",
    short: "ImageReward",
    topic: Topic::Preference,
    question: "How would people rate this image for the prompt?",
    high: "Above 1: clearly better than a typical image of its training data.",
    low: "Below −1: the prompt is missed, or the image is broken.",
    failure_modes: &[
        "It reads 35 tokens of the prompt; longer prompts are cut and flagged.",
        "A few very low values can pull down a mean: its range is open.",
        "It does not see who the person is.",
    ],
    tolerance: Some((1e-3, 2e-2)),
};

pub(super) static DREAMSIM: Guide = Guide {
    name: "Perceptual distance",
    short: "DreamSim",
    topic: Topic::Resemblance,
    question: "How far is the image from the reference image, as people perceive it?",
    high: "0.6: another scene, another layout.",
    low: "0 for the reference image itself. Lower is better.",
    failure_modes: &[
        "Pasting the reference image gives the best possible value.",
        "Layout and scene count: a lower distance is not by itself a better likeness.",
        "Images are squeezed to a square, so the aspect ratio is lost.",
    ],
    tolerance: Some((1e-4, 5e-3)),
};

pub(super) static DINO: Guide = Guide {
    name: "Subject resemblance",
    short: "DINO",
    topic: Topic::Resemblance,
    question: "Does the image have the subject and layout of the reference image?",
    high: "The same subject in a similar pose and place.",
    low: "Another subject, or the same one in a new scene.",
    failure_modes: &[
        "It was made for objects. Faces of different people in one pose are near each other.",
        "Pasting the reference image gives the best possible value.",
        "Images are squeezed to a square, so the aspect ratio is lost.",
    ],
    tolerance: Some((1e-4, 5e-3)),
};

pub(super) static IPS: Guide = Guide {
    name: "Identity",
    short: "IPS",
    topic: Topic::Identity,
    question: "Is the face in the image that of the person?",
    high: "0.6 and more: about as similar as two photos of one person.",
    low: "About 0: the face of a stranger. Exactly 0: no face was found.",
    failure_modes: &[
        "Pasting the face of the reference image scores highest. The penalty and the copy-paste measure help.",
        "Every detected face counts, also one in the background or a pattern that only looks like one.",
        "Faces in profile, tiny faces and faces behind glasses or masks are missed or score low.",
        "The face network does not work equally well for everyone: compare slices before you judge fairness.",
    ],
    tolerance: Some((5e-3, 5e-3)),
};

pub(super) static SIS: Guide = Guide {
    name: "Identity, all photos",
    short: "SIS",
    topic: Topic::Identity,
    question: "Is the face similar to every image of the person, also the least similar one?",
    high: "0.5 and more: the person is recognised in any light and pose.",
    low: "The face repeats one photo and is far from another one of the same person.",
    failure_modes: &[
        "It falls with every further image of the person. Compare methods on the same images only.",
        "One poor or mislabelled photo decides the value.",
        "Everything said of the identity score holds here, too.",
    ],
    tolerance: Some((5e-3, 5e-3)),
};

pub(super) static IPS_CEILING: Guide = Guide {
    name: "Identity ceiling",
    short: "Ceiling",
    topic: Topic::Support,
    question: "What identity score does a real photo of the person reach?",
    high: "The person looks alike in all photos.",
    low: "The photos differ in age, light or pose.",
    failure_modes: &[
        "It describes the dataset, not the method.",
        "It needs further images of the person that are not copies of the reference image.",
    ],
    tolerance: Some((5e-3, 5e-3)),
};

pub(super) static COPY_PASTE: Guide = Guide {
    name: "Copy-paste",
    short: "Copy",
    topic: Topic::Support,
    question: "Does the face repeat the reference image rather than the person?",
    high: "1: the face is that of the reference image itself.",
    low: "0: as near to another photo of the person. −1: the face of that photo.",
    failure_modes: &[
        "A stranger's face also scores near 0. Read it together with the identity score.",
        "Photos that are almost equal make the measure unstable; exact copies are left out.",
    ],
    tolerance: None,
};

pub(super) static GOA: Guide = Guide {
    name: "Objects",
    short: "GOA",
    topic: Topic::Prompt,
    question: "Are the objects of the prompt in the image?",
    high: "0.6 and more: the detector sees every object clearly.",
    low: "About 0: none of the objects is found.",
    failure_modes: &[
        "Labels compete for regions, so an additional label can lower the others.",
        "Values are confidences of a detector, not shares of objects: 0.4 is not 40 %.",
        "Unusual words and parts of objects are often missed.",
        "It does not see how the objects relate to the person.",
    ],
    tolerance: Some((2e-3, 5e-3)),
};

const RELATION_FAILURES: &[&str] = &[
    "Values are small products of probabilities: read differences with their intervals.",
    "The definition is our own: values are not comparable with published ones, nor between scene graphs.",
    "Rare verbs are mapped to similar ones and flagged, or left out.",
    "How well it orders real images with official weights has not been measured yet.",
];

pub(super) static RFS: Guide = Guide {
    name: "Relations",
    short: "RFS",
    topic: Topic::Prompt,
    question: "Does the person do what the prompt says, where it says?",
    high: "0.3 and more: a person is clearly riding the horse.",
    low: "About 0: person and horse stand apart, or one is missing.",
    failure_modes: RELATION_FAILURES,
    tolerance: Some((5e-5, 5e-3)),
};

pub(super) static RFS_STRICT: Guide = Guide {
    name: "Relations, exact words",
    short: "RFS strict",
    topic: Topic::Prompt,
    question: "As relations, for predicates that the scene graph has under the same name.",
    high: "As for relations.",
    low: "As for relations.",
    failure_modes: &["Fewer prompts have a number: look at the coverage.", RELATION_FAILURES[0]],
    tolerance: Some((5e-5, 5e-3)),
};

pub(super) static RFS_INTERACTION: Guide = Guide {
    name: "Relations: actions",
    short: "RFS act",
    topic: Topic::Prompt,
    question: "Does the person do what the prompt says?",
    high: "The person is visibly riding, holding or eating what the prompt names.",
    low: "The object is there, and the person does nothing with it.",
    failure_modes: RELATION_FAILURES,
    tolerance: Some((5e-5, 5e-3)),
};

pub(super) static RFS_LOCATION: Guide = Guide {
    name: "Relations: places",
    short: "RFS place",
    topic: Topic::Prompt,
    question: "Is the person where the prompt says?",
    high: "The person is visibly next to, on or in front of what the prompt names.",
    low: "The place is missing, or the person is elsewhere.",
    failure_modes: RELATION_FAILURES,
    tolerance: Some((5e-5, 5e-3)),
};

pub(super) static APS: Guide = Guide {
    name: "Attributes",
    short: "APS",
    topic: Topic::Identity,
    question: "Are facial features that people would name preserved?",
    high: "0.9: age, nose, lips and chin are predicted as the person has them.",
    low: "0.5: no better than guessing. 0 for an image without a face.",
    failure_modes: &[
        "Chance is about 0.5, and higher where most people share a feature.",
        "One image has at most 8 predictions: only means over many images say something.",
        "It depends on the labels of the dataset, which are judgements of annotators.",
        "The published figure is the area under a curve over a whole run, not this mean.",
    ],
    tolerance: None,
};
