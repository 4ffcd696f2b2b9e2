//! The registry: every metric, what it means, what it needs and who defined it.

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    FeatureSet, MetricResult, Subject, attributes, clip, copies, identity, objects, preference, relations,
    resemblance,
};

/// Which end of the range is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A larger value is better.
    HigherIsBetter,
    /// A smaller value is better.
    LowerIsBetter,
    /// The value supports other numbers and ranks nothing.
    Support,
}

/// One feature that a metric reads: what a graph says about a part of the sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
pub struct Need {
    /// Role of the graph in the model pack.
    pub graph: &'static str,
    /// The part of the sample that the graph is run on.
    pub of: Subject,
}

/// A metric: its description and the pure function that computes it.
#[derive(Debug)]
pub struct Metric {
    /// Code used in requests, answers and the store.
    pub code: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// Which end is better.
    pub direction: Direction,
    /// Smallest and largest possible value; `None` where unbounded.
    pub range: (Option<f64>, Option<f64>),
    /// Raised whenever the same inputs and graphs would give another number; stored with each score.
    pub version: u32,
    /// The features that the function reads, and nothing else.
    pub needs: &'static [Need],
    /// What the number is, in one sentence.
    pub definition: &'static str,
    /// How to read a value or a difference.
    pub interpretation: &'static str,
    /// The paper or project that defined it.
    pub source: &'static str,
    /// Licence of the official weights, as far as their authors state one.
    pub licence: &'static str,
    /// Computes the score from the features named in `needs`, or says why they give none.
    pub compute: fn(&FeatureSet) -> MetricResult,
}

const COSINE: (Option<f64>, Option<f64>) = (Some(-1.0), Some(1.0));

const RELATIONS: &[Need] = &[Need { graph: relations::RELATIONS, of: Subject::Relations }];
const RELATIONS_SOURCE: &str = "After the figure on relation fidelity in Stellar, arXiv 2312.06116, whose code and scene graph were never \
                                published: parser, table of predicates, grounding and form of the score are ours (docs/METRICS.md). \
                                Default scene graph: EGTR, Im et al. 2024, arXiv 2404.02072; OWL-ViT as goa";
const RELATIONS_LICENCE: &str = "Apache-2.0 (EGTR, OWL-ViT)";

