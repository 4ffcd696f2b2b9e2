//! Records a sample and everything about it in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use uuid::Uuid;

use super::db::{
    Argument, Column, Connection, Connections, Reader, SCORES_PER_STATEMENT, Sql, StoreError,
    check_name, check_text, json_strings, storable, to_microseconds, with_retries,
};
use super::extras;
use super::faces::lock_needed;
use super::packs::ensure_pack;
use super::pending;
use super::run_name::RunName;
use super::runs::{ensure_run, is_open, lock_runs};
use super::sample::{NewSample, NewScore, RecordOutcome, Recorded, SampleInputs, ScoreValue};
use super::scores::{Change, check_number, stored_scores};
use super::summaries::running;

/// Records a sample that passed [`check`].
pub(super) async fn record<P: Connections>(
    pool: &P,
    sample: &NewSample,
) -> Result<Recorded, StoreError> {
    let scores = in_order(sample);
    with_retries(|| transaction(pool, sample, &scores)).await
}

/// Records a pending sample that passed [`check`] under its existing id, and removes it from the
/// pending ones. Returns `None` if it is no longer pending: it was deleted, or another attempt was
/// faster.
pub(super) async fn record_pending<P: Connections>(
    pool: &P,
    sample: &NewSample,
    run: Uuid,
) -> Result<Option<Recorded>, StoreError> {
    let scores = in_order(sample);
    with_retries(|| pending_transaction(pool, sample, run, &scores)).await
}

/// Sorts scores by metric: all transactions lock summary rows in this order, so that they queue
/// rather than deadlock.
fn in_order(sample: &NewSample) -> Vec<&NewScore> {
    let mut scores: Vec<_> = sample.scores.iter().collect();
    scores.sort_by(|a, b| a.metric.cmp(&b.metric));
    scores
}

async fn transaction<P: Connections>(
    pool: &P,
    sample: &NewSample,
    scores: &[&NewScore],
) -> Result<Recorded, StoreError> {
    let created = to_microseconds(sample.created);
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;

    ensure_pack(connection, &sample.pack, created).await?;
    let run = match &sample.run {
        Some(name) => Some(ensure_run(connection, name, created).await?.0),
        None => None,
    };
    let recorded = write(connection, sample, run, scores).await?;
    if let (Some(run), Some(name)) = (run, &sample.run)
        && recorded.outcome != RecordOutcome::Repeated
        && !is_open(connection, run).await?
    {
        return Err(StoreError::RunFinished { run: name.clone() });
    }
    transaction.commit().await?;
    Ok(recorded)
}

async fn pending_transaction<P: Connections>(
    pool: &P,
    sample: &NewSample,
    run: Uuid,
    scores: &[&NewScore],
) -> Result<Option<Recorded>, StoreError> {
    let created = to_microseconds(sample.created);
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    // A concurrent deletion of the run waits until this ends, or this finds the run gone.
    if lock_runs(connection, &BTreeSet::from([run])).await?.is_empty()
        || !pending::take(connection, sample.id, run, sample.inputs.image).await?
    {
        return Ok(None);
    }
    if let Some(needed) = &sample.extras.faces
        && !needed.are_in(&lock_needed(connection, std::iter::once(needed)).await?)
    {
        return Err(StoreError::FacesNotStored { images: needed.images.len() });
    }
    ensure_pack(connection, &sample.pack, created).await?;
    let recorded = write(connection, sample, Some(run), scores).await?;
    let mut sql = Sql::new("UPDATE runs SET waiting = waiting - 1 WHERE id = ");
    sql.bind(run);
    connection.execute(sql).await?;
    transaction.commit().await?;
    Ok(Some(recorded))
}

