//! Reads the columns of a run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use uuid::Uuid;

use super::template::template;
use super::{MetricColumn, RelationKinds, RunData};
use crate::blocking::blocking;
use crate::pack_id::PackId;
use crate::store::Store;
use crate::store::datasets::Attributes;
use crate::store::db::{Connection, Connections, Reader, Row, Sql, StoreError, on_backend};
use crate::store::packs::read_pack;
use crate::store::run_name::RunName;
use crate::store::summaries::slice::Slice;
use crate::text::relations::{RelationKind, annotated, relations, relations_of};

/// Samples per read, with all their scores: a few megabytes in flight, whatever the size of the
/// run.
const BATCH: usize = 1_000;

impl Store {
    /// Reads a run as columns with the scores of one pack: the one with this digest, or else the
    /// one that most of its scores belong to. `None` if no run has this id.
    ///
    /// Cached until the run changes: reading 5,000 samples takes some 100 ms.
    pub async fn run_data(
        &self,
        run: Uuid,
        pack: Option<&str>,
    ) -> Result<Option<Arc<RunData>>, StoreError> {
        on_backend!(self, pool => {
            let Some((revision, empty)) = find(pool, run, pack).await? else { return Ok(None) };
            // A pack without scores of the run has its own, empty columns.
            let own = || empty.pack.as_ref().map(|pack| pack.digest.clone());
            let digest = pack.map(ToOwned::to_owned).or_else(own);
            // Boxed: this future is part of those of many handlers.
            let reading = Box::pin(read(pool, empty));
            self.runs.get((run, revision, digest), reading).await.map(Some)
        })
    }

    /// Reads samples of several runs, by run and name, as if they were one run, with the scores of
    /// the pack with this digest. Each sample is named `RUN_ID/NAME`. Cached runs are not read
    /// again.
    pub async fn samples_data(
        &self,
        wanted: &BTreeMap<Uuid, BTreeSet<String>>,
        pack: &str,
    ) -> Result<RunData, StoreError> {
        on_backend!(self, pool => {
            let mut all = RunData::empty(Uuid::nil(), RunName::new("", None), None);
            for (run, revision) in revisions(pool, wanted.keys()).await? {
                let names = &wanted[&run];
                let data = match self.runs.peek(&(run, revision, Some(pack.to_owned()))) {
                    Some(cached) => {
                        let mut data = RunData::clone(&cached);
                        data.restrict(names);
                        data
                    }
                    None => read_some(pool, run, names, pack).await?,
                };
                all.append(data);
            }
            all.metrics.retain(|_, column| column.is_measured());
            all.fill();
            Ok(all)
        })
    }

    /// Returns the names of at most `most` samples of a run, evenly spaced in their order.
    pub async fn sample_names(
        &self,
        run: Uuid,
        most: usize,
    ) -> Result<BTreeSet<String>, StoreError> {
        on_backend!(self, pool => sample_names(pool, run, most).await)
    }
}

/// Metadata fields that analysis needs; all others are ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Facts {
    identity: Option<String>,
    prompt_kind: Option<String>,
    categories: Vec<String>,
    attributes: Attributes,
    detectables: Vec<String>,
    relations: Vec<[String; 3]>,
    finegrained_attributes: BTreeMap<String, i64>,
}

/// What analysis reads in a prompt.
struct PromptFacts {
    kinds: RelationKinds,
    predicates: Vec<String>,
    template: Option<String>,
}

impl PromptFacts {
    /// Uses annotated relations if there are any; otherwise the relations of the detectables in the
    /// prompt, or all relations in the prompt.
    fn of(prompt: &Prompt) -> Self {
        let mut found = match &prompt.text {
            _ if !prompt.relations.is_empty() => annotated(&prompt.relations),
            None => Vec::new(),
            Some(text) if prompt.detectables.is_empty() => relations(text),
            Some(text) => relations_of(text, &prompt.detectables),
        };
        let has = |kind| found.iter().any(|relation| relation.kind == kind);
        let kinds = RelationKinds {
            interaction: has(RelationKind::Interaction),
            location: has(RelationKind::Location),
        };
        let predicates =
            found.drain(..).map(|relation| relation.predicate.trim().to_lowercase()).collect();
        let template = prompt.text.as_deref().and_then(|text| template(text, &prompt.detectables));
        Self { kinds, predicates, template }
    }
}

