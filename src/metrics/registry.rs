//! The registry: the meaning, inputs and source of every metric.

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Family, FeatureSet, FeatureSource, Guide, MetricResult, Subject, attributes, clip, copies,
    guide, identity, objects, preference, relations, resemblance,
};

/// Better end of a metric's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A larger value is better.
    HigherIsBetter,
    /// A smaller value is better.
    LowerIsBetter,
    /// The value supports other metrics and is not ranked.
    Support,
}

/// A feature that a metric reads: the output of a graph for a part of the sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
pub struct Need {
    /// Role of the graph in the pack.
    #[serde(rename = "graph")]
    #[schema(value_type = String)]
    pub source: FeatureSource,
    /// Part of the sample that the graph is run on.
    pub of: Subject,
}

/// A metric: its description and the pure function that computes it.
#[derive(Debug)]
pub struct Metric {
    /// Code in requests, responses and the store.
    pub code: &'static str,
    /// Display name.
    pub title: &'static str,
    /// The metric in plain words.
    pub guide: &'static Guide,
    /// What the metric compares with what.
    pub family: Family,
    /// Better end of the range.
    pub direction: Direction,
    /// Smallest and largest possible value; `None` if unbounded.
    pub range: (Option<f64>, Option<f64>),
    /// Incremented whenever the same inputs and graphs would give another number; stored with each
    /// score.
    pub version: u32,
    /// Features that the function reads, and no others.
    pub needs: &'static [Need],
    /// Definition of the number.
    pub definition: &'static str,
    /// Guide to reading a value or a difference.
    pub interpretation: &'static str,
    /// Paper or project that defined the metric.
    pub source: &'static str,
    /// Licence of the official weights, as far as their authors state one.
    pub licence: &'static str,
    /// Computes the score from the features named in `needs`, or returns the reason why it is null.
    pub compute: fn(&FeatureSet) -> MetricResult,
}

const COSINE: (Option<f64>, Option<f64>) = (Some(-1.0), Some(1.0));

const RELATIONS: &[Need] = &[Need { source: FeatureSource::Relations, of: Subject::Relations }];
const RELATIONS_SOURCE: &str = "Based on the figure on relation fidelity in Stellar, arXiv \
    2312.06116, whose code and scene graph were not \
                                published: parser, predicate table, grounding and form of the \
                                score are our own (docs/METRICS.md). \
                                Default scene graph: EGTR, Im et al. 2024, arXiv 2404.02072; \
                                OWL-ViT as for goa";
const RELATIONS_LICENCE: &str = "Apache-2.0 (EGTR, OWL-ViT)";

