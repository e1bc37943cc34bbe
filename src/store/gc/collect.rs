//! A run of the collector: look, move what is needed out of what is to go, condemn; wait; look again, rescue, delete.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::carry::{Carried, carry};
use super::error::GcError;
use super::event::GcEvent;
use super::ledger::Standing;
use super::plan::{Choice, choose};
use super::quiesce::{Patience, Quiet, quiesce, sessions};
use super::report::{CondemnedList, GcPlan, GcReport, GcSpec, NAMED};
use super::roots::{is_older, keys_of};
use super::survey::{List, Survey, Surveyor, abandon, lists};
use super::sweep::{delete_packs, drop_rows, in_good_standing, spent};
use crate::base::{Monotonic, SessionId, Sink, now};
use crate::objects::{Key, ObjectStore};
use crate::store::StoreError;
use crate::store::cache::IndexCache;
use crate::store::compact::compact;
use crate::store::pack::PackName;
use crate::store::session::Session;
use crate::store::view::Condemned;
use crate::store::writer::ChunkWriter;

/// Looks at the store and returns what [`collect`] would do now. Changes nothing.
///
/// # Errors
///
/// Fails where the store does not answer, where a record, a list or a part of a manifest cannot be read, and when `cancel` is
/// cancelled.
pub async fn plan(
    objects: &Arc<dyn ObjectStore>,
    cache: &IndexCache,
    spec: &GcSpec,
    sink: &dyn Sink<GcEvent>,
    cancel: &CancellationToken,
) -> Result<GcPlan, GcError> {
    sink.emit(GcEvent::Step { name: "marking" });
    let surveyor = Surveyor { objects, cache, sink, cancel };
    let survey = surveyor.survey(None, |listing| listing.kept()).await?;
    let choice = choose(&survey.ledger, &survey.open, &survey.unreadable, spec);
    Ok(told(&survey, &choice, spec))
}

/// Collects: condemns what no revision needs, and deletes what was condemned longer than the grace ago, after every session that may
/// not know of it has ended (protocol, G0 to G6).
///
/// May run beside saves, restores and other collections, on any host, and may be stopped at any moment; the next run finishes what this
/// one began. The memory does not grow with the number of revisions: for ten million chunks it stays below 256 MiB.
///
/// # Errors
///
/// Fails where the store does not answer, where a record, a list or a part of a manifest cannot be read, where another collector took
/// this one for dead, and when `cancel` is cancelled. Needed chunks that cannot be read are no error: their packs stay, and the report
/// names them.
pub async fn collect(
    objects: &Arc<dyn ObjectStore>,
    cache: &IndexCache,
    spec: &GcSpec,
    sink: &dyn Sink<GcEvent>,
    cancel: &CancellationToken,
) -> Result<GcReport, GcError> {
    let clock = Monotonic::start();
    let collector = Collector {
        surveyor: Surveyor { objects, cache, sink, cancel },
        spec,
        run: SessionId::generate(),
        report: GcReport::default(),
        spent: Vec::new(),
    };
    let mut report = collector.run().await?;
    report.took = clock.elapsed();
    Ok(report)
}

struct Collector<'a> {
    surveyor: Surveyor<'a>,
    spec: &'a GcSpec,
    run: SessionId,
    report: GcReport,
    /// Tombstones that have done their work, and records that a completed adopt omits: nobody acknowledged them, and nobody will.
    spent: Vec<Key>,
}

