//! Repairing what can be: an index that lacks packs, has damaged segments or names packs that are gone, and packs that are damaged.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::error::GcError;
use super::event::GcEvent;
use super::ledger::{Ledger, Standing};
use super::survey::{Surveyor, abandon, lists};
use super::sweep::{drop_rows, in_good_standing};
use crate::base::{SessionId, Sink, now};
use crate::objects::{Key, ObjectStore, Prefix};
use crate::store::StoreError;
use crate::store::cache::IndexCache;
use crate::store::pack::{PackInfo, PackName, PackTable};
use crate::store::segment::{encode, name, rows_of};
use crate::store::session::Session;
use crate::store::verify::verify;
use crate::store::view::{Condemned, View};
use crate::store::writer::ChunkWriter;

/// Packs that are looked at, or read, at the same time.
const PACKS: usize = 4;
/// A new segment is closed once it has this many rows.
const ROWS: usize = 256 << 10;

/// How to repair.
#[derive(Debug, Clone, Copy, Default)]
pub struct RepairSpec {
    /// Whether every byte of every pack is read; without it only packs are found whose tables cannot be read.
    pub read_data: bool,
    /// Whether only to tell what would be done.
    pub dry_run: bool,
}

/// What was repaired.
#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// Damaged segments of the index that were dropped.
    pub dropped_segments: Vec<Key>,
    /// Packs that the index lacked and has now.
    pub indexed: Vec<PackName>,
    /// Packs that the index named and that are gone.
    pub gone: Vec<PackName>,
    /// Damaged packs that were condemned: the next save of what they hold writes it anew.
    pub condemned: Vec<PackName>,
    /// Packs that were read whole.
    pub read: u64,
}

impl RepairReport {
    /// Returns whether there was nothing to repair.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.dropped_segments.is_empty()
            && self.indexed.is_empty()
            && self.gone.is_empty()
            && self.condemned.is_empty()
    }
}

/// Makes the index true again out of the tables of the packs, and condemns packs that are damaged.
///
/// A chunk that is damaged comes back with the next save that has it; until then the revisions that need it cannot be restored whole.
/// What can be read of a condemned pack is moved by the collector. May run beside everything else. Changes neither records nor packs.
///
/// # Errors
///
/// Fails where the store does not answer, and when `cancel` is cancelled.
pub async fn repair(
    objects: &Arc<dyn ObjectStore>,
    cache: &IndexCache,
    spec: &RepairSpec,
    sink: &dyn Sink<GcEvent>,
    cancel: &CancellationToken,
) -> Result<RepairReport, GcError> {
    sink.emit(GcEvent::Step { name: "looking" });
    let session = match spec.dry_run {
        true => None,
        false => Some(Session::open(Arc::clone(objects), "repair").await?),
    };
    let work = Repair { surveyor: Surveyor { objects, cache, sink, cancel }, spec };
    match work.run(session.as_ref()).await {
        Ok(report) => {
            if let Some(session) = session {
                session.abandon().await;
            }
            Ok(report)
        }
        Err(error) => Err(abandon(session, error).await),
    }
}

struct Repair<'a> {
    surveyor: Surveyor<'a>,
    spec: &'a RepairSpec,
}

