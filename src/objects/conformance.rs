//! What every store must pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Key, ObjectStore, Prefix};
use crate::base::fs::{Existing, create_dir_durably, write_durably};

/// More than one page of a listing and one batch of a deletion have on S3: 1,000.
const MANY: usize = 1_100;
/// More than two parts of an upload in parts, and no whole number of them.
const LARGE_BYTES: usize = (17 << 20) + 12_345;

fn key(text: impl Into<String>) -> Key {
    Key::new(text).unwrap()
}

/// Returns bytes that differ from place to place, so that a part in a wrong place is seen.
fn pattern(length: usize, seed: u64) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes.into()
}

/// Runs the whole suite on an empty store, and leaves it empty.
pub(in crate::objects) async fn all(store: &dyn ObjectStore) {
    what_was_put_is_read_back(store).await;
    a_put_takes_the_place_of_an_earlier_one(store).await;
    a_first_put_leaves_what_is_there(store).await;
    ranges_end_with_the_object(store).await;
    an_object_is_read_up_to_a_length(store).await;
    listings_are_sorted_and_keep_to_whole_segments(store).await;
    deleting_is_idempotent(store).await;
    every_allowed_key_is_a_name(store).await;
    a_file_becomes_an_object_and_is_gone(store).await;
    ranges_cross_the_parts_of_a_large_file(store).await;
    a_missing_file_is_an_error_and_leaves_nothing(store).await;
    writers_and_listers_do_not_disturb_each_other(store).await;
    many_objects_are_listed_and_deleted(store).await;
    empty(store).await;
}

/// Deletes everything.
pub(in crate::objects) async fn empty(store: &dyn ObjectStore) {
    let left: Vec<Key> =
        store.list(&Prefix::default()).await.unwrap().into_iter().map(|object| object.key).collect();
    store.delete(&left).await.unwrap();
    assert!(store.list(&Prefix::default()).await.unwrap().is_empty());
}

async fn what_was_put_is_read_back(store: &dyn ObjectStore) {
    assert_eq!(store.get(&key("get/nothing")).await.unwrap(), None);
    for (name, bytes) in [("get/empty", Bytes::new()), ("get/large", pattern(3 << 20, 1))] {
        store.put(&key(name), bytes.clone()).await.unwrap();
        assert!(store.get(&key(name)).await.unwrap() == Some(bytes), "{name}");
    }
}

async fn a_put_takes_the_place_of_an_earlier_one(store: &dyn ObjectStore) {
    for text in ["one", "two and longer", "3"] {
        store.put(&key("twice"), text.into()).await.unwrap();
        assert_eq!(store.get(&key("twice")).await.unwrap(), Some(Bytes::from(text)));
    }
    assert_eq!(store.range(&key("twice"), 0, 99).await.unwrap(), Some(Bytes::from("3")));
}

async fn a_first_put_leaves_what_is_there(store: &dyn ObjectStore) {
    for text in ["one", "two"] {
        assert_eq!(store.put_if_absent(&key("first"), text.into()).await.unwrap(), "one");
    }
}

async fn an_object_is_read_up_to_a_length(store: &dyn ObjectStore) {
    store.put(&key("up-to/x"), "0123456789".into()).await.unwrap();
    store.put(&key("up-to/empty"), Bytes::new()).await.unwrap();
    for (most, expected) in [(0, "0"), (9, "0123456789"), (10, "0123456789"), (u64::MAX, "0123456789")] {
        let read = store.get_up_to(&key("up-to/x"), most).await.unwrap();
        assert_eq!(read, Some(Bytes::from(expected)), "{most}");
    }
    assert_eq!(store.get_up_to(&key("up-to/x"), 8).await.unwrap(), Some("012345678".into()));
    assert_eq!(store.get_up_to(&key("up-to/empty"), 8).await.unwrap(), Some(Bytes::new()));
    assert_eq!(store.get_up_to(&key("up-to/nothing"), 8).await.unwrap(), None);
}