/// Every metric, in the order of responses.
pub static REGISTRY: &[Metric] = &[
    Metric {
        code: "clip_t",
        title: "CLIP text-image similarity",
        guide: &guide::CLIP_T,
        family: Family::TextToImage,
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { source: clip::IMAGE, of: Subject::Image },
            Need { source: clip::TEXT, of: Subject::Prompt },
        ],
        definition: "Cosine similarity of the CLIP embeddings of the prompt and the generated \
            image, without \
                     logit scale.",
        interpretation: "Adherence of the image to the prompt. Compare values of one CLIP model \
            only: good \
                         images reach about 0.2 to 0.4, and methods typically differ by a few \
                         hundredths.",
        source: "Radford et al. 2021, arXiv 2103.00020; as CLIP_T in Stellar, arXiv 2312.06116",
        licence: "MIT (openai, laion and DataComp checkpoints); CC-BY-NC-4.0 (metaclip)",
        compute: |features| Ok(clip::clip_t(features)),
    },
    Metric {
        code: "clip_i",
        title: "CLIP image-image similarity",
        guide: &guide::CLIP_I,
        family: Family::ImageToImage,
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { source: clip::IMAGE, of: Subject::Image },
            Need { source: clip::IMAGE, of: Subject::References },
        ],
        definition: "Cosine similarity of the CLIP embeddings of the reference image and the \
            generated image; \
                     the mean over several reference images.",
        interpretation: "Overall resemblance to the reference image. Scene and composition count, \
            not only \
                         the person, so pasting the reference image maximises it. Read it together \
                         with \
                         clip_t.",
        source: "Radford et al. 2021, arXiv 2103.00020; as CLIP_I in Stellar, arXiv 2312.06116",
        licence: "MIT (openai, laion and DataComp checkpoints); CC-BY-NC-4.0 (metaclip)",
        compute: |features| Ok(clip::clip_i(features)),
    },
    Metric {
        code: "clip_n",
        title: "CLIP text-reference similarity",
        guide: &guide::CLIP_N,
        family: Family::Support,
        direction: Direction::Support,
        range: COSINE,
        version: 1,
        needs: &[
            Need { source: clip::IMAGE, of: Subject::References },
            Need { source: clip::TEXT, of: Subject::Prompt },
        ],
        definition: "Cosine similarity of the CLIP embeddings of the prompt and the reference \
            image; the mean \
                     over several reference images.",
        interpretation: "Score of the reference image itself for the prompt: the baseline that \
            clip_t must \
                         exceed. It supports the penalty for metric exploitation and does not \
                         measure a \
                         method's quality.",
        source: "Stellar, arXiv 2312.06116",
        licence: "MIT (openai, laion and DataComp checkpoints); CC-BY-NC-4.0 (metaclip)",
        compute: |features| Ok(clip::clip_n(features)),
    },
    Metric {
        code: "aesthetic",
        title: "LAION aesthetic score",
        guide: &guide::AESTHETIC,
        family: Family::Image,
        direction: Direction::HigherIsBetter,
        range: (None, None),
        version: 1,
        needs: &[Need { source: clip::AESTHETIC, of: Subject::Image }],
        definition: "Affine prediction of an aesthetic rating from 1 to 10 from the CLIP ViT-L/14 \
            embedding \
                     of the generated image; not clamped.",
        interpretation: "Mostly between 4 and 7; a difference of 0.1 in the mean over many images \
            is visible. \
                         It depends on neither the prompt nor the person.",
        source: "Schuhmann 2022, improved-aesthetic-predictor (sac+logos+ava1-l14-linearMSE)",
        licence: "Apache-2.0 (head), MIT (CLIP)",
        compute: |features| Ok(clip::aesthetic(features)),
    },
    Metric {
        code: "hpsv1",
        title: "Human preference score v1",
        guide: &guide::HPSV1,
        family: Family::TextToImage,
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { source: preference::HPSV1_IMAGE, of: Subject::Image },
            Need { source: preference::HPSV1_TEXT, of: Subject::Prompt },
        ],
        definition: "Cosine similarity of the embeddings of the prompt and the generated image by \
            a CLIP \
                     ViT-L/14 fine-tuned on human choices, without logit scale.",
        interpretation: "Mostly between 0.15 and 0.25. For one prompt, people are more likely to \
            choose the \
                         image with the higher value; the authors' softmax multiplies differences \
                         by 100.",
        source: "Wu et al. 2023, arXiv 2303.14420",
        licence: "weights published by the authors without a stated licence",
        compute: |features| Ok(preference::hpsv1(features)),
    },
    Metric {
        code: "hpsv2",
        title: "Human preference score v2",
        guide: &guide::HPSV2,
        family: Family::TextToImage,
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { source: preference::HPSV2_IMAGE, of: Subject::Image },
            Need { source: preference::HPSV2_TEXT, of: Subject::Prompt },
        ],
        definition: "Cosine similarity of the embeddings of the prompt and the generated image by \
            a CLIP \
                     ViT-H/14 fine-tuned on human choices, without logit scale. The image is \
                     letterboxed, not \
                     cropped.",
        interpretation: "Mostly between 0.2 and 0.3; a difference of 0.01 in the mean over many \
            images is \
                         clear. Checkpoints v2.0 and v2.1 give different numbers: the provenance \
                         names the \
                         checkpoint.",
        source: "Wu et al. 2023, arXiv 2306.09341",
        licence: "Apache-2.0",
        compute: |features| Ok(preference::hpsv2(features)),
    },
    Metric {
        code: "pick_score",
        title: "PickScore",
        guide: &guide::PICK_SCORE,
        family: Family::TextToImage,
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { source: preference::PICK_IMAGE, of: Subject::Image },
            Need { source: preference::PICK_TEXT, of: Subject::Prompt },
        ],
        definition: "Cosine similarity of the embeddings of the prompt and the generated image by \
            a CLIP \
                     ViT-H/14 fine-tuned on Pick-a-Pic. The evidence has the published value, \
                     which is \
                     multiplied by the logit scale.",
        interpretation: "Mostly between 0.18 and 0.23, published as 18 to 23. For a difference of \
            0.01, the \
                         model's softmax predicts that people choose the better image about 73 \
                         times in 100.",
        source: "Kirstain et al. 2023, arXiv 2305.01569",
        licence: "weights published by the authors without a stated licence",
        compute: |features| Ok(preference::pick_score(features)),
    },
    Metric {
        code: "image_reward",
        title: "ImageReward",
        guide: &guide::IMAGE_REWARD,
        family: Family::TextToImage,
        direction: Direction::HigherIsBetter,
        range: (None, None),
        version: 1,
        needs: &[Need { source: preference::IMAGE_REWARD, of: Subject::ImageWithPrompt }],
        definition: "Reward of BLIP with a head trained on human rankings, normalised by the \
            published mean \
                     0.16717 and standard deviation 1.03334 of the training images. Reads 35 \
                     tokens of the \
                     prompt.",
        interpretation: "A standard score: 0 is a typical image of its training data, 1 is one \
            standard \
                         deviation better; mostly between -2 and 2.",
        source: "Xu et al. 2023, arXiv 2304.05977",
        licence: "Apache-2.0",
        compute: |features| Ok(preference::image_reward(features)),
    },
    Metric {
        code: "dreamsim",
        title: "DreamSim distance",
        guide: &guide::DREAMSIM,
        family: Family::ImageToImage,
        direction: Direction::LowerIsBetter,
        range: (Some(0.0), Some(2.0)),
        version: 1,
        needs: &[
            Need { source: resemblance::DREAMSIM, of: Subject::Image },
            Need { source: resemblance::DREAMSIM, of: Subject::References },
        ],
        definition: "1 minus the cosine similarity of the mean-centred embeddings of the generated \
            image and \
                     the reference image by an ensemble of DINO, CLIP and OpenCLIP ViT-B/16 tuned \
                     on human \
                     similarity judgements; the mean over several reference images.",
        interpretation: "0 for equal images, about 0.5 and more for unrelated ones. Layout and \
            scene count, \
                         so a lower value alone does not mean better identity preservation.",
        source: "Fu et al. 2023, arXiv 2306.09344",
        licence: "MIT",
        compute: |features| Ok(resemblance::dreamsim(features)),
    },
    Metric {
        code: "dino",
        title: "DINO image similarity",
        guide: &guide::DINO,
        family: Family::ImageToImage,
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { source: resemblance::DINO, of: Subject::Image },
            Need { source: resemblance::DINO, of: Subject::References },
        ],
        definition: "Cosine similarity of the DINO ViT-S/16 CLS tokens of the generated image and \
            the \
                     reference image; the mean over several reference images.",
        interpretation: "Resemblance of subject and layout without any text supervision; 1 for \
            equal images. \
                         It is the subject-fidelity measure of DreamBooth, designed for objects \
                         rather than \
                         faces.",
        source: "Caron et al. 2021, arXiv 2104.14294; as subject fidelity in Ruiz et al. 2022, \
            arXiv 2208.12242",
        licence: "Apache-2.0",
        compute: |features| Ok(resemblance::dino(features)),
    },
    Metric {
        code: "ips",
        title: "Identity preservation score",
        guide: &guide::IPS,
        family: Family::Personalised,
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { source: FeatureSource::Faces, of: Subject::Image },
            Need { source: FeatureSource::Faces, of: Subject::References },
        ],
        definition: "Largest cosine similarity of the InceptionResnetV1 embeddings of a face in \
            the generated \
                     image and a face in the reference image, over all faces that MTCNN finds; the \
                     mean over \
                     the reference images with a face. 0 if the generated image has no face; null \
                     if no \
                     reference image has one.",
        interpretation: "Similarity of the generated face to the person's: with the official \
            weights, two \
                         photos of one person mostly reach 0.5 to 0.9, and those of different \
                         people about 0. \
                         An image without a face counts as a failure, 0, and is flagged. \
                         Background faces \
                         count too, so check the matched pair in the evidence.",
        source: "Stellar, arXiv 2312.06116; MTCNN: Zhang et al. 2016, arXiv 1604.02878; \
            embeddings: Schroff et \
                 al. 2015, arXiv 1503.03832, by facenet-pytorch 2.6.0 trained on VGGFace2",
        licence: "MIT (facenet-pytorch)",
        compute: identity::ips,
    },
    Metric {
        code: "sis",
        title: "Identity stability score",
        guide: &guide::SIS,
        family: Family::Personalised,
        direction: Direction::HigherIsBetter,
        range: COSINE,
        version: 1,
        needs: &[
            Need { source: FeatureSource::Faces, of: Subject::Image },
            Need { source: FeatureSource::Faces, of: Subject::Photos },
        ],
        definition: "Smallest identity preservation score of the generated image over all images \
            of the \
                     person, reference and auxiliary; those without a face are left out. 0 if the \
                     generated \
                     image has no face; null if no image of the person has one.",
        interpretation: "Similarity of the generated face to the person's across lighting and \
            pose, not only \
                         those of the reference image; never above ips for the same reference \
                         image. It falls \
                         with the number of images, so compare methods on the same ones.",
        source: "Stellar, arXiv 2312.06116; detection and embeddings as for ips",
        licence: "MIT (facenet-pytorch)",
        compute: identity::sis,
    },
    Metric {
        code: "ips_ceiling",
        title: "Identity ceiling",
        guide: &guide::IPS_CEILING,
        family: Family::Support,
        direction: Direction::Support,
        range: COSINE,
        version: 1,
        needs: &[
            Need { source: FeatureSource::Faces, of: Subject::References },
            Need { source: FeatureSource::Faces, of: Subject::Photos },
        ],
        definition: "Value of ips with another image of the person in place of the generated \
            image: the mean \
                     over the auxiliary images with a face that are not copies of a reference \
                     image. \
                     Independent of the generated image.",
        interpretation: "Score that a real image of the person reaches against the reference \
            image. An ips \
                         near it is as good as identity preservation gets; an ips far above it \
                         indicates a \
                         copy of the reference image rather than knowledge of the person. It \
                         supports ips and \
                         sis and is not ranked.",
        source: "real-to-real similarity as in WithAnyone, Xu et al. 2025, arXiv 2510.14975; \
            detection and \
                 embeddings as for ips",
        licence: "MIT (facenet-pytorch)",
        compute: copies::ips_ceiling,
    },
    Metric {
        code: "copy_paste",
        title: "Copy-paste measure",
        guide: &guide::COPY_PASTE,
        family: Family::Support,
        direction: Direction::Support,
        range: COSINE,
        version: 1,
        needs: &[
            Need { source: FeatureSource::Faces, of: Subject::Image },
            Need { source: FeatureSource::Faces, of: Subject::References },
            Need { source: FeatureSource::Faces, of: Subject::Photos },
        ],
        definition: "(a - b) / c for unit face embeddings: a is the angle between the generated \
            face and that \
                     of another image of the person, b the angle between the generated face and \
                     that of the \
                     reference image, c the angle between the faces of these two images. The mean \
                     over the \
                     reference images and the auxiliary images with a face that are not copies of \
                     a reference \
                     image. Null if the generated image has no face or there is no other image.",
        interpretation: "1 if the face is that of the reference image, 0 if it is equally near to \
            another \
                         image of the person, -1 if it is the face of that image. A high value \
                         together with \
                         a high ips means pasting. An unrelated face also scores near 0, so read \
                         it together \
                         with ips; it is not ranked.",
        source: "WithAnyone, Xu et al. 2025, arXiv 2510.14975; detection and embeddings as for ips",
        licence: "MIT (facenet-pytorch)",
        compute: copies::copy_paste,
    },
    Metric {
        code: "goa",
        title: "Grounding objects accuracy",
        guide: &guide::GOA,
        family: Family::Object,
        direction: Direction::HigherIsBetter,
        range: (Some(0.0), Some(1.0)),
        version: 1,
        needs: &[Need { source: FeatureSource::Objects, of: Subject::Objects }],
        definition: "Mean over the labels in `detectables` of the sigmoid of the largest OWL-ViT \
            logit among \
                     the boxes that fit this label better than the image's other labels; 0 for a \
                     label that \
                     wins no box. Roles of the person are skipped, and labels with equal tokens \
                     count once.",
        interpretation: "Presence of the prompt's objects in the image. Confidences of an \
            open-vocabulary \
                         detector are low: means are mostly between 0.1 and 0.6, so compare \
                         methods on the \
                         same prompts. Labels compete, so an additional label can lower the scores \
                         of the \
                         others.",
        source: "Stellar, arXiv 2312.06116; OWL-ViT: Minderer et al. 2022, arXiv 2205.06230",
        licence: "Apache-2.0",
        compute: objects::goa,
    },
    Metric {
        code: "rfs",
        title: "Relation fidelity score",
        guide: &guide::RFS,
        family: Family::Relation,
        direction: Direction::HigherIsBetter,
        range: (Some(0.0), Some(1.0)),
        version: 1,
        needs: RELATIONS,
        definition: "Mean over the relations of the prompt (person, predicate, object) of the \
            probability of \
                     the best pair of boxes in a scene graph: the probability that the subject is \
                     a person, \
                     times that of the predicate, times that of the object. The object is \
                     recognised by its \
                     class or by the overlap with OWL-ViT's best box for its words. Relations come \
                     from \
                     `relations` in the metadata, else from the prompt. A table maps predicates \
                     that the \
                     graph has under other names.",
        interpretation: "Agreement with the prompt on what the person does, and where. Scene \
            graphs give \
                         small probabilities: expect means of 0.05 to 0.3, so read differences \
                         with their \
                         confidence intervals. Values of different scene graphs, including \
                         published ones, \
                         are not comparable: the provenance names the graph.",
        source: RELATIONS_SOURCE,
        licence: RELATIONS_LICENCE,
        compute: relations::rfs,
    },
    Metric {
        code: "rfs_strict",
        title: "Relation fidelity score, exact predicates",
        guide: &guide::RFS_STRICT,
        family: Family::Relation,
        direction: Direction::HigherIsBetter,
        range: (Some(0.0), Some(1.0)),
        version: 1,
        needs: RELATIONS,
        definition: "As rfs, over the relations whose predicate the scene graph has under exactly \
            that name: \
                     neither the table nor similar predicates are used.",
        interpretation: "The literal reading of the published figure. Fewer prompts have a value: \
            compare \
                         methods on the same ones.",
        source: RELATIONS_SOURCE,
        licence: RELATIONS_LICENCE,
        compute: relations::rfs_strict,
    },
    Metric {
        code: "rfs_interaction",
        title: "Relation fidelity score, interactions",
        guide: &guide::RFS_INTERACTION,
        family: Family::Relation,
        direction: Direction::HigherIsBetter,
        range: (Some(0.0), Some(1.0)),
        version: 1,
        needs: RELATIONS,
        definition: "As rfs, over the relations with a verb (riding a horse).",
        interpretation: "The person's actions, without locations.",
        source: RELATIONS_SOURCE,
        licence: RELATIONS_LICENCE,
        compute: relations::rfs_interaction,
    },
    Metric {
        code: "rfs_location",
        title: "Relation fidelity score, locations",
        guide: &guide::RFS_LOCATION,
        family: Family::Relation,
        direction: Direction::HigherIsBetter,
        range: (Some(0.0), Some(1.0)),
        version: 1,
        needs: RELATIONS,
        definition: "As rfs, over the relations without a verb (next to a shark).",
        interpretation: "The person's location, without actions.",
        source: RELATIONS_SOURCE,
        licence: RELATIONS_LICENCE,
        compute: relations::rfs_location,
    },
    Metric {
        code: "aps",
        title: "Attribute preservation score",
        guide: &guide::APS,
        family: Family::Attribute,
        direction: Direction::HigherIsBetter,
        range: (Some(0.0), Some(1.0)),
        version: 1,
        needs: &[
            Need { source: FeatureSource::Faces, of: Subject::Image },
            Need { source: FeatureSource::Faces, of: Subject::Dataset },
        ],
        definition: "Share of the facial attributes Young, Male, High_Cheekbones, Pointy_Nose, \
            Narrow_Eyes, \
                     Double_Chin, Big_Lips and Big_Nose that are predicted correctly for the \
                     largest face of \
                     the generated image, by logistic regressions (L2, C = 1) fitted on the face \
                     embeddings \
                     of the labelled photos in the sample's dataset. 0 if the image has no face. \
                     Attributes \
                     for which the photos have one kind only, or the sample has no label, are left \
                     out; null \
                     if none is left.",
        interpretation: "Preservation of facial features that people would name. Chance level is \
            about 0.5, \
                         and higher if one kind is common. The value of one image is coarse, at \
                         most 8 \
                         predictions: compare means, or the mean area under the ROC curve of a run \
                         (GET \
                         /v1/runs/{run}/attributes), whose chance level is always 0.5. An image \
                         without a \
                         face counts as a failure, with all predictions wrong, and is flagged.",
        source: "Stellar, arXiv 2312.06116; attributes: CelebA, Liu et al. 2015, arXiv 1411.7766; \
            detection \
                 and embeddings as for ips",
        licence: "MIT (facenet-pytorch)",
        compute: attributes::aps,
    },
];
