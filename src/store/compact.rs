//! Compaction: many small segments of the index become one.
//!
//! Any session may do it. The merged segment is put first; then the session looks whether it was evicted, and only if it was not are the
//! old segments deleted (protocol, "Compaction"): a merged segment that a collector did not adopt counts for nothing, and must not be
//! all that is left. A segment that names a condemned pack is left to the collector: its rows are needed until the pack is deleted, and
//! must not come back after that.

use super::error::StoreError;
use super::segment::{Row, Segment, encode, name};
use super::session::{Session, Standing};
use super::view::{OpenSegment, View};
use crate::objects::Key;

/// Segments with more rows than this are left alone: some 3 MiB.
const SMALL_ROWS: usize = 64 << 10;
/// Small segments are merged once there are this many.
const MANY: usize = 16;
/// A merged segment has at most this many rows: some 25 MiB of memory while it is made.
const MOST_ROWS: usize = 512 << 10;

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// Segments that were merged and deleted.
    pub merged: usize,
    /// Rows of the segment that took their place.
    pub rows: usize,
}

/// Merges small segments of what the session sees, when there are many. `number` tells the new segment from others that the session
/// wrote. The session must still be open, and `view` what it saw when it was opened.
///
/// # Errors
///
/// Fails where the store does not answer. Nothing is lost then: at worst rows stand in two segments.
pub async fn compact(session: &Session, view: &View, number: u32) -> Result<Compacted, StoreError> {
    let is_small =
        |open: &&OpenSegment| open.segment.len() <= SMALL_ROWS && open.numbers.iter().all(Option::is_some);
    let mut small: Vec<(&Key, &Segment)> =
        view.opened().iter().filter(is_small).map(|open| (&open.key, &*open.segment)).collect();
    if small.len() < MANY {
        return Ok(Compacted::default());
    }
    small.sort_by_key(|(_, segment)| segment.len());
    let mut total = 0;
    small.retain(|(_, segment)| {
        total += segment.len();
        total <= MOST_ROWS
    });
    let mut rows: Vec<Row> = Vec::new();
    let mut used = std::collections::BTreeMap::new();
    let mut packs = Vec::new();
    for (key, _) in &small {
        let damaged =
            |source| StoreError::Damaged { key: key.to_string(), store: session.objects().place(), source };
        view.for_each_row(key, &mut |id, mut location| {
            let next = u32::try_from(used.len()).unwrap_or(u32::MAX);
            let place = *used.entry(location.pack).or_insert(next);
            if place == next
                && let Some(info) = view.packs().get(location.pack as usize)
            {
                packs.push(*info);
            }
            location.pack = place;
            rows.push((id, location));
        })
        .map_err(damaged)?;
    }
    let row_count = rows.len();
    let bytes = encode(&packs, rows);
    let merged = name(session.id(), number, &bytes);
    session.objects().put(&Key::new(format!("idx/{merged}"))?, bytes.into()).await?;
    match session.standing().await? {
        Standing::Evicted => Ok(Compacted::default()),
        Standing::Good => {
            let old: Vec<Key> = small.iter().map(|(key, _)| (*key).clone()).collect();
            session.objects().delete(&old).await?;
            Ok(Compacted { merged: old.len(), rows: row_count })
        }
    }
}