/// A prompt with the annotations from which its relations are derived.
struct Prompt {
    text: Option<String>,
    detectables: Vec<String>,
    relations: Vec<[String; 3]>,
}

/// Returns the facts of all prompts. Parsing prompts takes CPU time, so it does not run on a thread
/// that serves requests.
async fn prompt_facts(prompts: Vec<Prompt>) -> Vec<PromptFacts> {
    blocking(move || prompts.iter().map(PromptFacts::of).collect()).await
}

/// Returns a run's revision, and its data without samples and scores.
///
/// The revision is read first, so that it is never newer than the data that are read after it.
async fn find<P: Connections>(
    pool: &P,
    run: Uuid,
    pack: Option<&str>,
) -> Result<Option<(u64, RunData)>, StoreError> {
    let mut connection = pool.reader().await?;
    let connection = &mut *connection;
    let mut sql = Sql::new(
        "SELECT methods.name AS method, runs.name, revision FROM runs
         JOIN methods ON methods.id = runs.method
         WHERE runs.id = ",
    );
    sql.bind(run);
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row = Reader::new(row, "runs", run);
    let name = RunName { method: row.text("method")?, run: row.text("name")? };
    let revision = row.int("revision")?;
    Ok(Some((revision, RunData::empty(run, name, find_pack(connection, run, pack).await?))))
}

/// Reads all samples and scores.
async fn read<P: Connections>(pool: &P, mut data: RunData) -> Result<RunData, StoreError> {
    let mut connection = pool.reader().await?;
    let connection = &mut *connection;
    if let Some(pack) = &data.pack {
        data.metrics = newest_versions(connection, data.run, &pack.digest).await?;
    }
    loop {
        let (more, prompts) = data.read_samples(connection).await?;
        data.add_facts(prompt_facts(prompts).await);
        if !more {
            break;
        }
    }
    data.fill();
    Ok(data)
}

async fn sample_names<P: Connections>(
    pool: &P,
    run: Uuid,
    most: usize,
) -> Result<BTreeSet<String>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut sql = Sql::new("SELECT name FROM samples WHERE run = ");
    sql.bind(run).push(" ORDER BY name");
    let rows = connection.fetch(sql).await?;
    let taken = rows.len().min(most);
    let names = (0..taken)
        .map(|at| Reader::new(&rows[at * rows.len() / taken], "samples", run).text("name"));
    names.collect()
}

/// Returns the revisions of those of these runs that exist, in order of their ids.
async fn revisions<P: Connections>(
    pool: &P,
    runs: impl Iterator<Item = &Uuid>,
) -> Result<BTreeMap<Uuid, u64>, StoreError> {
    let mut connection = pool.reader().await?;
    let runs: Vec<Uuid> = runs.copied().collect();
    let mut found = BTreeMap::new();
    for runs in runs.chunks(BATCH) {
        let mut sql = Sql::new("SELECT id, revision FROM runs WHERE id IN ");
        sql.tuple(runs.iter().map(|id| (*id).into()));
        for row in &connection.fetch(sql).await? {
            let row = Reader::new(row, "runs", "with samples");
            found.insert(row.uuid("id")?, row.int("revision")?);
        }
    }
    Ok(found)
}

/// Reads the samples of a run that have these names, with their scores of the pack.
async fn read_some<P: Connections>(
    pool: &P,
    run: Uuid,
    names: &BTreeSet<String>,
    pack: &str,
) -> Result<RunData, StoreError> {
    let mut connection = pool.reader().await?;
    let connection = &mut *connection;
    let mut data = RunData::empty(run, RunName::new("", None), None);
    data.metrics = newest_versions(connection, run, pack).await?;
    let mut prompts = Vec::new();
    for names in names.iter().collect::<Vec<_>>().chunks(BATCH) {
        let mut sql =
            Sql::new("SELECT id, name, prompt, width, height, metadata FROM samples WHERE run = ");
        sql.bind(run).push(" AND name IN ").tuple(names.iter().map(|name| name.as_str().into()));
        sql.push(" ORDER BY name");
        let mut places = HashMap::new();
        for row in &connection.fetch(sql).await? {
            let row = Reader::new(row, "samples", format!("of run {run}"));
            places.insert(row.uuid("id")?, data.names.len());
            prompts.push(data.add_sample(&row)?);
        }
        if places.is_empty() {
            continue;
        }
        let mut sql = Sql::new(
            "SELECT sample, metric, metric_version, value, reason, flags FROM scores WHERE pack = ",
        );
        sql.bind(pack).push(" AND sample IN ").tuple(places.keys().map(|id| (*id).into()));
        for row in &connection.fetch(sql).await? {
            let row = Reader::new(row, "scores", format!("of run {run}"));
            data.add_score(places[&row.uuid("sample")?], &row)?;
        }
    }
    data.add_facts(prompt_facts(prompts).await);
    data.fill();
    Ok(data)
}

