//! Manifests that claim what is not so, as a hostile or broken writer might put them into a store.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::scene::{Host, Scene, everything, look, noise, quiet, write};
use crate::base::{ChunkId, Classify as _, ErrorKind};
use crate::store::session::Session;
use crate::store::writer::{ChunkWriter, Claim};
use crate::store::{Attributes, ChunkRef, Content, Entry, EntryKind, EntryPath, Extent};
use crate::workspace::archive::ArchiveFormat;
use crate::workspace::commit::{Made, commit};
use crate::workspace::save::blocking;
use crate::workspace::stage::{Stage, Staged};
use crate::workspace::{WorkspaceError, restore_archive};

/// What a manifest says of a file.
#[derive(Debug, Clone)]
struct Claimed {
    size: u64,
    refs: Vec<ChunkRef>,
    extents: Option<Vec<Extent>>,
    /// Whether the references stand in a list, whatever their number.
    through_list: bool,
}

/// Records a revision whose only file is as claimed. Its chunks must be in the store.
async fn claim(host: &Host, claimed: Claimed) -> Result<(), WorkspaceError> {
    let session = Session::open(Arc::clone(&host.depot.objects), "save").await?;
    let view = session.view(&host.depot.index_cache()).await?;
    let writer = Arc::new(ChunkWriter::new(&session, view, None));
    let staging = Arc::clone(&writer);
    let draft = blocking(move || {
        let mut stage = Stage::new(Arc::clone(&staging), None).unwrap();
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        let root = Entry { path: EntryPath::root(), kind: EntryKind::Directory, attributes };
        stage.push(Staged { entry: root, known: None, packs: Vec::new(), origin: None })?;
        let mut packs = Vec::new();
        for chunk in &claimed.refs {
            let Claim::Stored(number) = staging.claim(&chunk.id)? else { panic!("{chunk:?} is not there") };
            packs.push(number);
        }
        let content = if claimed.through_list {
            let mut list = vec![0x81];
            crate::store::manifest::encode_content(&mut list, &Content { level: 0, refs: claimed.refs });
            Content { level: 1, refs: vec![stage.list(&list)?] }
        } else {
            Content { level: 0, refs: claimed.refs }
        };
        let kind = EntryKind::File { size: claimed.size, content, extents: claimed.extents };
        let path = EntryPath::new(b"file".as_slice()).unwrap();
        let entry = Entry { path, kind, attributes: Attributes { mode: 0o644, ..Attributes::default() } };
        stage.push(Staged { entry, known: None, packs, origin: None })?;
        let (draft, _) = stage.finish()?;
        Ok::<_, WorkspaceError>(draft)
    })
    .await??;
    writer.flush().await?;
    let made = Made {
        workspace: "w".parse().unwrap(),
        labels: BTreeMap::new(),
        source: "a lie".to_owned(),
        draft,
        unsettled: 0,
        parent: None,
    };
    commit(&host.depot, session, writer, made, None).await.map(|_| ())
}

/// Lengths that a manifest claims were once believed: a chunk that was longer than said was written past the end of its file, and past
/// the caller's limits.
#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_a_manifest_claims_are_held_to() {
    let scene = Scene::new(1);
    let (tree, host) = (scene.path("tree"), scene.host("host"));
    fs::create_dir(&tree).unwrap();
    let (a, b) = (noise(1, 100_000), noise(2, 90_000));
    write(&tree.join("a"), &a);
    write(&tree.join("b"), &b);
    host.save(&tree, "w").await.unwrap();
    let chunk = |bytes: &[u8], length| ChunkRef { id: ChunkId::of(bytes), length };
    let right = vec![chunk(&a, 100_000), chunk(&b, 90_000)];
    let plain = |size, refs| Claimed { size, refs, extents: None, through_list: false };
    let holes = |data: u64| {
        let extents = vec![Extent { offset: 0, length: 10 }, Extent { offset: 20, length: data - 10 }];
        Some(extents)
    };
    let lies = [
        // A chunk is longer, or shorter, than its reference says.
        plain(10, vec![chunk(&a, 10)]),
        plain(100_001, vec![chunk(&a, 100_001)]),
        plain(100_010, vec![chunk(&a, 100_000), chunk(&b, 10)]),
        Claimed { extents: holes(60), ..plain(300_000, vec![chunk(&a, 60)]) },
        Claimed { through_list: true, ..plain(100_010, vec![chunk(&a, 100_000), chunk(&b, 10)]) },
        // The references of a list are of more, or fewer, bytes than the file.
        Claimed { through_list: true, ..plain(10, right.clone()) },
        Claimed { through_list: true, ..plain(1 << 20, right.clone()) },
        Claimed { through_list: true, extents: holes(60), ..plain(1_000, right.clone()) },
    ];
    for (at, lie) in lies.into_iter().enumerate() {
        claim(&host, lie.clone()).await.unwrap();
        let revision = host.revisions().await.pop().unwrap();
        let assert_damage = |job: &str, error: &WorkspaceError| {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{job} of lie {at}: {error:?}");
            let WorkspaceError::Damaged { paths, .. } = error else { panic!("{job} of lie {at}: {error:?}") };
            assert_eq!(paths.iter().map(ToString::to_string).collect::<Vec<_>>(), ["file"]);
        };
        let target = scene.path("back");
        let error = host.restore(&revision, &target).await.unwrap_err();
        assert_damage("restore", &error);
        assert!(!target.exists());
        for there in [None, Some(b"".as_slice()), Some(b"something else".as_slice())] {
            let target = scene.new_path();
            fs::create_dir(&target).unwrap();
            if let Some(there) = there {
                write(&target.join("file"), there);
            }
            let error = host.update(&revision, &target).await.unwrap_err();
            assert_damage("update", &error);
            let length = fs::metadata(target.join("file")).map_or(0, |file| file.len());
            assert!(length <= lie.size.max(14), "lie {at}: {length} bytes");
        }
        let out = scene.new_path();
        let stream = Box::new(fs::File::create(&out).unwrap());
        let (spec, cancel) = (everything(), CancellationToken::new());
        let depot = &host.depot;
        let streamed =
            restore_archive(depot, &revision, stream, ArchiveFormat::Tar, &spec, quiet(), &cancel).await;
        assert_damage("stream", &streamed.unwrap_err());
    }
    // What is claimed rightly is restored.
    claim(&host, Claimed { through_list: true, ..plain(190_000, right) }).await.unwrap();
    let target = scene.path("back");
    host.restore(&host.revisions().await.pop().unwrap(), &target).await.unwrap();
    assert_eq!(fs::read(target.join("file")).unwrap(), [a, b].concat());
    assert_eq!(look(&target).len(), 2);
}
