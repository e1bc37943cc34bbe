//! Deleting: packs, then their rows (protocol, G6), and what else is left of what is gone.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::error::GcError;
use super::survey::List;
use crate::objects::{Key, ObjectStore, Prefix};
use crate::store::StoreError;
use crate::store::cache::IndexCache;
use crate::store::pack::{PackInfo, PackName, WrittenName};
use crate::store::segment::{Row, encode, name};
use crate::store::session::{Session, Standing};
use crate::store::view::View;
use crate::store::writer::ChunkWriter;

/// A rewritten segment is closed once it has this many rows: some 40 MiB of memory while it is made.
const ROWS: usize = 256 << 10;
/// Objects that are deleted by one request, at most what S3 takes.
const BATCH: usize = 1000;

/// Deletes packs; those that are gone already are fine.
pub(super) async fn delete_packs(objects: &dyn ObjectStore, packs: &[PackName]) -> Result<(), GcError> {
    let keys = packs.iter().map(PackName::key).collect::<Result<Vec<Key>, _>>()?;
    for keys in keys.chunks(BATCH) {
        objects.delete(keys).await?;
    }
    Ok(())
}

/// A segment that is being put together.
#[derive(Debug, Default)]
struct Merged {
    packs: Vec<PackInfo>,
    numbers: HashMap<PackName, u32>,
    rows: Vec<Row>,
    old: Vec<Key>,
}

/// Writes every segment that names one of the `gone` packs again without their rows: the new one first, and when the session is still
/// in good standing, the old ones go. Rows of packs that others condemned are left out as well. Of the segments that do not count go
/// those that never will, and those that name nothing but what is gone.
///
/// Returns how many segments went and how many came.
pub(super) async fn drop_rows(
    session: &Session,
    writer: &ChunkWriter,
    view: &View,
    cache: &IndexCache,
    gone: &HashSet<PackName>,
) -> Result<(u64, u64), GcError> {
    let damaged = |key: &Key| {
        let (key, store) = (key.to_string(), session.objects().place());
        |source| StoreError::Damaged { key, store, source }
    };
    let (mut merged, mut went, mut came) = (Merged::default(), 0, 0);
    for open in view.opened() {
        let packs = open.segment.packs();
        if !packs.iter().any(|info| gone.contains(&info.pack)) {
            continue;
        }
        let numbers: Vec<Option<u32>> = packs
            .iter()
            .zip(&open.numbers)
            .map(|(info, number)| {
                let stays = number.is_some() && !gone.contains(&info.pack);
                stays.then(|| {
                    *merged.numbers.entry(info.pack).or_insert_with(|| {
                        merged.packs.push(*info);
                        u32::try_from(merged.packs.len() - 1).unwrap_or(u32::MAX)
                    })
                })
            })
            .collect();
        let rows = &mut merged.rows;
        open.segment
            .for_each(&mut |id, mut location| {
                if let Some(Some(pack)) = numbers.get(location.pack as usize) {
                    location.pack = *pack;
                    rows.push((id, location));
                }
            })
            .map_err(damaged(&open.key))?;
        merged.old.push(open.key.clone());
        went += 1;
        if merged.rows.len() >= ROWS {
            came += replace(session, writer, std::mem::take(&mut merged)).await?;
        }
    }
    came += replace(session, writer, merged).await?;
    let mut useless = Vec::new();
    for uncounted in view.uncounted() {
        let is_useless = uncounted.is_refused
            || match cache.open(&**session.objects(), &uncounted.name, &uncounted.key).await? {
                Some(segment) => segment.packs().iter().all(|info| gone.contains(&info.pack)),
                None => false,
            };
        if is_useless {
            useless.push(uncounted.key.clone());
        }
    }
    if !useless.is_empty() {
        in_good_standing(session).await?;
        session.objects().delete(&useless).await?;
        went += useless.len() as u64;
    }
    Ok((went, came))
}

async fn replace(session: &Session, writer: &ChunkWriter, merged: Merged) -> Result<u64, GcError> {
    let Merged { packs, rows, old, numbers: _ } = merged;
    if old.is_empty() {
        return Ok(0);
    }
    let mut came = 0;
    if !rows.is_empty() {
        let bytes = encode(&packs, rows);
        let new = name(session.id(), writer.next_number(), &bytes);
        session.objects().put(&Key::new(format!("idx/{new}"))?, bytes.into()).await?;
        came = 1;
    }
    in_good_standing(session).await?;
    session.objects().delete(&old).await?;
    Ok(came)
}

/// Looks whether the session still counts.
pub(super) async fn in_good_standing(session: &Session) -> Result<(), GcError> {
    match session.standing().await? {
        Standing::Good => Ok(()),
        Standing::Evicted => Err(GcError::Evicted),
    }
}

/// Returns the lists of condemned packs that have done their work: none of the packs is there, and no segment names one, be it one that
/// counts or not, since one that does not count may do so later. Where a segment goes meanwhile nobody knows where its rows went, and
/// nothing is returned.
pub(super) async fn spent(
    objects: &Arc<dyn ObjectStore>,
    cache: &IndexCache,
    lists: &[List],
) -> Result<Vec<List>, GcError> {
    if lists.is_empty() {
        return Ok(Vec::new());
    }
    let mut there: BTreeSet<PackName> = BTreeSet::new();
    for kind in ["packs", "meta"] {
        let listed = objects.list(&Prefix::new(kind)?).await?;
        there.extend(listed.iter().filter_map(|object| PackName::of_key(&object.key)));
    }
    let is_there = |list: &&List| !list.packs.iter().any(|pack| there.contains(pack));
    let mut candidates: Vec<&List> = lists.iter().filter(is_there).collect();
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    for object in objects.list(&Prefix::new("idx")?).await? {
        let Ok(name) = object.key.name().parse::<WrittenName>() else { continue };
        let Some(segment) = cache.open(&**objects, &name, &object.key).await? else { return Ok(Vec::new()) };
        let named: HashSet<PackName> = segment.packs().iter().map(|info| info.pack).collect();
        candidates.retain(|list| !list.packs.iter().any(|pack| named.contains(pack)));
    }
    Ok(candidates.into_iter().cloned().collect())
}