/// Writes the sample, its scores, and the run's counts and summaries.
async fn write<C: Connection>(
    connection: &mut C,
    sample: &NewSample,
    run: Option<Uuid>,
    scores: &[&NewScore],
) -> Result<Recorded, StoreError> {
    let (id, is_new) = ensure_sample(connection, sample, run).await?;
    let stored = if is_new {
        BTreeMap::new()
    } else {
        stored_scores(connection, id, &sample.pack.digest).await?
    };
    let changes: Vec<Change<'_>> = scores
        .iter()
        .map(|new| Change { old: stored.get(&new.metric), new })
        .filter(|change| change.old.is_none_or(|old| old.version != change.new.metric_version))
        .collect();

    // Thumbnails are locked before the run by all transactions, so that they queue rather than
    // deadlock. A repetition brings back evidence that has expired.
    let pack = &sample.pack.digest;
    if is_new || !changes.is_empty() || !extras::has_evidence(connection, id, pack).await? {
        extras::insert(connection, &[(id, sample)]).await?;
    } else {
        extras::insert_again(connection, (id, sample)).await?;
    }
    if let Some(run) = run.filter(|_| is_new || !changes.is_empty()) {
        let mut sql = Sql::new("UPDATE runs SET revision = revision + 1, scored = scored + ");
        sql.bind(i64::from(is_new)).push(" WHERE id = ").bind(run);
        connection.execute(sql).await?;
    }
    if !changes.is_empty() {
        let scores: Vec<_> = changes.iter().map(|change| (id, sample, change.new)).collect();
        write_scores(connection, &scores).await?;
        if let Some(run) = run {
            running::update(connection, run, &sample.pack.digest, &changes).await?;
        }
    }
    let outcome = match (is_new, changes.is_empty()) {
        (true, _) => RecordOutcome::Created,
        (false, true) => RecordOutcome::Repeated,
        (false, false) => RecordOutcome::Rescored,
    };
    Ok(Recorded { sample: id, run, outcome })
}

/// Returns the sample's id, and `true` if it is new. An existing row is locked until the
/// transaction ends.
async fn ensure_sample<C: Connection>(
    connection: &mut C,
    sample: &NewSample,
    run: Option<Uuid>,
) -> Result<(Uuid, bool), StoreError> {
    if !insert_samples(connection, &[(sample, run)]).await?.is_empty() {
        return Ok((sample.id, true));
    }
    let name = sample.name();
    let mut sql = Sql::new("SELECT id, content FROM samples WHERE run = ");
    sql.bind(run).push(" AND name = ").bind(&*name).push(connection.lock());
    let rows = connection.fetch(sql).await?;
    let row = rows.first().ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    let row = Reader::new(row, "samples", &*name);
    let existing = row.uuid("id")?;
    if row.text("content")? == sample.inputs.content.to_hex() {
        return Ok((existing, false));
    }
    Err(match &sample.run {
        Some(run) => {
            StoreError::SampleConflict { run: run.clone(), name: name.into_owned(), existing }
        }
        None => row.corrupt("run", "is not null for a sample outside any run"),
    })
}

/// Inserts samples into their runs, and returns the ids that are new: those whose name did not
/// exist.
pub(super) async fn insert_samples<C: Connection>(
    connection: &mut C,
    samples: &[(&NewSample, Option<Uuid>)],
) -> Result<HashSet<Uuid>, StoreError> {
    if samples.is_empty() {
        return Ok(HashSet::new());
    }
    let mut sql = Sql::new("INSERT INTO samples (id, run, name, width, height, created, ");
    sql.push(SampleInputs::COLUMNS).push(") VALUES ");
    sql.tuples(samples.iter().map(|(sample, run)| {
        let own: [Argument; 6] = [
            sample.id.into(),
            (*run).into(),
            (&*sample.name()).into(),
            sample.width.into(),
            sample.height.into(),
            to_microseconds(sample.created).into(),
        ];
        own.into_iter().chain(sample.inputs.arguments())
    }));
    // Samples outside any run have a null run, and nulls never conflict: each one is new.
    sql.push(" ON CONFLICT (run, name) DO NOTHING RETURNING id");
    let rows = connection.fetch(sql).await?;
    let fresh = rows.iter().map(|row| Reader::new(row, "samples", "").uuid("id"));
    let fresh = fresh.collect::<Result<HashSet<_>, _>>()?;
    let added: Vec<_> = samples
        .iter()
        .map(|(sample, _)| *sample)
        .filter(|sample| fresh.contains(&sample.id))
        .collect();
    add_photos(connection, &added).await?;
    Ok(fresh)
}

/// Records the reference and auxiliary images of samples by hash, so that deletion by image finds
/// them.
async fn add_photos<C: Connection>(
    connection: &mut C,
    samples: &[&NewSample],
) -> Result<(), StoreError> {
    let photos: BTreeSet<(Uuid, String)> = samples
        .iter()
        .flat_map(|sample| sample.inputs.photos().map(|photo| (sample.id, photo.to_hex())))
        .collect();
    if photos.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("INSERT INTO sample_photos (sample, image) VALUES ");
    sql.tuples(photos.into_iter().map(|(sample, photo)| [sample.into(), photo.into()]));
    connection.execute(sql).await?;
    Ok(())
}