async fn ranges_end_with_the_object(store: &dyn ObjectStore) {
    store.put(&key("range/x"), "0123456789".into()).await.unwrap();
    store.put(&key("range/empty"), Bytes::new()).await.unwrap();
    for (offset, length, expected) in [
        (0, 4, "0123"),
        (8, 4, "89"),
        (10, 1, ""),
        (99, 1, ""),
        (3, 0, ""),
        (0, u64::MAX, "0123456789"),
        (7, u64::MAX, "789"),
        (u64::MAX, u64::MAX, ""),
    ] {
        let range = store.range(&key("range/x"), offset, length).await.unwrap();
        assert_eq!(range, Some(Bytes::from(expected)), "{offset}+{length}");
    }
    for (offset, length) in [(0, 1), (0, 0), (5, 5)] {
        assert_eq!(store.range(&key("range/empty"), offset, length).await.unwrap(), Some(Bytes::new()));
        assert_eq!(store.range(&key("range/nothing"), offset, length).await.unwrap(), None);
    }
}

async fn listings_are_sorted_and_keep_to_whole_segments(store: &dyn ObjectStore) {
    for name in ["list/b", "list/a/z", "list/a/b", "listing/c", "list/a-c"] {
        store.put(&key(name), name.to_owned().into()).await.unwrap();
    }
    let listed = store.list(&Prefix::new("list").unwrap()).await.unwrap();
    let keys: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["list/a-c", "list/a/b", "list/a/z", "list/b"]);
    assert!(listed.iter().all(|object| object.size_bytes == object.key.as_str().len() as u64));
    assert!(store.list(&Prefix::new("list/nothing").unwrap()).await.unwrap().is_empty());
}

async fn deleting_is_idempotent(store: &dyn ObjectStore) {
    store.delete(&[]).await.unwrap();
    store.put(&key("delete/a"), Bytes::new()).await.unwrap();
    for _ in 0..2 {
        store.delete(&[key("delete/a"), key("delete/never"), key("delete/a")]).await.unwrap();
        assert_eq!(store.get(&key("delete/a")).await.unwrap(), None);
    }
    assert!(store.list(&Prefix::new("delete").unwrap()).await.unwrap().is_empty());
}

async fn every_allowed_key_is_a_name(store: &dyn ObjectStore) {
    let letters: String = (' '..='~').filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect();
    let names = [
        format!("chars/x{letters}"),
        format!("chars/{}", "n".repeat(200)),
        "chars/a..b".to_owned(),
        "chars/-".to_owned(),
        "chars/_/-._/z".to_owned(),
        "chars/UPPER".to_owned(),
        "chars/upper".to_owned(),
        format!("chars/{}", ["deep"; 30].join("/")),
    ];
    for name in &names {
        store.put(&key(name), name.clone().into()).await.unwrap();
    }
    for name in &names {
        assert_eq!(store.get(&key(name)).await.unwrap(), Some(Bytes::from(name.clone())));
    }
    let listed = store.list(&Prefix::new("chars").unwrap()).await.unwrap();
    let mut expected: Vec<Key> = names.iter().map(key).collect();
    expected.sort();
    assert_eq!(listed.into_iter().map(|object| object.key).collect::<Vec<_>>(), expected);
}

/// Writes a file where the store likes it best.
fn spooled(store: &dyn ObjectStore, folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let folder = store.spool_dir().unwrap_or_else(|| folder.to_owned());
    create_dir_durably(&folder).unwrap();
    let path = folder.join(name);
    write_durably(&path, bytes, Existing::Replace).unwrap();
    path
}

async fn a_file_becomes_an_object_and_is_gone(store: &dyn ObjectStore) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in
        [("empty", Bytes::new()), ("small", pattern(70_000, 2)), ("large", pattern(LARGE_BYTES, 3))]
    {
        let key = key(format!("file/{name}"));
        store.put(&key, "an earlier one".into()).await.unwrap();
        let path = spooled(store, folder.path(), name, &bytes);
        store.put_file(&key, &path).await.unwrap();
        assert!(!path.exists(), "{name}");
        assert!(store.get(&key).await.unwrap() == Some(bytes), "{name}");
    }
    // Also from another file system than the store likes.
    let path = folder.path().join("elsewhere");
    write_durably(&path, b"elsewhere", Existing::Keep).unwrap();
    store.put_file(&key("file/elsewhere"), &path).await.unwrap();
    assert!(!path.exists());
    let listed = store.list(&Prefix::new("file").unwrap()).await.unwrap();
    let sizes: BTreeMap<&str, u64> =
        listed.iter().map(|object| (object.key.name(), object.size_bytes)).collect();
    let expected = [("elsewhere", 9), ("empty", 0), ("large", LARGE_BYTES as u64), ("small", 70_000)];
    assert_eq!(sizes, expected.into());
}

