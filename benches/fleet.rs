//! Makes a store of many revisions out of metadata alone, to measure how planning a collection grows:
//! `cargo bench --bench fleet -- FOLDER [--revisions N] [--chunks N] [--workspaces N] [--change PERCENT]`.
//!
//! Records, manifests and the index are what real saves write; the packs of files are as long as they say and have no content, so that
//! ten million chunks need a few gigabytes of disk. Such a store can be planned, and not restored.

#![expect(clippy::unwrap_used, reason = "a generator that cannot set its stage should stop")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the numbers of a generated store are small"
)]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln::base::{ChunkId, RevisionId, SessionId, Sha256Digest, now};
use kiln::objects::{Key, ObjectStore, open};
use kiln::store::frame::{Codec, FrameBuilder};
use kiln::store::manifest::{ManifestWriter, content_of};
use kiln::store::pack::{PackInfo, PackKind, PackName, PackWriter, WrittenName};
use kiln::store::revision::{Revision, RevisionCounts};
use kiln::store::segment::{self, Location, Row};
use kiln::store::{Attributes, ChunkRef, Content, Entry, EntryKind, EntryOwner, EntryPath, FileTime, Format};

/// Files that are changed together, as an edit of a directory does.
const RUN: usize = 12;
const CHUNK_BYTES: u32 = 64 << 10;
const CHUNKS_OF_FRAME: u32 = 8;
const FRAMES_OF_PACK: u32 = 128;
const ROWS_OF_SEGMENT: usize = 500_000;
/// A file in eight has eight chunks, the others have one.
const CHUNKS_OF_LARGE: usize = 8;

#[derive(Debug)]
struct Wanted {
    folder: PathBuf,
    revisions: usize,
    chunks: usize,
    workspaces: usize,
    change: f64,
}

impl Wanted {
    fn of_arguments() -> Option<Self> {
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        let mut wanted = Self {
            folder: words.next()?.into(),
            revisions: 1_000,
            chunks: 10_000_000,
            workspaces: 20,
            change: 0.5,
        };
        while let (Some(option), Some(value)) = (words.next(), words.next()) {
            match option.as_str() {
                "--revisions" => wanted.revisions = value.parse().unwrap(),
                "--chunks" => wanted.chunks = value.parse().unwrap(),
                "--workspaces" => wanted.workspaces = value.parse().unwrap(),
                "--change" => wanted.change = value.parse().unwrap(),
                _ => return None,
            }
        }
        Some(wanted)
    }
}