/// Finds the pack with this digest, or the one that most of the run's scores belong to.
async fn find_pack<C: Connection>(
    connection: &mut C,
    run: Uuid,
    pack: Option<&str>,
) -> Result<Option<PackId>, StoreError> {
    let mut sql = Sql::new(
        "SELECT digest, packs.name, weights FROM summaries
         JOIN packs ON packs.digest = summaries.pack
         WHERE run = ",
    );
    sql.bind(run).push(" AND n + nulls > 0");
    if let Some(pack) = pack {
        sql.push(" AND digest = ").bind(pack);
    }
    sql.push(" GROUP BY digest, packs.name, weights ORDER BY SUM(n + nulls) DESC, digest LIMIT 1");
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row = Reader::new(row, "packs", pack.unwrap_or_default());
    read_pack(&row, "digest", "name").map(Some)
}

/// Returns an empty column for each metric that the run has scores of, with the newest version that
/// it has.
async fn newest_versions<C: Connection>(
    connection: &mut C,
    run: Uuid,
    pack: &str,
) -> Result<BTreeMap<String, MetricColumn>, StoreError> {
    let mut sql = Sql::new(
        "SELECT metric, MAX(metric_version) AS newest FROM summaries
         WHERE n + nulls > 0 AND run = ",
    );
    sql.bind(run).push(" AND pack = ").bind(pack).push(" GROUP BY metric");
    let rows = connection.fetch(sql).await?;
    let columns = rows.iter().map(|row| {
        let row = Reader::new(row, "summaries", run);
        Ok((
            row.text("metric")?,
            MetricColumn { version: row.int("newest")?, ..MetricColumn::default() },
        ))
    });
    columns.collect()
}

impl RunData {
    /// Reads the next batch of samples and their scores. Returns `true` if the batch was full, and
    /// the prompts.
    async fn read_samples<C: Connection>(
        &mut self,
        connection: &mut C,
    ) -> Result<(bool, Vec<Prompt>), StoreError> {
        let after = self.names.last().cloned();
        let mut sql =
            Sql::new("SELECT name, prompt, width, height, metadata FROM samples WHERE run = ");
        sql.bind(self.run);
        if let Some(after) = &after {
            sql.push(" AND name > ").bind(after.as_str());
        }
        sql.push(" ORDER BY name LIMIT ").bind(BATCH as i64);
        let first = self.names.len();
        let run = self.run;
        let mut prompts = Vec::new();
        let take = |row: &C::Row| {
            prompts.push(self.add_sample(&Reader::new(row, "samples", run))?);
            Ok(())
        };
        connection.each(sql, take).await?;
        self.read_scores(connection, first, after.as_deref()).await?;
        Ok((self.names.len() - first == BATCH, prompts))
    }

