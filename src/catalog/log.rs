//! Build logs: parts while a build runs, one object afterwards.
//!
//! A part is a zstd frame of JSON lines, and the whole log is the parts one after another (a zstd stream may be several
//! frames), so both are read alike and a log can be followed from another host.

use std::io::Read as _;

use super::{Catalog, CatalogError};
use crate::base::{SnapshotId, now};
use crate::objects::{Key, Prefix};

/// Parts are written when this much text has come together. Compressed, about a tenth of it.
const PART_BYTES: usize = 256 * 1024;

/// Or when the oldest line has waited this long.
const PART_AGE: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

/// zstd's own default: logs are small, so a better level would gain little.
const LEVEL_ZSTD: i32 = 3;

/// A larger log is cut off when read: a guard against a frame that claims the whole memory.
const MOST_LOG_BYTES: u64 = 4 << 30;

/// Writes the log of one bake. One writer at a time.
#[derive(Debug)]
pub struct LogWriter {
    catalog: Catalog,
    id: SnapshotId,
    name: String,
    pending: Vec<u8>,
    since: Option<jiff::Timestamp>,
    parts: Vec<Key>,
    whole: Vec<u8>,
}

impl LogWriter {
    /// Begins the log of `id`.
    #[must_use]
    pub fn new(catalog: Catalog, id: SnapshotId) -> Self {
        Self {
            catalog,
            id,
            name: id.to_string(),
            pending: Vec::new(),
            since: None,
            parts: Vec::new(),
            whole: Vec::new(),
        }
    }

    /// Begins the log of a further bake of `id`, on another engine. It is kept beside the first and does not take its place.
    #[must_use]
    pub fn of_place(catalog: Catalog, id: SnapshotId) -> Self {
        Self { name: format!("{id}.{}", SnapshotId::generate()), ..Self::new(catalog, id) }
    }

    /// Adds a line, which holds no line break.
    pub fn push(&mut self, line: &str) {
        self.since.get_or_insert_with(now);
        self.pending.extend_from_slice(line.as_bytes());
        self.pending.push(b'\n');
    }

    /// Writes a part if it is time.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be written; the lines are kept for the next try.
    pub async fn flush_if_due(&mut self) -> Result<(), CatalogError> {
        let old = self.since.is_some_and(|since| now().duration_since(since) >= PART_AGE);
        if old || self.pending.len() >= PART_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), CatalogError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let frame = zstd::encode_all(self.pending.as_slice(), LEVEL_ZSTD)
            .map_err(|source| CatalogError::Log { id: self.id, source })?;
        let key = Key::new(format!("logs/{}/{:08}.zst", self.name, self.parts.len() + 1))?;
        self.catalog.objects().put(&key, frame.clone().into()).await?;
        self.parts.push(key);
        self.whole.extend_from_slice(&frame);
        self.pending.clear();
        self.since = None;
        Ok(())
    }

    /// Writes what is left and the whole log as one object, then takes the parts away. A crash in between leaves both, and
    /// the whole log is the one that is read.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be written.
    pub async fn finish(mut self) -> Result<(), CatalogError> {
        self.flush().await?;
        self.catalog.objects().put(&whole_key(&self.name)?, std::mem::take(&mut self.whole).into()).await?;
        self.catalog.objects().delete(&self.parts).await?;
        Ok(())
    }
}

/// Reads the log of a bake, also while it grows.
#[derive(Debug)]
pub struct LogReader {
    catalog: Catalog,
    id: SnapshotId,
    /// Parts are numbered from 1 without gaps.
    parts_read: usize,
    lines_read: usize,
}

impl LogReader {
    /// Begins to read the log of `id`.
    #[must_use]
    pub fn new(catalog: Catalog, id: SnapshotId) -> Self {
        Self { catalog, id, parts_read: 0, lines_read: 0 }
    }

    /// Returns the lines that came since the last call.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read, or the log is damaged.
    pub async fn next_lines(&mut self) -> Result<Vec<String>, CatalogError> {
        if let Some(whole) = self.catalog.objects().get(&whole_key(&self.id.to_string())?).await? {
            let lines = self.decode(&whole)?;
            let new = lines.into_iter().skip(self.lines_read).collect::<Vec<_>>();
            self.lines_read += new.len();
            return Ok(new);
        }
        let mut lines = Vec::new();
        let listed = self.catalog.objects().list(&Prefix::new(format!("logs/{}", self.id))?).await?;
        for object in listed.iter().skip(self.parts_read) {
            // A part that went meanwhile is in the whole log, which the next call finds.
            let Some(part) = self.catalog.objects().get(&object.key).await? else { break };
            lines.extend(self.decode(&part)?);
            self.parts_read += 1;
        }
        self.lines_read += lines.len();
        Ok(lines)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<String>, CatalogError> {
        let damaged = |source| CatalogError::Log { id: self.id, source };
        let mut text = Vec::new();
        zstd::Decoder::new(bytes)
            .map_err(damaged)?
            .take(MOST_LOG_BYTES)
            .read_to_end(&mut text)
            .map_err(damaged)?;
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
    }
}

fn whole_key(name: &str) -> Result<Key, CatalogError> {
    Ok(Key::new(format!("logs/{name}.zst"))?)
}