/// Writes what a fleet would have saved.
struct Fleet {
    objects: Arc<dyn ObjectStore>,
    folder: PathBuf,
    random: fastrand::Rng,
    session: SessionId,
    number: u32,
    data: Vec<(ChunkId, u32)>,
    packs: Vec<PackInfo>,
    rows: Vec<Row>,
    /// Where chunks of manifests lie that were stored already.
    stored: HashMap<ChunkId, PackInfo>,
    pending: Vec<(ChunkId, Vec<u8>)>,
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` and `cargo bench` without a folder have nothing to do here.
    let Some(wanted) = Wanted::of_arguments() else { return };
    let url = wanted.folder.to_str().unwrap().parse().unwrap();
    let objects = open(&url).await.unwrap();
    Format::init(&*objects, None, now()).await.unwrap();
    let mut fleet = Fleet {
        objects,
        folder: wanted.folder.clone(),
        random: fastrand::Rng::with_seed(1),
        session: SessionId::generate(),
        number: 0,
        data: Vec::new(),
        packs: Vec::new(),
        rows: Vec::new(),
        stored: HashMap::new(),
        pending: Vec::new(),
    };
    let each = wanted.revisions / wanted.workspaces;
    let growth = 1.0 + (each - 1) as f64 * wanted.change / 100.0;
    let first_chunks = (wanted.chunks as f64 / wanted.workspaces as f64 / growth) as usize;
    // 7 of 8 files have one chunk, one has eight.
    let files = first_chunks * 8 / (7 + CHUNKS_OF_LARGE);
    for workspace in 0..wanted.workspaces {
        fleet.workspace(&format!("w{workspace:03}"), files, each, wanted.change).await;
    }
    fleet.segment().await;
}

impl Fleet {
    fn id(&mut self) -> ChunkId {
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes);
        ChunkId::from_bytes(bytes)
    }

    async fn workspace(&mut self, name: &str, files: usize, revisions: usize, change: f64) {
        let mut packs_of_data: BTreeMap<PackName, PackInfo> = BTreeMap::new();
        let mut contents: Vec<Vec<ChunkRef>> = Vec::with_capacity(files);
        for file in 0..files {
            contents.push(self.content(file).await);
        }
        let mut newest = None;
        for revision in 0..revisions {
            if revision > 0 {
                let runs = ((files as f64 * change / 100.0 / RUN as f64) as usize).max(1);
                for _ in 0..runs {
                    let from = self.random.usize(..files);
                    for (file, content) in contents.iter_mut().enumerate().skip(from).take(RUN) {
                        *content = self.content(file).await;
                    }
                }
            }
            self.data_pack().await;
            for info in self.packs.iter().filter(|info| info.pack.kind == PackKind::Data) {
                packs_of_data.insert(info.pack, *info);
            }
            let manifest = self.manifest(&contents);
            self.meta_packs().await;
            let mut packs: Vec<PackInfo> = packs_of_data.values().copied().collect();
            let mut meta: Vec<PackInfo> = manifest.1.iter().map(|id| self.stored[id]).collect();
            meta.sort_unstable_by_key(|info| info.pack);
            meta.dedup();
            packs.extend(meta);
            let record = Revision {
                id: RevisionId::after(newest, now()),
                workspace: name.parse().unwrap(),
                session: SessionId::generate(),
                parent: newest,
                created: now(),
                source: "generated".into(),
                labels: BTreeMap::new(),
                counts: RevisionCounts {
                    entries: files as u64,
                    files: files as u64,
                    ..RevisionCounts::default()
                },
                unsettled: 0,
                manifest: manifest.0,
                packs,
            };
            newest = Some(record.id);
            self.objects.put(&record.key().unwrap(), record.encode().unwrap().into()).await.unwrap();
            if self.rows.len() >= ROWS_OF_SEGMENT {
                for info in self.packs.iter().filter(|info| info.pack.kind == PackKind::Data) {
                    packs_of_data.insert(info.pack, *info);
                }
                self.segment().await;
            }
        }
    }

    async fn content(&mut self, file: usize) -> Vec<ChunkRef> {
        let count = if file.is_multiple_of(8) { CHUNKS_OF_LARGE } else { 1 };
        let mut refs = Vec::with_capacity(count);
        for _ in 0..count {
            let id = self.id();
            self.data.push((id, CHUNK_BYTES));
            refs.push(ChunkRef { id, length: CHUNK_BYTES });
            if self.data.len() >= (CHUNKS_OF_FRAME * FRAMES_OF_PACK) as usize {
                self.data_pack().await;
            }
        }
        refs
    }

    /// Writes a pack of files' chunks: as long as it says, and empty.
    async fn data_pack(&mut self) {
        let chunks = std::mem::take(&mut self.data);
        if chunks.is_empty() {
            return;
        }
        let frame_length = CHUNK_BYTES * CHUNKS_OF_FRAME;
        let frames = (chunks.len() as u32).div_ceil(CHUNKS_OF_FRAME);
        let name = WrittenName::new(self.session, self.number, &Sha256Digest::of(&self.number.to_le_bytes()));
        self.number += 1;
        let table_length = 4 + frames * 9 + chunks.len() as u32 * 36;
        let size = u64::from(frames) * u64::from(frame_length) + u64::from(table_length) + 64;
        let info = PackInfo { pack: PackName { kind: PackKind::Data, name }, size, table_length };
        let path = self.folder.join(info.pack.key().unwrap().as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().set_len(size).unwrap();
        let pack = self.packs.len() as u32;
        self.packs.push(info);
        for (at, (id, length)) in (0..).zip(chunks) {
            self.rows.push((
                id,
                Location {
                    pack,
                    frame_offset: 16 + at / CHUNKS_OF_FRAME * frame_length,
                    frame_length,
                    codec: Codec::Raw,
                    offset: at % CHUNKS_OF_FRAME * CHUNK_BYTES,
                    length,
                },
            ));
        }
    }

    /// Makes a manifest; what is new of it is kept to be stored. Returns it with the ids of its chunks.
    fn manifest(&mut self, contents: &[Vec<ChunkRef>]) -> (Content, Vec<ChunkId>) {
        let (mut writer, mut refs, mut ids) = (ManifestWriter::new(), Vec::new(), Vec::new());
        let Self { stored, pending, .. } = self;
        let mut keep = |bytes: Vec<u8>, ids: &mut Vec<ChunkId>| {
            let reference = ChunkRef { id: ChunkId::of(&bytes), length: bytes.len() as u32 };
            ids.push(reference.id);
            if !stored.contains_key(&reference.id) {
                pending.push((reference.id, bytes));
            }
            reference
        };
        for (file, content) in contents.iter().enumerate() {
            let path = format!("srv/app/{:03}/{:03}/file-{file:07}.dat", file / 40_000, file / 200);
            let entry = Entry {
                path: EntryPath::new(path).unwrap(),
                kind: EntryKind::File {
                    size: content.iter().map(|chunk| u64::from(chunk.length)).sum(),
                    content: Content { level: 0, refs: content.clone() },
                    extents: None,
                },
                attributes: Attributes {
                    mode: 0o644,
                    owner: EntryOwner { uid: 1000, gid: 1000, user: [].into(), group: [].into() },
                    mtime: FileTime { seconds: 1_700_000_000 + file as i64, nanoseconds: 1 },
                    xattrs: Vec::new(),
                },
            };
            if let Some(chunk) = writer.push(&entry) {
                refs.push(keep(chunk, &mut ids));
            }
        }
        if let Some(chunk) = writer.finish() {
            refs.push(keep(chunk, &mut ids));
        }
        let content = content_of::<()>(refs, &mut |list| Ok(keep(list, &mut ids))).unwrap();
        (content, ids)
    }

    async fn meta_packs(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_by_key(|(id, _)| *id);
        pending.dedup_by_key(|(id, _)| *id);
        let spool = self.objects.spool_dir();
        for group in pending.chunks(600) {
            let mut writer = PackWriter::begin(PackKind::Meta, self.session, spool.as_ref()).unwrap();
            let mut builder = FrameBuilder::in_order(1).unwrap();
            let mut frames = Vec::new();
            for (id, bytes) in group {
                builder.add(*id, bytes, &mut |frame| frames.push(frame)).unwrap();
            }
            builder.finish(&mut |frame| frames.push(frame)).unwrap();
            for frame in frames {
                writer.append(frame).unwrap();
            }
            let pack = writer.finish(self.session, self.number).unwrap();
            self.number += 1;
            segment::rows_of(&pack.table, self.packs.len() as u32, &mut self.rows);
            self.packs.push(pack.info);
            for (id, _) in group {
                self.stored.insert(*id, pack.info);
            }
            put_file(&*self.objects, &pack.info.pack.key().unwrap(), &pack.path).await;
        }
    }

    async fn segment(&mut self) {
        self.data_pack().await;
        let bytes = segment::encode(&self.packs, std::mem::take(&mut self.rows));
        self.packs.clear();
        let name = segment::name(self.session, self.number, &bytes);
        self.number += 1;
        self.objects.put(&Key::new(format!("idx/{name}")).unwrap(), bytes.into()).await.unwrap();
    }
}

async fn put_file(objects: &dyn ObjectStore, key: &Key, path: &Path) {
    objects.put_file(key, path).await.unwrap();
}