impl Collector<'_> {
    fn objects(&self) -> &Arc<dyn ObjectStore> {
        self.surveyor.objects
    }

    async fn run(mut self) -> Result<GcReport, GcError> {
        self.bury_the_dead().await?;
        self.condemn().await?;
        self.delete().await?;
        self.forget().await?;
        let swept = self.objects().sweep(LEFTOVER_AGE).await?;
        self.report.swept = (swept.count, swept.bytes);
        Ok(self.report)
    }

    /// Evicts sessions whose processes are known to have ended: without them their packs are seen as the garbage that they are.
    async fn bury_the_dead(&mut self) -> Result<(), GcError> {
        let open = sessions(&**self.objects()).await?;
        if open.is_empty() {
            return Ok(());
        }
        let patience = Patience { evict_after: Duration::MAX, wait: Some(Duration::ZERO) };
        let quiet = self.quiesce(open, patience).await?;
        self.report.evicted += quiet.evicted.len() as u64;
        Ok(())
    }

    async fn quiesce(&self, of: BTreeSet<SessionId>, patience: Patience) -> Result<Quiet, GcError> {
        let Surveyor { objects, sink, cancel, .. } = self.surveyor;
        quiesce(&**objects, self.run, of, patience, sink, cancel).await
    }

    /// G0 and G1.
    async fn condemn(&mut self) -> Result<(), GcError> {
        self.surveyor.sink.emit(GcEvent::Step { name: "marking" });
        let mut survey = self.surveyor.survey(Some("collect"), |listing| listing.kept()).await?;
        let choice = choose(&survey.ledger, &survey.open, &survey.unreadable, self.spec);
        self.report.plan = told(&survey, &choice, self.spec);
        self.report.lost.extend(survey.lost.0.iter().copied());
        self.spent = survey.listing.spent_tombstones(self.spec.keep_lists, now())?;
        for refused in &survey.listing.refused {
            self.spent.push(refused.key()?);
        }
        let Some(session) = survey.session.take() else { return Ok(()) };
        match self.condemn_in(&session, &survey, &choice).await {
            Ok(()) => {
                session.abandon().await;
                Ok(())
            }
            Err(error) => Err(abandon(Some(session), error).await),
        }
    }

    async fn condemn_in(
        &mut self,
        session: &Session,
        survey: &Survey,
        choice: &Choice,
    ) -> Result<(), GcError> {
        let writer = Arc::new(ChunkWriter::new(session, Arc::clone(&survey.view), None));
        let doomed: BTreeSet<u32> = choice.packs.iter().map(|(number, _)| *number).collect();
        let carried = self.carry(session, &writer, survey, &doomed).await?;
        let condemned: Vec<_> =
            choice.packs.iter().filter(|(number, _)| !carried.stuck.contains(number)).collect();
        if !condemned.is_empty() {
            // What was copied may be relied on only while the session counts.
            in_good_standing(session).await?;
            self.surveyor.sink.emit(GcEvent::Step { name: "condemning" });
            let keys = condemned.iter().map(|(_, planned)| Ok(planned.pack.key()?.to_string()));
            let list = Condemned {
                version: 1,
                condemned: Some(now()),
                packs: keys.collect::<Result<_, GcError>>()?,
            };
            let bytes = serde_json::to_vec(&list)
                .map_err(|source| StoreError::Local { action: "write a list", source: source.into() })?;
            self.objects().put(&Key::new(format!("gc/{}", self.run))?, bytes.into()).await?;
        }
        let bytes = condemned.iter().map(|(_, planned)| planned.bytes).sum();
        self.report.condemned = (condemned.len() as u64, bytes);
        let compacted = compact(session, &survey.view, writer.next_number()).await?;
        if compacted.merged > 0 {
            self.report.rewritten_segments.0 += compacted.merged as u64;
            self.report.rewritten_segments.1 += 1;
        }
        Ok(())
    }

    /// Copies what is needed out of packs, and indexes the copies.
    async fn carry(
        &mut self,
        session: &Session,
        writer: &Arc<ChunkWriter>,
        survey: &Survey,
        doomed: &BTreeSet<u32>,
    ) -> Result<Carried, GcError> {
        let has_live = |number: &u32| survey.ledger.get(*number).is_some_and(|pack| pack.live_chunks > 0);
        if !doomed.iter().any(has_live) {
            return Ok(Carried::default());
        }
        let Surveyor { sink, cancel, .. } = self.surveyor;
        sink.emit(GcEvent::Step { name: "copying" });
        let Survey { fetcher, marks, ledger, .. } = survey;
        let carried = carry(fetcher, writer, marks, ledger, doomed, sink, cancel).await;
        let carried = match carried {
            Ok(carried) => carried,
            Err(error) => {
                // What is in the store already need not be copied again.
                writer.index_uploaded().await;
                return Err(error);
            }
        };
        let written = writer.flush().await?;
        in_good_standing(session).await?;
        self.report.moved.0 += carried.chunks;
        self.report.moved.1 += carried.raw_bytes;
        self.report.written_bytes += written.stored_bytes;
        let stuck = carried.stuck.iter().filter_map(|number| ledger.get(*number));
        self.report.stuck.extend(stuck.map(|pack| pack.info.pack));
        let room = NAMED.saturating_sub(self.report.lost.len());
        self.report.lost.extend(carried.lost.iter().take(room).copied());
        Ok(carried)
    }

    /// G2 to G6, where there is anything to delete.
    async fn delete(&mut self) -> Result<(), GcError> {
        let Surveyor { objects, cache, sink, .. } = self.surveyor;
        let mut lists = lists(&**objects).await?;
        lists.retain(|list| is_older(list.condemned, self.spec.grace, now()));
        let mut done = spent(objects, cache, &lists).await?;
        let due: Vec<List> =
            lists.into_iter().filter(|list| !done.iter().any(|done| done.key == list.key)).collect();
        done.retain(|list| is_older(list.condemned, self.spec.keep_lists, now()));
        // G2.
        let open = sessions(&**objects).await?;
        let is_old = |session: &SessionId| is_older(session.timestamp(), self.spec.grace, now());
        if due.is_empty() && done.is_empty() && !open.iter().any(is_old) {
            return Ok(());
        }
        sink.emit(GcEvent::Step { name: "waiting" });
        let patience = Patience { evict_after: self.spec.evict_after, wait: self.spec.wait };
        let quiet = self.quiesce(open, patience).await?;
        self.report.evicted += quiet.evicted.len() as u64;
        if !quiet.is_quiet {
            self.report.still_open = sessions(&**objects).await?.len() as u64;
            return Ok(());
        }
        // Whoever did not know of these condemnations has ended: what is true of the lists now stays true.
        let keys: Vec<Key> = spent(objects, cache, &done).await?.into_iter().map(|list| list.key).collect();
        objects.delete(&keys).await?;
        if due.is_empty() {
            return Ok(());
        }
        sink.emit(GcEvent::Step { name: "marking again" });
        let (grace, now) = (self.spec.grace, now());
        let mut survey = self
            .surveyor
            .survey(Some("collect"), |listing| {
                let mut roots = listing.restorable(grace, now);
                roots.retain(|revision| !quiet.refuses(revision));
                roots
            })
            .await?;
        let Some(session) = survey.session.take() else { return Ok(()) };
        match self.delete_in(&session, &survey, &due).await {
            Ok(()) => {
                session.abandon().await;
                Ok(())
            }
            Err(error) => Err(abandon(Some(session), error).await),
        }
    }

    async fn delete_in(&mut self, session: &Session, survey: &Survey, due: &[List]) -> Result<(), GcError> {
        let Surveyor { objects, sink, .. } = self.surveyor;
        // G5: whatever is needed and has no place to rely on outside condemned packs gets one, be those due or not.
        let writer = Arc::new(ChunkWriter::new(session, Arc::clone(&survey.view), None));
        let unsafe_packs = survey.ledger.packs().filter(|(_, pack)| {
            matches!(pack.standing, Standing::Condemned | Standing::Unindexed) && pack.live_chunks > 0
        });
        let unsafe_packs = unsafe_packs.map(|(number, _)| number).collect();
        let carried = self.carry(session, &writer, survey, &unsafe_packs).await?;
        in_good_standing(session).await?;
        // G6.
        sink.emit(GcEvent::Step { name: "deleting" });
        let stays = |pack: &PackName| {
            survey
                .ledger
                .number(pack)
                .is_some_and(|number| carried.stuck.contains(&number) || survey.unreadable.contains(&number))
        };
        let gone: Vec<PackName> =
            due.iter().flat_map(|list| &list.packs).filter(|pack| !stays(pack)).copied().collect();
        let there = gone.iter().filter_map(|pack| survey.ledger.get(survey.ledger.number(pack)?));
        let there = there.filter(|pack| pack.standing != Standing::Gone);
        let (count, bytes) = there.fold((0, 0), |(count, bytes), pack| (count + 1, bytes + pack.info.size));
        delete_packs(&**objects, &gone).await?;
        self.report.deleted = (count, bytes);
        sink.emit(GcEvent::Step { name: "rewriting the index" });
        let gone: HashSet<PackName> = gone.into_iter().collect();
        let (went, came) = drop_rows(session, &writer, &survey.view, self.surveyor.cache, &gone).await?;
        self.report.rewritten_segments.0 += went;
        self.report.rewritten_segments.1 += came;
        Ok(())
    }

    /// Deletes the records of revisions that were removed longer than the grace ago, and what else nothing counts any more.
    async fn forget(&mut self) -> Result<(), GcError> {
        let objects = self.objects();
        let forgetting = stream::iter(self.report.plan.expired.clone())
            .map(|revision| async move {
                Ok::<_, GcError>(objects.delete(&keys_of(&**objects, &revision).await?).await?)
            })
            .buffer_unordered(FORGETS);
        let forgotten: Vec<()> = forgetting.try_collect().await?;
        objects.delete(&self.spent).await?;
        self.report.forgotten = forgotten.len() as u64;
        Ok(())
    }
}

