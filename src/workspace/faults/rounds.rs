//! What comes back is what was saved, of whatever kind and by whichever way.

use std::io::Write;
use std::sync::{Arc, Mutex};

use futures_util::TryStreamExt as _;
use tokio_util::sync::CancellationToken;

use super::growth::Growth;
use super::scene::{Host, Scene, assert_same, everything, let_times_settle, look, quiet, seeds};
use crate::base::RevisionId;
use crate::store::revision;
use crate::store::{Entry, EntryKind};
use crate::workspace::archive::ArchiveFormat;
use crate::workspace::{ManifestReader, SaveSpec, restore_archive, save_archive};

#[tokio::test(flavor = "multi_thread")]
async fn any_directory_comes_back_as_it_was_however_often_it_is_changed_and_saved() {
    for seed in seeds(4) {
        let scene = Scene::new(seed);
        let (tree, host) = (scene.path("tree"), scene.host("host"));
        let mut growth = Growth::new(&tree, seed);
        growth.grow(120);
        for round in 0..4 {
            let_times_settle();
            let report = host.save(&tree, "w").await.unwrap();
            assert_eq!((report.unreadable.count, report.unsettled.count), (0, 0), "seed {seed}");
            let target = scene.new_path();
            let revision = host.find(report.revision).await;
            let restored = scene.stranger().restore(&revision, &target).await.unwrap();
            assert_eq!(restored.shortfalls, [], "seed {seed}, round {round}");
            assert_same(&look(&target), &look(&tree));
            growth.change(12);
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn entries(host: &Host, id: RevisionId) -> Vec<Entry> {
    let record = revision::read(&*host.depot.objects, &host.find(id).await).await.unwrap().unwrap();
    let reader = ManifestReader::open(&host.depot.fetcher(), &record).await.unwrap();
    let mut entries: Vec<Entry> = reader.entries().try_collect().await.unwrap();
    entries.retain(|entry| entry.kind != EntryKind::Socket);
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_goes_through_an_archive_has_the_same_manifest() {
    for (seed, format) in
        seeds(6).zip([ArchiveFormat::Tar, ArchiveFormat::TarGz, ArchiveFormat::TarZst].into_iter().cycle())
    {
        let scene = Scene::new(seed);
        let (tree, host) = (scene.path("tree"), scene.host("host"));
        Growth::new(&tree, seed + 1_000).grow(150);
        let report = host.save(&tree, "w").await.unwrap();
        let saved = host.find(report.revision).await;
        let (out, cancel) = (Shared::default(), CancellationToken::new());
        let sink = Box::new(out.clone());
        restore_archive(&host.depot, &saved, sink, format, &everything(), quiet(), &cancel).await.unwrap();
        let stream = Box::new(std::io::Cursor::new(out.0.lock().unwrap().clone()));
        let spec = SaveSpec::new("again".parse().unwrap());
        let again =
            save_archive(&host.depot, stream, "a test".into(), &spec, quiet(), &cancel).await.unwrap();
        assert_eq!(again.counts, report.counts, "seed {seed}");
        let (expected, found) = (entries(&host, report.revision).await, entries(&host, again.revision).await);
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(found, expected, "seed {seed}");
        }
        assert_eq!(found.len(), expected.len());
        assert_eq!(again.written.new_bytes, 0, "seed {seed}");
    }
}