    /// Reads the scores of the samples from position `first` on, which are those after the name
    /// `after`.
    ///
    /// One row per sample with all its numbers: one row per number would cost several times as
    /// much.
    async fn read_scores<C: Connection>(
        &mut self,
        connection: &mut C,
        first: usize,
        after: Option<&str>,
    ) -> Result<(), StoreError> {
        let Self { run, pack, names, metrics, .. } = self;
        let run = *run;
        let (Some(last), Some(pack)) = (names[first..].last(), pack) else { return Ok(()) };
        if metrics.is_empty() {
            return Ok(());
        }
        let of_samples = |mut sql: Sql| {
            sql.push(
                " FROM samples JOIN scores ON scores.sample = samples.id WHERE samples.run = ",
            )
            .bind(run);
            sql.push(" AND scores.pack = ").bind(pack.digest.as_str());
            if let Some(after) = after {
                sql.push(" AND samples.name > ").bind(after);
            }
            sql.push(" AND samples.name <= ").bind(last.as_str());
            sql
        };
        // A sample that was added between the statements is not part of this read.
        let place = |row: &Reader<'_, C::Row>| {
            let name = row.text("name")?;
            Ok::<_, StoreError>(names[first..].binary_search(&name).ok().map(|place| first + place))
        };
        let mut sql = Sql::new(
            "SELECT samples.name,
                 MAX(CASE WHEN reason IS NULL AND flags = '[]' THEN NULL ELSE metric END)
                     AS remarked",
        );
        for (metric, column) in metrics.iter_mut() {
            column.values.resize(names.len(), None);
            sql.push(", MAX(CASE WHEN metric = ")
                .bind(metric.as_str())
                .push(" AND metric_version = ");
            sql.bind(column.version).push(" THEN value END)");
        }
        let mut sql = of_samples(sql);
        sql.push(" GROUP BY samples.name");
        let mut remarked = false;
        let take = |row: &C::Row| {
            let row = Reader::new(row, "scores", run);
            let Some(place) = place(&row)? else { return Ok(()) };
            remarked |= row.optional_text("remarked")?.is_some();
            for (at, column) in metrics.values_mut().enumerate() {
                column.values[place] = row.optional_real_at(2 + at, "value")?;
            }
            Ok(())
        };
        connection.each(sql, take).await?;
        if !remarked {
            return Ok(());
        }
        let sql = Sql::new("SELECT samples.name, metric, metric_version, reason, flags");
        let mut sql = of_samples(sql);
        sql.push(" AND (reason IS NOT NULL OR flags <> '[]')");
        let take = |row: &C::Row| {
            let row = Reader::new(row, "scores", run);
            let Some(place) = place(&row)? else { return Ok(()) };
            let version: u32 = row.int("metric_version")?;
            match metrics.get_mut(&row.text("metric")?) {
                Some(column) if column.version == version => column.remark(place, &row),
                _ => Ok(()),
            }
        };
        connection.each(sql, take).await
    }

    /// Adds a sample, and returns the prompt from which its relations are derived.
    fn add_sample<R: Row>(&mut self, row: &Reader<'_, R>) -> Result<Prompt, StoreError> {
        let facts: Facts = row.json("metadata")?;
        let place = self.names.len() as u32;
        for label in &facts.detectables {
            self.add_label(Slice::DETECTABLE, label.trim().to_lowercase(), place);
        }
        for (name, level) in &facts.finegrained_attributes {
            self.add_label(Slice::FINE_ATTRIBUTE, format!("{name}={level}"), place);
        }
        let prompt = Prompt {
            text: row.optional_text("prompt")?,
            detectables: facts.detectables,
            relations: facts.relations,
        };
        self.names.push(row.text("name")?);
        self.sizes.push(row.optional_int("width")?.zip(row.optional_int("height")?));
        self.identities.push(facts.identity);
        self.prompt_kinds.push(facts.prompt_kind);
        self.categories.push(facts.categories);
        for (name, present) in facts.attributes {
            let Some(places) = self.attribute(name) else { continue };
            if present { places.present.push(place) } else { places.absent.push(place) }
        }
        Ok(prompt)
    }

    /// Adds what was read in the next prompts, in the order of the samples.
    fn add_facts(&mut self, facts: Vec<PromptFacts>) {
        for PromptFacts { kinds, predicates, template } in facts {
            let place = self.relations.len() as u32;
            self.relations.push(kinds);
            for predicate in predicates {
                self.add_label(Slice::PREDICATE, predicate, place);
            }
            if let Some(template) = template {
                self.add_label(Slice::TEMPLATE, template, place);
            }
        }
    }

    /// Adds a score, unless it is of an older version of its metric.
    fn add_score<R: Row>(&mut self, place: usize, row: &Reader<'_, R>) -> Result<(), StoreError> {
        let version: u32 = row.int("metric_version")?;
        match self.metrics.get_mut(&row.text("metric")?) {
            Some(column) if column.version == version => {
                column.values.resize(self.names.len(), None);
                column.values[place] = row.optional_real("value")?;
                column.remark(place, row)
            }
            _ => Ok(()),
        }
    }
}

impl MetricColumn {
    /// Records the reason and the flags of a sample's score.
    fn remark<R: Row>(&mut self, place: usize, row: &Reader<'_, R>) -> Result<(), StoreError> {
        if let Some(reason) = row.optional_text("reason")? {
            self.reasons.entry(reason).or_default().push(place);
        }
        for flag in row.json::<Vec<String>>("flags")? {
            self.flags.entry(flag).or_default().push(place);
        }
        Ok(())
    }
}
