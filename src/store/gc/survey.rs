//! What there is, and what of it is needed: read at one time, in the order that the protocol asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::error::GcError;
use super::event::GcEvent;
use super::ledger::{Ledger, Standing};
use super::marks::{Kind, Marks};
use super::quiesce::sessions;
use super::reach::Reach;
use super::roots::{self, Listing};
use super::sweep::in_good_standing;
use crate::base::{ChunkId, RevisionId, SessionId, Sink};
use crate::objects::{Key, ObjectStore, Prefix};
use crate::store::StoreError;
use crate::store::cache::IndexCache;
use crate::store::fetch::Fetcher;
use crate::store::pack::{PackInfo, PackName, PackTable};
use crate::store::revision::RevisionRef;
use crate::store::segment::{Segment, encode, rows_of};
use crate::store::session::Session;
use crate::store::small;
use crate::store::verify::find_table;
use crate::store::view::{Condemned, View};

/// Small objects that are fetched at the same time.
const FETCHES: usize = 8;
/// When to look again, after another run was seen to delete what this one needed: it forgets the records a little later.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// A list of condemned packs.
#[derive(Debug, Clone)]
pub(super) struct List {
    pub(super) key: Key,
    pub(super) condemned: Timestamp,
    pub(super) packs: Vec<PackName>,
}

/// Reads the lists of condemned packs.
pub(super) async fn lists(objects: &dyn ObjectStore) -> Result<Vec<List>, GcError> {
    let listed = objects.list(&Prefix::new("gc")?).await?;
    let lists = stream::iter(listed)
        .map(|object| async move {
            let Some(bytes) = small::read(objects, &object.key, small::LIST_BYTES).await? else {
                return Ok::<_, GcError>(None);
            };
            let list: Condemned = serde_json::from_slice(&bytes).map_err(|source| StoreError::Damaged {
                key: object.key.to_string(),
                store: objects.place(),
                source: source.into(),
            })?;
            let run: Option<RevisionId> = object.key.name().parse().ok();
            let packs = list.packs.into_iter().filter_map(|key| PackName::of_key(&Key::new(key).ok()?));
            Ok(Some(List {
                condemned: list.condemned.or(run.map(|run| run.timestamp())).unwrap_or(Timestamp::MAX),
                packs: packs.collect(),
                key: object.key,
            }))
        })
        .buffer_unordered(FETCHES)
        .try_filter_map(|list| async move { Ok(list) });
    lists.try_collect().await
}

/// What there is, and what of it is needed.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) session: Option<Session>,
    pub(super) open: BTreeSet<SessionId>,
    pub(super) listing: Listing,
    pub(super) lists: Vec<List>,
    pub(super) view: Arc<View>,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) ledger: Ledger,
    pub(super) marks: Marks,
    /// Packs whose tables cannot be read, where something is missing that they might hold.
    pub(super) unreadable: BTreeSet<u32>,
    pub(super) revisions: u64,
    pub(super) manifest_chunks: u64,
    /// Needed chunks that no pack has: the first, and how many.
    pub(super) lost: (Vec<ChunkId>, u64),
}

/// What a survey needs to know.
pub(super) struct Surveyor<'a> {
    pub(super) objects: &'a Arc<dyn ObjectStore>,
    pub(super) cache: &'a IndexCache,
    pub(super) sink: &'a dyn Sink<GcEvent>,
    pub(super) cancel: &'a CancellationToken,
}

