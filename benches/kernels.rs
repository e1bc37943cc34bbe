//! How fast the kernels are, each beside the physical limit of what it does: `cargo bench --bench kernels [FILTER]`.
//!
//! | group | kernels | limit |
//! |---|---|---|
//! | `chunk` | cutting | copying the same bytes |
//! | `hash` | ids of chunks | copying the same bytes |
//! | `frame` | frames made and opened | zstd without frames, copying |
//! | `manifest` | entries written and read | copying their bytes |
//! | `segment` | an index made, opened and asked | a hash map in memory |
//! | `walk` | a tree walked | reading directories and looking at every entry, nothing kept |

#![expect(clippy::unwrap_used, reason = "a measurement that cannot set its stage should stop")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use kiln::base::{ChunkId, SessionId};
use kiln::store::frame::{Codec, Frame, FrameBuilder, FrameReader};
use kiln::store::manifest::{ManifestWriter, decode_chunk};
use kiln::store::pack::{PackInfo, PackKind, PackName, WrittenName};
use kiln::store::segment::{self, Location, Row, Segment};
use kiln::store::{
    Attributes, ChunkRef, Content, Entry, EntryKind, EntryOwner, EntryPath, FileTime, chunker,
};
use kiln::workspace::tree::{SourceTree, WalkOptions, walk};

const MIB: usize = 1 << 20;

criterion_group! {
    name = kernels;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .without_plots();
    targets = chunk, hash, frame, manifest, segment, tree
}
criterion_main!(kernels);

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

/// Text that compresses about as well as source code does.
fn prose(length: usize) -> Vec<u8> {
    const WORDS: [&str; 12] =
        ["return", "self", "import", "value", "(", ")", "    ", "\n", "def", "name", "=", "None"];
    let mut random = fastrand::Rng::with_seed(2);
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        if random.u8(..) < 200 {
            bytes.extend_from_slice(random.choice(WORDS).unwrap_or("").as_bytes());
        } else {
            bytes.extend_from_slice(random.u32(..100_000).to_string().as_bytes());
        }
    }
    bytes.truncate(length);
    bytes
}

fn bytes_of(length: usize) -> Throughput {
    Throughput::Bytes(length as u64)
}

fn limit_copy(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, bytes: &[u8]) {
    let mut to = vec![0; bytes.len()];
    group.throughput(bytes_of(bytes.len()));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            to.copy_from_slice(black_box(bytes));
            black_box(&mut to);
        });
    });
}

fn chunk(criterion: &mut Criterion) {
    let bytes = noise(64 * MIB);
    let mut group = criterion.benchmark_group("chunk");
    limit_copy(&mut group, "limit: copy 64 MiB", &bytes);
    group.bench_function("cut 64 MiB", |bencher| bencher.iter(|| chunker::cut(black_box(&bytes), true)));
}

fn hash(criterion: &mut Criterion) {
    let bytes = noise(64 << 10);
    let mut group = criterion.benchmark_group("hash");
    limit_copy(&mut group, "limit: copy 64 KiB", &bytes);
    for (name, length) in [("id of 4 KiB", 4 << 10), ("id of 64 KiB", 64 << 10)] {
        let bytes = bytes.get(..length).unwrap_or_default();
        group.throughput(bytes_of(length));
        group.bench_function(name, |bencher| bencher.iter(|| ChunkId::of(black_box(bytes))));
    }
}

fn frames_of(builder: &mut FrameBuilder, chunks: &[(ChunkId, &[u8])]) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (id, chunk) in chunks {
        builder.add(*id, chunk, &mut |frame| frames.push(frame)).unwrap();
    }
    builder.finish(&mut |frame| frames.push(frame)).unwrap();
    frames
}

fn frame(criterion: &mut Criterion) {
    /// As much as one frame takes.
    const RUN: usize = 512 << 10;
    let text = prose(8 * MIB);
    let chunks: Vec<(ChunkId, &[u8])> = text.chunks(64 << 10).map(|part| (ChunkId::of(part), part)).collect();
    let mut group = criterion.benchmark_group("frame");
    limit_copy(&mut group, "limit: copy 8 MiB", &text);
    for level in [1, 3] {
        let mut raw = zstd::bulk::Compressor::new(level).unwrap();
        group.bench_function(format!("limit: zstd level {level}"), |bencher| {
            bencher.iter(|| text.chunks(RUN).map(|part| raw.compress(part).unwrap().len()).sum::<usize>());
        });
        let mut builder = FrameBuilder::new(level).unwrap();
        group.bench_function(format!("make, level {level}"), |bencher| {
            bencher.iter(|| frames_of(&mut builder, &chunks));
        });
    }
    let stored = frames_of(&mut FrameBuilder::new(1).unwrap(), &chunks);
    assert!(stored.iter().all(|frame| frame.codec == Codec::Zstd));
    let mut raw = zstd::bulk::Decompressor::new().unwrap();
    let mut to = vec![0; RUN];
    group.bench_function("limit: zstd decompress", |bencher| {
        bencher.iter(|| {
            stored
                .iter()
                .map(|frame| raw.decompress_to_buffer(&frame.stored[..], &mut to[..]).unwrap())
                .sum::<usize>()
        });
    });
    let mut reader = FrameReader::new().unwrap();
    group.bench_function("open", |bencher| {
        bencher.iter(|| {
            stored.iter().map(|frame| reader.open(frame.codec, &frame.stored).unwrap().len()).sum::<usize>()
        });
    });
}