/// Records that are deleted at the same time.
const FORGETS: usize = 8;
/// Files that killed saves left are older than this.
const LEFTOVER_AGE: Duration = Duration::from_hours(24);

/// Tells a plan.
fn told(survey: &Survey, choice: &Choice, spec: &GcSpec) -> GcPlan {
    let now = now();
    let there = |pack: &PackName| {
        let pack = survey.ledger.get(survey.ledger.number(pack)?)?;
        (pack.standing != Standing::Gone).then_some(pack.info.size)
    };
    let mut lists: Vec<CondemnedList> = survey
        .lists
        .iter()
        .map(|list| CondemnedList {
            key: list.key.to_string(),
            condemned: list.condemned,
            is_due: is_older(list.condemned, spec.grace, now),
            packs: list.packs.iter().filter_map(there).count() as u64,
            bytes: list.packs.iter().filter_map(there).sum(),
        })
        .collect();
    lists.sort_by_key(|list| list.condemned);
    let packs = || survey.ledger.packs().map(|(_, pack)| pack).filter(|pack| pack.standing != Standing::Gone);
    GcPlan {
        revisions: survey.revisions,
        manifest_chunks: survey.manifest_chunks,
        chunks: packs().map(|pack| pack.live_chunks).sum(),
        stored_bytes: packs().map(|pack| pack.info.size).sum(),
        dead_bytes: choice.dead_bytes,
        left_bytes: choice.left_bytes,
        condemn: choice.packs.iter().map(|(_, planned)| *planned).collect(),
        lists,
        expired: survey.listing.expired(spec.grace, now),
        open_sessions: survey.open.len() as u64,
        segments: survey.view.opened().len() as u64,
        lost: survey.lost.clone(),
    }
}