async fn ranges_cross_the_parts_of_a_large_file(store: &dyn ObjectStore) {
    let folder = tempfile::tempdir().unwrap();
    let bytes = pattern(LARGE_BYTES, 4);
    let large = key("range/large");
    store.put_file(&large, &spooled(store, folder.path(), "ranges", &bytes)).await.unwrap();
    let part = 8 << 20;
    for (offset, length) in [
        (part - 5, 10),
        (2 * part - 1, 2),
        (part, part),
        (1, 2 * part),
        (LARGE_BYTES - 3, 9),
        (LARGE_BYTES, 1),
    ] {
        let expected = bytes.slice(offset..(offset + length).min(LARGE_BYTES));
        let range = store.range(&large, offset as u64, length as u64).await.unwrap();
        assert!(range == Some(expected), "{offset}+{length}");
    }
}

async fn a_missing_file_is_an_error_and_leaves_nothing(store: &dyn ObjectStore) {
    let missing = key("missing/file");
    let error = store.put_file(&missing, Path::new("/nonexistent/file")).await.unwrap_err();
    assert!(error.to_string().contains("missing/file"), "{error}");
    assert_eq!(store.get(&missing).await.unwrap(), None);
    store.put(&missing, "kept".into()).await.unwrap();
    store.put_file(&missing, Path::new("/nonexistent/file")).await.unwrap_err();
    assert_eq!(store.get(&missing).await.unwrap(), Some(Bytes::from("kept")));
}

async fn writers_and_listers_do_not_disturb_each_other(store: &dyn ObjectStore) {
    let prefix = Prefix::new("busy").unwrap();
    let write = async |n: usize| {
        let own = key(format!("busy/{n}"));
        for round in 0..3_usize {
            store.put(&own, format!("{n} {round}").into()).await.unwrap();
            // Everybody overwrites this one; a reader sees one of the writes, whole.
            store.put(&key("busy/all"), pattern(10_000, n as u64)).await.unwrap();
            let seen = store.get(&key("busy/all")).await.unwrap().unwrap();
            assert!((0..8).any(|n| seen == pattern(10_000, n)));
            let listed = store.list(&prefix).await.unwrap();
            assert!(listed.iter().any(|object| object.key == own), "what is written is listed");
            assert!(listed.is_sorted_by(|a, b| a.key < b.key));
        }
        store.delete(std::slice::from_ref(&own)).await.unwrap();
        assert!(store.list(&prefix).await.unwrap().iter().all(|object| object.key != own));
    };
    futures_util::future::join_all((0..8).map(write)).await;
    assert_eq!(store.list(&prefix).await.unwrap().len(), 1);
}

async fn many_objects_are_listed_and_deleted(store: &dyn ObjectStore) {
    let keys: Vec<Key> = (0..MANY).map(|n| key(format!("many/{:02x}/{n:05}", n % 5))).collect();
    stream::iter(&keys)
        .map(|key| store.put(key, Bytes::from_static(b"x")))
        .buffer_unordered(16)
        .try_collect::<Vec<()>>()
        .await
        .unwrap();
    let prefix = Prefix::new("many").unwrap();
    let listed: Vec<Key> = store.list(&prefix).await.unwrap().into_iter().map(|object| object.key).collect();
    let mut expected = keys.clone();
    expected.sort();
    assert_eq!(listed, expected);
    let (last, others) = keys.split_last().unwrap();
    store.delete(others).await.unwrap();
    let listed: Vec<Key> = store.list(&prefix).await.unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(listed, std::slice::from_ref(last));
}