/// Writes scores of samples, each with the sample's id in the database.
///
/// A statement binds shared values only once, because binding is most of the cost of a row.
pub(super) async fn write_scores<C: Connection>(
    connection: &mut C,
    scores: &[(Uuid, &NewSample, &NewScore)],
) -> Result<(), StoreError> {
    let origin = |sample: &NewSample| (sample.pack.digest.clone(), sample.service_version.clone());
    let origins: BTreeSet<_> = scores.iter().map(|(_, sample, _)| origin(sample)).collect();
    for (pack, version) in origins {
        let of_origin = scores.iter().filter(|(_, sample, _)| {
            (sample.pack.digest.as_str(), sample.service_version.as_str())
                == (pack.as_str(), version.as_str())
        });
        let (plain, others): (Vec<_>, Vec<_>) = of_origin
            .copied()
            .partition(|(_, _, new)| new.value.number().is_some() && new.flags.is_empty());
        for rows in plain.chunks(SCORES_PER_STATEMENT) {
            write_rows(connection, &pack, &version, rows, true).await?;
        }
        for rows in others.chunks(SCORES_PER_STATEMENT) {
            write_rows(connection, &pack, &version, rows, false).await?;
        }
    }
    Ok(())
}

/// Writes scores of one pack and one version of the service; `plain` ones are numbers without
/// flags.
async fn write_rows<C: Connection>(
    connection: &mut C,
    pack: &str,
    service_version: &str,
    rows: &[(Uuid, &NewSample, &NewScore)],
    plain: bool,
) -> Result<(), StoreError> {
    let created = rows.iter().map(|(_, sample, _)| to_microseconds(sample.created)).max();
    let created = created.expect("chunks are not empty");
    let mut sql = Sql::new(
        "INSERT INTO scores (sample, metric, pack, metric_version, value, reason, flags,
             service_version, created)
         SELECT column1, column2, ",
    );
    sql.bind(pack).push(", column3, column4, ");
    sql.push(if plain { "NULL, '[]', " } else { "column5, column6, " });
    sql.bind(service_version).push(", ").bind(created);
    let mut columns = vec![
        Column::Uuid(rows.iter().map(|(id, ..)| *id).collect()),
        Column::texts(rows.iter().map(|(_, _, new)| new.metric.as_str())),
        Column::Int(rows.iter().map(|(_, _, new)| new.metric_version.into()).collect()),
        Column::Real(rows.iter().map(|(_, _, new)| new.value.number().map(storable)).collect()),
    ];
    if !plain {
        let reason = |new: &NewScore| match &new.value {
            ScoreValue::Number(_) => None,
            ScoreValue::Null { reason } => Some(reason.clone()),
        };
        columns.push(Column::Text(rows.iter().map(|(_, _, new)| reason(new)).collect()));
        columns.push(Column::texts(rows.iter().map(|(_, _, new)| json_strings(&new.flags))));
    }
    connection.push_rows(&mut sql, columns);
    sql.push(
        " ON CONFLICT (sample, metric, pack) DO UPDATE SET
             metric_version = excluded.metric_version, value = excluded.value,
             reason = excluded.reason, flags = excluded.flags,
             service_version = excluded.service_version, created = excluded.created",
    );
    connection.execute(sql).await?;
    Ok(())
}

/// Rejects values that a database cannot store, with the same message for both databases.
pub(super) fn check(sample: &NewSample) -> Result<(), StoreError> {
    if let Some(RunName { method, run }) = &sample.run {
        check_name("the method's name", method)?;
        check_name("the run's name", run)?;
    }
    if let Some(name) = &sample.name {
        check_name("the sample's name", name)?;
    }
    check_name("the pack's digest", &sample.pack.digest)?;
    check_name("the pack's name", &sample.pack.name)?;
    check_text("the prompt", sample.inputs.prompt.as_deref().unwrap_or_default())?;
    check_text("the service's version", &sample.service_version)?;
    let mut seen = BTreeSet::new();
    for score in &sample.scores {
        let metric = score.metric.as_str();
        check_name("a metric's code", metric)?;
        if !seen.insert(metric) {
            return Err(StoreError::invalid(
                metric,
                "it is given twice; send one score per metric",
            ));
        }
        match &score.value {
            ScoreValue::Number(value) => check_number(metric, *value)?,
            ScoreValue::Null { reason } => check_name("a null's reason", reason)?,
        }
    }
    Ok(())
}