/// Entries as a tree of packages has them: 20 files in a directory, three levels deep, most of one chunk.
fn entries(count: u32) -> Vec<Entry> {
    let owner = EntryOwner {
        uid: 1000,
        gid: 1000,
        user: b"user".as_slice().into(),
        group: b"user".as_slice().into(),
    };
    let mut entries: Vec<Entry> = (0..count)
        .map(|n| {
            let path = format!("lib/package-{:03}/src/part-{:03}/file-{n:06}.js", n / 400, n / 20);
            let content = Content {
                level: 0,
                refs: vec![ChunkRef { id: ChunkId::of(&n.to_le_bytes()), length: 1 + n % 9_000 }],
            };
            let mtime = FileTime { seconds: 1_700_000_000 + i64::from(n % 1_000), nanoseconds: 0 };
            Entry {
                path: EntryPath::new(path).unwrap(),
                kind: EntryKind::File { size: u64::from(1 + n % 9_000), content, extents: None },
                attributes: Attributes { mode: 0o644, owner: owner.clone(), mtime, xattrs: Vec::new() },
            }
        })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

fn encoded(entries: &[Entry]) -> Vec<Vec<u8>> {
    let mut writer = ManifestWriter::new();
    let mut chunks: Vec<Vec<u8>> = entries.iter().filter_map(|entry| writer.push(entry)).collect();
    chunks.extend(writer.finish());
    chunks
}

fn manifest(criterion: &mut Criterion) {
    let entries = entries(50_000);
    let chunks = encoded(&entries);
    let mut group = criterion.benchmark_group("manifest");
    limit_copy(&mut group, "limit: copy the bytes of 50k entries", &chunks.concat());
    group.bench_function("write 50k entries", |bencher| bencher.iter(|| encoded(black_box(&entries))));
    group.bench_function("read 50k entries", |bencher| {
        bencher.iter(|| chunks.iter().map(|chunk| decode_chunk(chunk).unwrap().len()).sum::<usize>());
    });
}

fn segment(criterion: &mut Criterion) {
    const ROWS: u32 = 200_000;
    const ASKED: u32 = 1_000;
    let name = WrittenName { session: SessionId::from_bytes([1; 16]), number: 0, digest: [0; 8] };
    let pack = PackInfo { pack: PackName { kind: PackKind::Data, name }, size: 1 << 30, table_length: 1 };
    let id = |n: u32| ChunkId::of(&n.to_le_bytes());
    let rows: Vec<Row> = (0..ROWS)
        .map(|n| {
            let codec = Codec::Zstd;
            (id(n), Location { pack: 0, frame_offset: n, frame_length: 9, codec, offset: 0, length: 9 })
        })
        .collect();
    let bytes = segment::encode(&[pack], rows.clone());
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    let (in_memory, in_file) = (Segment::open(&bytes).unwrap(), Segment::open_file(file).unwrap());
    let map: HashMap<ChunkId, Location> = rows.iter().copied().collect();
    let present: Vec<ChunkId> = (0..ASKED).map(|n| id(n * (ROWS / ASKED))).collect();
    let absent: Vec<ChunkId> = (ROWS..ROWS + ASKED).map(id).collect();

    let mut group = criterion.benchmark_group("segment");
    limit_copy(&mut group, "limit: copy a segment of 200k rows", &bytes);
    group.bench_function("open a segment of 200k rows", |bencher| {
        bencher.iter(|| Segment::open(black_box(&bytes)).unwrap())
    });
    group.throughput(Throughput::Elements(u64::from(ASKED)));
    group.bench_function("limit: hash map, 1k present", |bencher| {
        bencher.iter(|| present.iter().filter(|id| map.contains_key(*id)).count());
    });
    for (place, segment) in [("memory", &in_memory), ("file", &in_file)] {
        for (what, ids) in [("present", &present), ("absent", &absent)] {
            group.bench_function(format!("find 1k {what}, {place}"), |bencher| {
                bencher.iter(|| ids.iter().map(|id| segment.find(id).unwrap().len()).sum::<usize>());
            });
        }
    }
}

fn tree(criterion: &mut Criterion) {
    const FILES: u32 = 20_000;
    let home = tempfile::tempdir().unwrap();
    for n in 0..FILES {
        let directory = home.path().join(format!("{:02}/{:03}", n / 1_000, n / 20));
        if n.is_multiple_of(20) {
            fs::create_dir_all(&directory).unwrap();
        }
        drop(File::create(directory.join(format!("file-{n:05}"))).unwrap());
    }
    let mut group = criterion.benchmark_group("walk");
    group.throughput(Throughput::Elements(u64::from(FILES)));
    group.bench_function("limit: list and look, 20k files", |bencher| bencher.iter(|| look(home.path())));
    let source = SourceTree::open(home.path()).unwrap();
    for threads in [0, 2] {
        let options = WalkOptions { threads, excludes: None, one_file_system: false };
        group.bench_function(format!("walk 20k files, {threads} threads ahead"), |bencher| {
            bencher.iter(|| walk(&source, options.clone()).count());
        });
    }
}

/// Lists a tree and looks at every entry.
fn look(directory: &Path) -> u64 {
    let mut seen = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        seen += 1;
        // Does not follow links, and asks relative to the open directory where the system lets it.
        if entry.metadata().unwrap().is_dir() {
            seen += look(&entry.path());
        }
    }
    seen
}