/// Every metric, in the order in which answers list them.
pub static REGISTRY: &[Metric] = &[
    Metric {
        code: "clip_t",
        title: "CLIP text-image similarity",
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { graph: clip::IMAGE, of: Subject::Image },
            Need { graph: clip::TEXT, of: Subject::Prompt },
        ],
        definition: "Cosine of the CLIP embeddings of the prompt and of the generated image, without logit scale.",
        interpretation: "How well the image follows the prompt. Compare within one CLIP model only: good \
                         images reach about 0.2 to 0.4, and the useful spread between methods is a few hundredths.",
        source: "Radford et al. 2021, arXiv 2103.00020; as CLIP_T in Stellar, arXiv 2312.06116",
        licence: "MIT (openai, laion and DataComp checkpoints); CC-BY-NC-4.0 (metaclip)",
        compute: |features| Ok(clip::clip_t(features)),
    },
    Metric {
        code: "clip_i",
        title: "CLIP image-image similarity",
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { graph: clip::IMAGE, of: Subject::Image },
            Need { graph: clip::IMAGE, of: Subject::References },
        ],
        definition: "Cosine of the CLIP embeddings of the reference photo and of the generated image; \
                     the mean where several references are given.",
        interpretation: "Resemblance to the reference as a whole: scene and composition count, not only the \
                         person, so pasting the reference maximises it. Read it beside clip_t.",
        source: "Radford et al. 2021, arXiv 2103.00020; as CLIP_I in Stellar, arXiv 2312.06116",
        licence: "MIT (openai, laion and DataComp checkpoints); CC-BY-NC-4.0 (metaclip)",
        compute: |features| Ok(clip::clip_i(features)),
    },
    Metric {
        code: "clip_n",
        title: "CLIP text-reference similarity",
        direction: Direction::Support,
        range: COSINE,
        version: 1,
        needs: &[
            Need { graph: clip::IMAGE, of: Subject::References },
            Need { graph: clip::TEXT, of: Subject::Prompt },
        ],
        definition: "Cosine of the CLIP embeddings of the prompt and of the reference photo; the mean where \
                     several references are given.",
        interpretation: "What the reference photo alone gets for the prompt: the baseline that clip_t has to \
                         beat. It supports the penalty for metric exploitation and says nothing of a method's quality.",
        source: "Stellar, arXiv 2312.06116",
        licence: "MIT (openai, laion and DataComp checkpoints); CC-BY-NC-4.0 (metaclip)",
        compute: |features| Ok(clip::clip_n(features)),
    },
    Metric {
        code: "aesthetic",
        title: "LAION aesthetic score",
        direction: Direction::HigherIsBetter,
        range: (None, None),
        version: 1,
        needs: &[Need { graph: clip::AESTHETIC, of: Subject::Image }],
        definition: "Affine prediction of a 1 to 10 beauty rating from the CLIP ViT-L/14 embedding of the \
                     generated image; not clamped.",
        interpretation: "Mostly between 4 and 7; a difference of 0.1 in the mean of many images is visible. \
                         It knows neither prompt nor person.",
        source: "Schuhmann 2022, improved-aesthetic-predictor (sac+logos+ava1-l14-linearMSE)",
        licence: "Apache-2.0 (head), MIT (CLIP)",
        compute: |features| Ok(clip::aesthetic(features)),
    },
    Metric {
        code: "hpsv1",
        title: "Human preference score v1",
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { graph: preference::HPSV1_IMAGE, of: Subject::Image },
            Need { graph: preference::HPSV1_TEXT, of: Subject::Prompt },
        ],
        definition: "Cosine of the embeddings of prompt and generated image by CLIP ViT-L/14 fine-tuned on \
                     human choices, without logit scale.",
        interpretation: "Mostly between 0.15 and 0.25. For one prompt, the image with the higher value is the \
                         likelier choice of a person; the authors' softmax multiplies differences by 100.",
        source: "Wu et al. 2023, arXiv 2303.14420",
        licence: "weights published by the authors without a stated licence",
        compute: |features| Ok(preference::hpsv1(features)),
    },
    Metric {
        code: "hpsv2",
        title: "Human preference score v2",
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { graph: preference::HPSV2_IMAGE, of: Subject::Image },
            Need { graph: preference::HPSV2_TEXT, of: Subject::Prompt },
        ],
        definition: "Cosine of the embeddings of prompt and generated image by CLIP ViT-H/14 fine-tuned on \
                     human choices, without logit scale. The image is letterboxed, not cropped.",
        interpretation: "Mostly between 0.2 and 0.3; a difference of 0.01 in the mean of many images is clear. \
                         v2.0 and v2.1 checkpoints give different numbers: the provenance names which.",
        source: "Wu et al. 2023, arXiv 2306.09341",
        licence: "Apache-2.0",
        compute: |features| Ok(preference::hpsv2(features)),
    },
    Metric {
        code: "pick_score",
        title: "PickScore",
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { graph: preference::PICK_IMAGE, of: Subject::Image },
            Need { graph: preference::PICK_TEXT, of: Subject::Prompt },
        ],
        definition: "Cosine of the embeddings of prompt and generated image by CLIP ViT-H/14 fine-tuned on \
                     Pick-a-Pic; the published value, times the logit scale, is in the evidence.",
        interpretation: "Mostly between 0.18 and 0.23, published as 18 to 23. A difference of 0.01 makes a \
                         person choose the better image about 73 times in 100 by the model's softmax.",
        source: "Kirstain et al. 2023, arXiv 2305.01569",
        licence: "weights published by the authors without a stated licence",
        compute: |features| Ok(preference::pick_score(features)),
    },
    Metric {
        code: "image_reward",
        title: "ImageReward",
        direction: Direction::HigherIsBetter,
        range: (None, None),
        version: 1,
        needs: &[Need { graph: preference::IMAGE_REWARD, of: Subject::ImageWithPrompt }],
        definition: "Reward of BLIP with a head trained on human rankings, normalised by the published mean \
                     0.16717 and deviation 1.03334 of the training images. Reads 35 tokens of the prompt.",
        interpretation: "A standard score: 0 is a typical image of its training data, 1 one deviation better; \
                         mostly between -2 and 2.",
        source: "Xu et al. 2023, arXiv 2304.05977",
        licence: "Apache-2.0",
        compute: |features| Ok(preference::image_reward(features)),
    },
    Metric {
        code: "dreamsim",
        title: "DreamSim distance",
        direction: Direction::LowerIsBetter,
        range: (Some(0.0), Some(2.0)),
        version: 1,
        needs: &[
            Need { graph: resemblance::DREAMSIM, of: Subject::Image },
            Need { graph: resemblance::DREAMSIM, of: Subject::References },
        ],
        definition: "1 minus the cosine of the mean-centred embeddings of generated image and reference photo \
                     by an ensemble of DINO, CLIP and OpenCLIP ViT-B/16 tuned on human similarity judgements; \
                     the mean where several references are given.",
        interpretation: "0 for equal images, about 0.5 and more for unrelated ones. Layout and scene count, \
                         so a lower value is not a better identity by itself.",
        source: "Fu et al. 2023, arXiv 2306.09344",
        licence: "MIT",
        compute: |features| Ok(resemblance::dreamsim(features)),
    },
    Metric {
        code: "dino",
        title: "DINO image similarity",
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { graph: resemblance::DINO, of: Subject::Image },
            Need { graph: resemblance::DINO, of: Subject::References },
        ],
        definition: "Cosine of the DINO ViT-S/16 CLS tokens of generated image and reference photo; the mean \
                     where several references are given.",
        interpretation: "Resemblance of subject and layout without any text supervision; 1 for equal images. \
                         The subject-fidelity measure of DreamBooth, made for objects rather than faces.",
        source: "Caron et al. 2021, arXiv 2104.14294; as subject fidelity in Ruiz et al. 2022, arXiv 2208.12242",
        licence: "Apache-2.0",
        compute: |features| Ok(resemblance::dino(features)),
    },
    Metric {
        code: "ips",
        title: "Identity preservation score",
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { graph: identity::FACES, of: Subject::Image },
            Need { graph: identity::FACES, of: Subject::References },
        ],
        definition: "Largest cosine of the InceptionResnetV1 embeddings of a face in the generated image and a \
                     face in the reference photo, all faces that MTCNN finds; the mean over the references that \
                     have a face. 0 where the generated image has no face; null where no reference has one.",
        interpretation: "Whether the face is the subject's: with the official weights two photos of one person \
                         mostly reach 0.5 to 0.9, strangers about 0. An image without a face counts as a failure, \
                         0, and is flagged. Background faces count too, so read the matched pair in the evidence.",
        source: "Stellar, arXiv 2312.06116; MTCNN: Zhang et al. 2016, arXiv 1604.02878; embeddings: Schroff et \
                 al. 2015, arXiv 1503.03832, by facenet-pytorch 2.6.0 trained on VGGFace2",
        licence: "MIT (facenet-pytorch)",
        compute: identity::ips,
    },
    Metric {
        code: "sis",
        title: "Identity stability score",
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { graph: identity::FACES, of: Subject::Image },
            Need { graph: identity::FACES, of: Subject::Photos },
        ],
        definition: "Smallest identity preservation score of the generated image over all photos of the subject, \
                     auxiliary and reference ones; photos without a face are left out. 0 where the generated image \
                     has no face; null where no photo has one.",
        interpretation: "Whether the face is the subject's in all lights and poses and not only in the reference's: \
                         never above ips of the same reference. It falls with the number of photos, so compare \
                         methods on the same ones.",
        source: "Stellar, arXiv 2312.06116; detection and embeddings as ips",
        licence: "MIT (facenet-pytorch)",
        compute: identity::sis,
    },
    Metric {
        code: "ips_ceiling",
        title: "Identity ceiling",
        direction: Direction::Support,
        range: COSINE,
        version: 1,
        needs: &[
            Need { graph: identity::FACES, of: Subject::References },
            Need { graph: identity::FACES, of: Subject::Photos },
        ],
        definition: "What ips gives another photo of the subject in place of the generated image: the mean over the auxiliary \
                     photos with a face that are no copy of a reference. The generated image plays no part.",
        interpretation: "What a real photo of the person reaches against the reference: an ips near it is as good as identity \
                         gets, and one far above it repeats the reference rather than knows the person. It supports ips and \
                         sis and ranks nothing.",
        source: "real-to-real similarity as in WithAnyone, Xu et al. 2025, arXiv 2510.14975; detection and embeddings as ips",
        licence: "MIT (facenet-pytorch)",
        compute: copies::ips_ceiling,
    },
    Metric {
        code: "copy_paste",
        title: "Copy-paste measure",
        direction: Direction::Support,
        range: COSINE,
        version: 1,
        needs: &[
            Need { graph: identity::FACES, of: Subject::Image },
            Need { graph: identity::FACES, of: Subject::References },
            Need { graph: identity::FACES, of: Subject::Photos },
        ],
        definition: "(angle of the generated face to another photo's - angle to the reference's) / angle between the two photos', \
                     of unit face embeddings; the mean over the references and the auxiliary photos with a face that are no copy \
                     of a reference. Null where the generated image has no face or there is no other photo.",
        interpretation: "1 where the face is the reference's own, 0 where it is as near to another photo of the person, -1 where it \
                         is that photo's. High values beside a high ips mean pasting. A face that is nobody's is near 0 too, so it \
                         is read beside ips and ranks nothing.",
        source: "WithAnyone, Xu et al. 2025, arXiv 2510.14975; detection and embeddings as ips",
        licence: "MIT (facenet-pytorch)",
        compute: copies::copy_paste,
    },
    Metric {
        code: "goa",
        title: "Grounding objects accuracy",
        direction: Direction::HigherIsBetter,
        range: (Some(0.0), Some(1.0)),
        version: 1,
        needs: &[Need { graph: objects::OBJECTS, of: Subject::Objects }],
        definition: "Mean over the labels in `detectables` of the sigmoid of the largest OWL-ViT logit among the boxes \
                     that fit this label better than the image's other labels; 0 for a label that wins no box. \
                     Roles of the person are left out, labels that the text model reads alike count once.",
        interpretation: "Whether the objects of the prompt are in the image. Confidences of an open-vocabulary \
                         detector are low: mean values are mostly between 0.1 and 0.6, so compare methods on the same \
                         prompts. Labels compete, so a further label can lower the score of the others.",
        source: "Stellar, arXiv 2312.06116; OWL-ViT: Minderer et al. 2022, arXiv 2205.06230",
        licence: "Apache-2.0",
        compute: objects::goa,
    },
    Metric {
        code: "rfs",
        title: "Relation fidelity score",
        direction: Direction::HigherIsBetter,
        range: (Some(0.0), Some(1.0)),
        version: 1,
        needs: RELATIONS,
        definition: "Mean over the relations of the prompt (person, predicate, object) of the probability of the best pair of boxes in a \
                     scene graph: that the subject is a person, times that the predicate holds, times that the object is the object, by \
                     its class or by the overlap with OWL-ViT's best box for its words. Relations come from `relations` in the \
                     metadata, else from the prompt. Predicates that the graph calls otherwise are mapped by a table.",
        interpretation: "Whether the person does what the prompt says, where it says. Scene graphs give small probabilities: a mean of 0.05 to \
                         0.3 is to be expected, so read differences with their intervals. Values of different scene graphs, and those \
                         published, are not comparable: the provenance names the graph.",
        source: RELATIONS_SOURCE,
        licence: RELATIONS_LICENCE,
        compute: relations::rfs,
    },
    Metric {
        code: "rfs_strict",
        title: "Relation fidelity score, exact predicates",
        direction: Direction::HigherIsBetter,
        range: (Some(0.0), Some(1.0)),
        version: 1,
        needs: RELATIONS,
        definition: "As rfs, over the relations whose predicate the scene graph calls just so: no table, nothing near.",
        interpretation: "The reading of the published figure. Fewer prompts have a value: compare methods on the same ones.",
        source: RELATIONS_SOURCE,
        licence: RELATIONS_LICENCE,
        compute: relations::rfs_strict,
    },
    Metric {
        code: "rfs_interaction",
        title: "Relation fidelity score, interactions",
        direction: Direction::HigherIsBetter,
        range: (Some(0.0), Some(1.0)),
        version: 1,
        needs: RELATIONS,
        definition: "As rfs, over the relations with a verb (riding a horse).",
        interpretation: "What the person does, without where it is.",
        source: RELATIONS_SOURCE,
        licence: RELATIONS_LICENCE,
        compute: relations::rfs_interaction,
    },
    Metric {
        code: "rfs_location",
        title: "Relation fidelity score, locations",
        direction: Direction::HigherIsBetter,
        range: (Some(0.0), Some(1.0)),
        version: 1,
        needs: RELATIONS,
        definition: "As rfs, over the relations without a verb (next to a shark).",
        interpretation: "Where the person is, without what it does.",
        source: RELATIONS_SOURCE,
        licence: RELATIONS_LICENCE,
        compute: relations::rfs_location,
    },
    Metric {
        code: "aps",
        title: "Attribute preservation score",
        direction: Direction::HigherIsBetter,
        range: (Some(0.0), Some(1.0)),
        version: 1,
        needs: &[
            Need { graph: identity::FACES, of: Subject::Image },
            Need { graph: identity::FACES, of: Subject::Dataset },
        ],
        definition: "Share of the facial attributes Young, Male, High_Cheekbones, Pointy_Nose, Narrow_Eyes, Double_Chin, \
                     Big_Lips and Big_Nose that a logistic regression (L2, C = 1) on the face embeddings of labelled photos \
                     predicts rightly from the largest face of the generated image. The photos are those enrolled in the \
                     sample's dataset. 0 where the image has no face; attributes of which the photos have one kind only, \
                     or the sample no label, are left out; null where none is left.",
        interpretation: "Whether the person keeps features that people would name: chance is about 0.5, more where one kind is \
                         common. A value of one image is coarse, at most 8 answers; compare means, or the mean area under \
                         the ROC curve of a run (GET /v1/runs/{run}/attributes), where chance is 0.5 whatever is common. \
                         An image without a face counts as a failure, all answers wrong, and is flagged.",
        source: "Stellar, arXiv 2312.06116; attributes: CelebA, Liu et al. 2015, arXiv 1411.7766; detection and embeddings \
                 as ips",
        licence: "MIT (facenet-pytorch)",
        compute: attributes::aps,
    },
];

