//! What every store must pass.

use bytes::Bytes;

use super::{Key, ObjectStore, Prefix};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// Runs the whole suite on an empty store.
pub(super) async fn all(store: &dyn ObjectStore) {
    what_was_put_is_read_back(store).await;
    a_put_takes_the_place_of_an_earlier_one(store).await;
    ranges_end_with_the_object(store).await;
    listings_are_sorted_and_keep_to_whole_segments(store).await;
    deleting_is_idempotent(store).await;
}

async fn what_was_put_is_read_back(store: &dyn ObjectStore) {
    assert_eq!(store.get(&key("get/nothing")).await.unwrap(), None);
    for (name, bytes) in [("get/empty", Vec::new()), ("get/large", vec![7; 3 << 20])] {
        store.put(&key(name), bytes.clone().into()).await.unwrap();
        assert_eq!(store.get(&key(name)).await.unwrap(), Some(Bytes::from(bytes)));
    }
}

async fn a_put_takes_the_place_of_an_earlier_one(store: &dyn ObjectStore) {
    for text in ["one", "two"] {
        store.put(&key("twice"), text.into()).await.unwrap();
    }
    assert_eq!(store.get(&key("twice")).await.unwrap(), Some(Bytes::from("two")));
}

async fn ranges_end_with_the_object(store: &dyn ObjectStore) {
    store.put(&key("range/x"), "0123456789".into()).await.unwrap();
    for (offset, length, expected) in [(0, 4, "0123"), (8, 4, "89"), (10, 1, ""), (99, 1, "")] {
        let range = store.range(&key("range/x"), offset, length).await.unwrap();
        assert_eq!(range, Some(Bytes::from(expected)), "{offset}+{length}");
    }
    assert_eq!(store.range(&key("range/nothing"), 0, 1).await.unwrap(), None);
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
    store.put(&key("delete/a"), Bytes::new()).await.unwrap();
    for _ in 0..2 {
        store.delete(&[key("delete/a"), key("delete/never")]).await.unwrap();
        assert_eq!(store.get(&key("delete/a")).await.unwrap(), None);
    }
    assert!(store.list(&Prefix::new("delete").unwrap()).await.unwrap().is_empty());
}
