//! `stellar-score dataset register`: registers a dataset's prompts and photos with a server.

use std::{
    collections::HashMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::multipart::Form;
use serde_json::json;

use super::{output::print, progress, server::ServerArgs};
use crate::{
    client::{Client, NewPrompt, file_part},
    content::ContentHash,
    dataset::{Dataset, Identity, Photo},
    read,
};

#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    /// The dataset's folder, in the form that `dataset check` takes
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The dataset's name on the server [default: the folder's name]
    #[arg(long)]
    name: Option<String>,
    /// Register prompts only; without photos, `aps` of a single image cannot use the dataset
    #[arg(long)]
    no_photos: bool,
    /// Declare that the photos may be shown to others
    #[arg(long)]
    redistributable: bool,
    /// Number of photos in flight
    #[arg(long, value_name = "N", default_value_t = 4, alias = "at-once")]
    concurrency: usize,
    #[command(flatten)]
    server: ServerArgs,
}

/// Returns the dataset's name: the given one, or its folder's.
pub(super) fn name_of(folder: &Path, given: Option<&String>) -> anyhow::Result<String> {
    if let Some(name) = given {
        return Ok(name.clone());
    }
    let whole =
        folder.canonicalize().with_context(|| format!("cannot read {}", folder.display()))?;
    let name = whole.file_name().map(|name| name.to_string_lossy().into_owned());
    name.context("the folder has no name: set one with --name")
}

pub(super) async fn run(args: RegisterArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    let name = name_of(&args.folder, args.name.as_ref())?;
    let photos = (!args.no_photos).then_some(args.concurrency);
    // Without the flag, an earlier declaration stays.
    let redistributable = args.redistributable.then_some(true);
    print(&register_folder(&client, &args.folder, &name, redistributable, photos).await?)
}

/// Registers the prompts of a folder, whether its photos may be shown to others, and these with so
/// many in flight. Returns what was sent, in words.
pub(super) async fn register_folder(
    client: &Client,
    folder: &Path,
    name: &str,
    redistributable: Option<bool>,
    photos: Option<usize>,
) -> anyhow::Result<String> {
    let (dataset, findings) = Dataset::open(folder)?;
    if findings.fatal() > 0 {
        for problem in findings.list.iter().filter(|problem| problem.fatal) {
            print(&format!("{problem}\n"))?;
        }
        anyhow::bail!("{} has problems: nothing was sent", folder.display());
    }
    let bar = progress::bar("prompts");
    bar.set_length(dataset.prompts.len() as u64);
    let prompts: Vec<NewPrompt<'_>> = dataset
        .prompts
        .iter()
        .map(|prompt| NewPrompt {
            identity: &prompt.identity,
            prompt: &prompt.text,
            kind: prompt.kind.as_deref(),
            categories: &prompt.categories,
            detectables: &prompt.detectables,
            relations: &prompt.relations,
        })
        .collect();
    let registered = client
        .register_prompts(name, &prompts, |done| bar.set_position(done as u64))
        .await
        .context("cannot register all prompts")?;
    bar.finish_and_clear();
    if let Some(value) = redistributable {
        let declared = client.set_redistributable(name, value).await;
        declared.context("cannot declare whether the photos may be shown")?;
    }
    let mut text = format!(
        "{name}: {} prompts registered, {} changed, {} already registered\n",
        registered.created, registered.changed, registered.repeated
    );
    if let Some(concurrency) = photos {
        let photos = enrol(client, name, &dataset, concurrency).await?;
        let _ = writeln!(
            text,
            "{name}: {} photos enrolled, {} already enrolled; {} without a face, which cannot be \
                used",
            photos.sent, photos.present, photos.faceless
        );
    }
    Ok(text)
}

#[derive(Default)]
struct Enrolled {
    sent: usize,
    present: usize,
    faceless: usize,
}

async fn enrol(
    client: &Client,
    name: &str,
    dataset: &Dataset,
    concurrency: usize,
) -> anyhow::Result<Enrolled> {
    let there = client.enrolled(name).await.context("cannot list the enrolled photos")?;
    let there: HashMap<(&str, &str), _> =
        there.iter().map(|photo| ((&*photo.identity, &*photo.name), photo)).collect();
    let bar = progress::bar("photos");
    bar.set_length(dataset.photos() as u64);
    let photos = dataset
        .identities
        .iter()
        .flat_map(|identity| identity.photos.iter().map(move |photo| (identity, photo)));
    let mut enrolled = Enrolled::default();
    let there = &there;
    let mut work = stream::iter(photos)
        .map(|(identity, photo)| async move {
            let path = dataset.file(&photo.path);
            let context = || format!("cannot enrol {}", path.display());
            let bytes = read::bytes_in_background(&path).await.with_context(context)?;
            let known = there.get(&(&*identity.name, &*photo.name)).filter(|known| {
                known.image == ContentHash::of(&bytes).to_hex()
                    && known.attributes == photo.attributes
            });
            if let Some(faces) = known.and_then(|known| known.faces) {
                return anyhow::Ok((false, faces));
            }
            let bytes = Bytes::from(bytes);
            let faces =
                client.enrol(name, || form(identity, photo, &bytes)).await.with_context(context)?;
            Ok((true, faces))
        })
        .buffer_unordered(concurrency.max(1));
    while let Some((sent, faces)) = work.try_next().await? {
        *(if sent { &mut enrolled.sent } else { &mut enrolled.present }) += 1;
        enrolled.faceless += usize::from(faces == 0);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(enrolled)
}

fn form(identity: &Identity, photo: &Photo, bytes: &Bytes) -> Form {
    let about =
        json!({"identity": identity.name, "name": photo.name, "attributes": photo.attributes});
    let file = file_part(bytes, "photo");
    Form::new().text("metadata", about.to_string()).part("photo", file)
}