impl Surveyor<'_> {
    /// Looks at the store. `roots` chooses what must stay readable of what is listed; `purpose` is that of the session in which to
    /// look, where what is seen is to be relied on.
    ///
    /// First the packs are listed, then the open sessions, then the revisions: a pack that is listed has its session listed, or its
    /// revision, or is garbage. The session is opened behind the listing of revisions, and what it may rely on is read after that.
    ///
    /// What lacks chunks and was removed since it was listed may have been deleted by another run: then everything is looked at again.
    pub(super) async fn survey(
        &self,
        purpose: Option<&str>,
        roots: impl Fn(&Listing) -> Vec<RevisionRef>,
    ) -> Result<Survey, GcError> {
        let mut needed = Vec::new();
        for pause in AGAIN_AFTER {
            let surveyed = self.survey_once(purpose, &roots, &mut needed).await;
            let lacks_chunks = match &surveyed {
                Ok(survey) => survey.lost.1 > 0,
                Err(error) => matches!(error, GcError::Unreadable { .. }),
            };
            if !lacks_chunks || !self.was_one_removed(&needed).await {
                return surveyed;
            }
            if let Ok(Survey { session: Some(session), .. }) = surveyed {
                session.abandon().await;
            }
            tokio::time::sleep(pause).await;
        }
        self.survey_once(purpose, &roots, &mut needed).await
    }

    /// Looks whether one of the revisions is removed by now, or its record gone.
    async fn was_one_removed(&self, revisions: &[RevisionRef]) -> bool {
        let Ok(listing) = Listing::read(&**self.objects).await else { return false };
        let kept: BTreeSet<RevisionRef> = listing.kept().into_iter().collect();
        revisions.iter().any(|revision| !kept.contains(revision))
    }

    async fn survey_once(
        &self,
        purpose: Option<&str>,
        roots: &impl Fn(&Listing) -> Vec<RevisionRef>,
        needed: &mut Vec<RevisionRef>,
    ) -> Result<Survey, GcError> {
        let objects = self.objects;
        let mut listed = objects.list(&Prefix::new("packs")?).await?;
        listed.extend(objects.list(&Prefix::new("meta")?).await?);
        let open = sessions(&**objects).await?;
        let listing = Listing::read(&**objects).await?;
        let roots = roots(&listing);
        needed.clone_from(&roots);
        let session = match purpose {
            Some(purpose) => Some(Session::open(Arc::clone(objects), purpose).await?),
            None => None,
        };
        let surveyed = async {
            let lists = lists(&**objects).await?;
            let view = Arc::new(View::load(&**objects, self.cache).await?);
            let ledger = self.ledger(&view, &lists, listed).await?;
            let mut marks = Marks::default();
            for open in view.opened() {
                marks.add(Arc::clone(&open.segment), &ledger);
            }
            let fetcher = Arc::new(Fetcher::new(Arc::clone(objects), self.cache.clone()));
            Ok::<_, GcError>((lists, view, ledger, marks, fetcher))
        };
        let (lists, view, ledger, marks, fetcher) = match surveyed.await {
            Ok(surveyed) => surveyed,
            Err(error) => return Err(abandon(session, error).await),
        };
        let survey = Survey {
            session,
            open,
            listing,
            lists,
            view,
            fetcher,
            ledger,
            marks,
            unreadable: BTreeSet::new(),
            revisions: roots.len() as u64,
            manifest_chunks: 0,
            lost: (Vec::new(), 0),
        };
        self.mark(survey, &roots).await
    }

    async fn mark(&self, mut survey: Survey, roots: &[RevisionRef]) -> Result<Survey, GcError> {
        let fetcher = Arc::clone(&survey.fetcher);
        let marks = std::mem::take(&mut survey.marks);
        match self.reach(&fetcher, marks, &mut survey, roots).await {
            Ok(marks) => {
                survey.marks = marks;
                Ok(survey)
            }
            Err(error) => {
                // A run that was taken for dead, and goes on, misses what the other one deleted: that is no damage.
                let is_evicted = match (&error, &survey.session) {
                    (GcError::Unreadable { .. }, Some(session)) => {
                        matches!(in_good_standing(session).await, Err(GcError::Evicted))
                    }
                    _ => false,
                };
                let error = if is_evicted { GcError::Evicted } else { error };
                Err(abandon(survey.session, error).await)
            }
        }
    }

    async fn reach(
        &self,
        fetcher: &Arc<Fetcher>,
        marks: Marks,
        survey: &mut Survey,
        roots: &[RevisionRef],
    ) -> Result<Marks, GcError> {
        let mut reach = Reach::new(fetcher, self.cancel);
        roots::read(&**self.objects, roots, &mut |revision| reach.add_manifest(&revision.manifest)).await?;
        let mut marks = reach.run(marks, &survey.ledger).await?;
        if !reach.missing().is_empty() {
            self.sink.emit(GcEvent::Warning {
                message: "the index lacks chunks that are needed; the tables of packs that it does not name are read".into(),
            });
            if let Some(found) = self.unindexed(&marks, survey).await? {
                marks.add(Arc::new(found), &survey.ledger);
                reach.ask_again();
                marks = reach.run(marks, &survey.ledger).await?;
            }
        }
        let lost = reach.missing();
        if let Some((_, id)) = lost.iter().find(|(kind, _)| *kind != Kind::DATA) {
            let source = StoreError::Lost { id: *id, store: self.objects.place() };
            return Err(GcError::Unreadable { source });
        }
        let distinct: BTreeSet<ChunkId> = lost.iter().map(|(_, id)| *id).collect();
        survey.lost = (distinct.iter().take(super::report::NAMED).copied().collect(), distinct.len() as u64);
        survey.manifest_chunks = reach.read();
        let counted = marks.count(&mut survey.ledger);
        counted.map_err(|source| StoreError::Local { action: "read the cached index", source })?;
        let chunks = survey.ledger.packs().map(|(_, pack)| pack.live_chunks).sum();
        self.sink.emit(GcEvent::Marked {
            revisions: survey.revisions,
            manifest_chunks: survey.manifest_chunks,
            chunks,
        });
        Ok(marks)
    }

    /// Puts together what is known of the packs.
    pub(super) async fn ledger(
        &self,
        view: &View,
        lists: &[List],
        listed: Vec<crate::objects::ObjectInfo>,
    ) -> Result<Ledger, GcError> {
        let mut sizes: BTreeMap<PackName, u64> = listed
            .into_iter()
            .filter_map(|object| Some((PackName::of_key(&object.key)?, object.size_bytes)))
            .collect();
        let condemned: BTreeSet<PackName> =
            lists.iter().flat_map(|list| list.packs.iter().copied()).collect();
        let mut ledger = Ledger::default();
        let mut unseen = Vec::new();
        for open in view.opened() {
            for (info, number) in open.segment.packs().iter().zip(&open.numbers) {
                let standing = match number {
                    Some(_) => Standing::Sound,
                    None => Standing::Condemned,
                };
                match sizes.remove(&info.pack) {
                    Some(_) => {
                        ledger.add(*info, standing);
                    }
                    None if ledger.number(&info.pack).is_none() => unseen.push((*info, standing)),
                    None => {}
                }
            }
        }
        // What was not listed was written after that, or is gone.
        let looked: Vec<(PackInfo, Standing)> = stream::iter(unseen)
            .map(|(info, standing)| async move {
                let first = self.objects.range(&info.pack.key()?, 0, 1).await?;
                Ok::<_, GcError>((info, if first.is_some() { standing } else { Standing::Gone }))
            })
            .buffer_unordered(FETCHES)
            .try_collect()
            .await?;
        for (info, standing) in looked {
            ledger.add(info, standing);
        }
        for (pack, size) in sizes {
            let standing = match condemned.contains(&pack) {
                true => Standing::Condemned,
                false => Standing::Unindexed,
            };
            ledger.add(PackInfo { pack, size, table_length: 0 }, standing);
        }
        Ok(ledger)
    }

    /// Reads the tables of packs, whose lengths need not be known; of those that are gone nothing is returned, and `None` of those whose
    /// tables cannot be read.
    pub(super) async fn tables(
        &self,
        packs: Vec<PackInfo>,
    ) -> Result<Vec<(PackInfo, Option<PackTable>)>, GcError> {
        let tables = stream::iter(packs)
            .map(|info| find_table(&**self.objects, info))
            .buffer_unordered(FETCHES)
            .try_filter_map(|found| async move { Ok(found) });
        Ok(tables.try_collect().await?)
    }

    /// Reads the tables of the packs that no segment names; returns a segment of what they hold.
    async fn unindexed(&self, marks: &Marks, survey: &mut Survey) -> Result<Option<Segment>, GcError> {
        let unnamed = survey
            .ledger
            .packs()
            .filter(|(number, pack)| pack.standing != Standing::Gone && !marks.names(*number))
            .map(|(_, pack)| pack.info)
            .collect();
        let tables = self.tables(unnamed).await?;
        let (mut infos, mut rows) = (Vec::new(), Vec::new());
        for (info, table) in tables {
            match table {
                Some(table) => {
                    rows_of(&table, u32::try_from(infos.len()).unwrap_or(u32::MAX), &mut rows);
                    infos.push(info);
                }
                None => survey.unreadable.extend(survey.ledger.number(&info.pack)),
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let opened = Segment::open(&encode(&infos, rows));
        Ok(Some(opened.map_err(|source| StoreError::Local { action: "index packs", source })?))
    }
}

/// Ends a session whose work failed.
pub(super) async fn abandon(session: Option<Session>, error: GcError) -> GcError {
    if let Some(session) = session {
        session.abandon().await;
    }
    error
}