impl Repair<'_> {
    async fn run(&self, session: Option<&Session>) -> Result<RepairReport, GcError> {
        let Surveyor { objects, cache, sink, .. } = self.surveyor;
        let mut listed = objects.list(&Prefix::new("packs")?).await?;
        listed.extend(objects.list(&Prefix::new("meta")?).await?);
        let open = super::quiesce::sessions(&**objects).await?;
        let lists = lists(&**objects).await?;
        let (view, damaged) = View::load_sound(&**objects, cache).await?;
        let view = Arc::new(view);
        let mut report = RepairReport { dropped_segments: damaged, ..RepairReport::default() };
        let ledger = self.surveyor.ledger(&view, &lists, listed).await?;
        let of = |standing: Standing| {
            let packs = ledger.packs().map(|(_, pack)| pack).filter(move |pack| pack.standing == standing);
            packs.map(|pack| pack.info).collect::<Vec<_>>()
        };
        report.gone = of(Standing::Gone).iter().map(|info| info.pack).collect();
        let mut bad = BTreeSet::new();
        // What a writer that lives has not indexed yet it will.
        let unindexed: Vec<PackInfo> = of(Standing::Unindexed)
            .into_iter()
            .filter(|info| !open.contains(&info.pack.name.session))
            .collect();
        let tables = self.surveyor.tables(unindexed).await?;
        let mut found = Vec::new();
        for (info, table) in tables {
            match table {
                Some(table) => found.push((info, table)),
                None => {
                    bad.insert(info.pack);
                }
            }
        }
        if self.spec.read_data {
            sink.emit(GcEvent::Step { name: "reading packs" });
            let known = of(Standing::Sound).into_iter().chain(found.iter().map(|(info, _)| *info));
            let known: Vec<PackInfo> = known.collect();
            report.read = known.len() as u64;
            bad.extend(self.read(known, &ledger).await?);
        } else {
            let known = self.surveyor.tables(of(Standing::Sound)).await?;
            bad.extend(known.iter().filter(|(_, table)| table.is_none()).map(|(info, _)| info.pack));
        }
        found.retain(|(info, _)| !bad.contains(&info.pack));
        report.indexed = found.iter().map(|(info, _)| info.pack).collect();
        report.condemned = bad.into_iter().collect();
        if let Some(session) = session {
            self.write(session, &view, &report, found).await?;
        }
        Ok(report)
    }

    /// Reads packs whole; returns those that are damaged.
    async fn read(&self, packs: Vec<PackInfo>, ledger: &Ledger) -> Result<Vec<PackName>, GcError> {
        let Surveyor { objects, cancel, .. } = self.surveyor;
        let mut reading = stream::iter(packs)
            .map(|info| async move {
                let size = ledger.number(&info.pack).and_then(|number| ledger.get(number));
                let size = size.map_or(info.size, |pack| pack.info.size);
                let going_on = |_| !cancel.is_cancelled();
                let verdict = verify(objects, &info, size, PackTable::default, going_on).await?;
                let is_bad = verdict.is_some_and(|verdict| {
                    !verdict.damaged.is_empty() || !verdict.faults.is_empty() || verdict.is_table_damaged
                });
                Ok::<_, StoreError>((info.pack, is_bad))
            })
            .buffer_unordered(PACKS);
        let mut bad = Vec::new();
        while let Some((pack, is_bad)) = reading.try_next().await? {
            if cancel.is_cancelled() {
                return Err(GcError::Cancelled);
            }
            if is_bad {
                bad.push(pack);
            }
        }
        Ok(bad)
    }

    async fn write(
        &self,
        session: &Session,
        view: &Arc<View>,
        report: &RepairReport,
        found: Vec<(PackInfo, PackTable)>,
    ) -> Result<(), GcError> {
        let objects = self.surveyor.objects;
        let writer = ChunkWriter::new(session, Arc::clone(view), None);
        self.surveyor.sink.emit(GcEvent::Step { name: "rewriting the index" });
        let (mut packs, mut rows) = (Vec::new(), Vec::new());
        let count = found.len();
        for (number, (info, table)) in found.into_iter().enumerate() {
            rows_of(&table, u32::try_from(packs.len()).unwrap_or(u32::MAX), &mut rows);
            packs.push(info);
            if rows.len() >= ROWS || number + 1 == count {
                let bytes = encode(&packs, std::mem::take(&mut rows));
                let segment = name(session.id(), writer.next_number(), &bytes);
                objects.put(&Key::new(format!("idx/{segment}"))?, bytes.into()).await?;
                packs.clear();
            }
        }
        in_good_standing(session).await?;
        objects.delete(&report.dropped_segments).await?;
        let gone: HashSet<PackName> = report.gone.iter().copied().collect();
        if !gone.is_empty() {
            drop_rows(session, &writer, view, self.surveyor.cache, &gone).await?;
        }
        if !report.condemned.is_empty() {
            self.surveyor.sink.emit(GcEvent::Step { name: "condemning" });
            let keys = report.condemned.iter().map(|pack| Ok(pack.key()?.to_string()));
            let keys = keys.collect::<Result<_, GcError>>()?;
            let list = Condemned { version: 1, condemned: Some(now()), packs: keys };
            let bytes = serde_json::to_vec(&list)
                .map_err(|source| StoreError::Local { action: "write a list", source: source.into() })?;
            objects.put(&Key::new(format!("gc/{}", SessionId::generate()))?, bytes.into()).await?;
        }
        Ok(())
    }
}