/// The metric of this code.
#[must_use]
pub fn find(code: &str) -> Option<&'static Metric> {
    REGISTRY.iter().find(|metric| metric.code == code)
}

/// Why a list of metric codes cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A code that is no metric's.
    #[error("there is no metric `{code}`: the metrics are {known}")]
    Unknown {
        /// What was asked for.
        code: String,
        /// The codes there are.
        known: String,
    },
    /// No code at all.
    #[error("no metric is named: leave the list out for all, or give codes as in clip_t,aesthetic")]
    Empty,
}

impl ListError {
    /// The error for a code that is no metric's.
    #[must_use]
    pub fn unknown(code: &str) -> Self {
        let known: Vec<_> = REGISTRY.iter().map(|metric| metric.code).collect();
        Self::Unknown { code: code.chars().take(80).collect(), known: known.join(", ") }
    }
}

/// The metrics of a comma-separated list of codes, each once, in the order of the list.
pub fn parse_list(codes: &str) -> Result<Vec<&'static Metric>, ListError> {
    let mut chosen: Vec<&'static Metric> = Vec::new();
    for code in codes.split(',').map(str::trim).filter(|code| !code.is_empty()) {
        let metric = find(code).ok_or_else(|| ListError::unknown(code))?;
        if !chosen.iter().any(|already| already.code == metric.code) {
            chosen.push(metric);
        }
    }
    if chosen.is_empty() { Err(ListError::Empty) } else { Ok(chosen) }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, HashSet},
        sync::Arc,
    };

    use super::*;
    use crate::{
        metrics::{AttributeInputs, Input, LabelledFace, Probes},
        tensor::{Features, Output},
        text::relations::annotated,
    };

    #[test]
    fn codes_are_unique_and_found() {
        let codes: HashSet<_> = REGISTRY.iter().map(|metric| metric.code).collect();
        assert_eq!(codes.len(), REGISTRY.len());
        assert!(codes.iter().all(|code| find(code).is_some()));
        assert!(find("beauty").is_none());
    }

    #[test]
    fn a_list_names_each_metric_once_in_its_own_order() {
        let codes = |list| parse_list(list).map(|chosen| chosen.iter().map(|m| m.code).collect::<Vec<_>>());
        assert_eq!(codes(" clip_i, clip_t ,clip_i").unwrap(), ["clip_i", "clip_t"]);
        assert_eq!(codes("clip_t,beauty"), Err(ListError::unknown("beauty")));
        assert_eq!(codes(" , "), Err(ListError::Empty));
    }

    /// A metric that read a feature its row does not name would panic here.
    #[test]
    fn every_metric_reads_only_what_its_row_names() {
        for metric in REGISTRY {
            let label = objects::Label { text: "dog".into(), truncated: false };
            let objects = objects::Objects { labels: vec![label], size: (1, 1), ..Default::default() };
            let sought = ["riding", "near"].map(|predicate| relations::Sought {
                relation: annotated(&[["person".into(), predicate.into(), "dog".into()]]).remove(0),
                mapping: Ok(relations::Mapping { predicates: vec![0], exact: Some(0), ..Default::default() }),
            });
            let relations = relations::Relations { sought: sought.to_vec(), ..Default::default() };
            let auxiliary = usize::from(metric.needs.iter().any(|need| need.of == Subject::Photos));
            let mut features = FeatureSet::new(1)
                .with_auxiliary(auxiliary)
                .with_objects(Arc::new(objects))
                .with_relations(Arc::new(relations));
            let young = |young| BTreeMap::from([("Young".to_owned(), young)]);
            let labels = [young(true), young(false)];
            let faces = [(&labels[0], [1.0, 0.0]), (&labels[1], [-1.0, 0.0])];
            let faces: Vec<_> = faces
                .iter()
                .map(|(attributes, embedding)| LabelledFace { embedding, attributes, weight: 1.0 })
                .collect();
            for need in metric.needs {
                if need.of == Subject::Dataset {
                    let probes = Arc::new(Probes::fit(&faces).unwrap());
                    features = features.with_attributes(AttributeInputs { probes, targets: young(true) });
                    continue;
                }
                let inputs = match need.of {
                    Subject::Image | Subject::Relations => vec![Input::Image],
                    Subject::Prompt => vec![Input::Prompt],
                    Subject::References => vec![Input::Reference(0)],
                    Subject::Photos => vec![Input::Reference(0), Input::Auxiliary(0)],
                    Subject::ImageWithPrompt => vec![Input::ImageWithPrompt],
                    Subject::Objects => vec![Input::Objects],
                    Subject::Dataset => unreachable!("prepared above"),
                };
                let tensor = |shape| Output { shape, data: vec![0.5] };
                for input in inputs {
                    // Faces of the subject, none like another.
                    let face = match input {
                        Input::Reference(_) => vec![0.9, 0.5],
                        Input::Auxiliary(_) => vec![0.4, 1.0],
                        _ => vec![1.0, 0.2],
                    };
                    let embedding = if need.graph == identity::FACES {
                        Output { shape: vec![1, 2], data: face }
                    } else {
                        tensor(vec![1])
                    };
                    features.insert(
                        need.graph,
                        input,
                        Arc::new(Features::new(vec![
                            ("embedding".into(), embedding),
                            ("aesthetic".into(), tensor(vec![])),
                            ("reward".into(), tensor(vec![])),
                            ("logits".into(), tensor(vec![1, 1])),
                            ("boxes".into(), Output { shape: vec![1, 4], data: vec![0.5; 4] }),
                            ("person".into(), tensor(vec![1])),
                            ("classes".into(), tensor(vec![1, 1])),
                            ("tie".into(), tensor(vec![1, 1])),
                            ("subject".into(), tensor(vec![1, 1])),
                        ])),
                    );
                }
            }
            assert!((metric.compute)(&features).unwrap().value.is_finite(), "{}", metric.code);
        }
    }
}
