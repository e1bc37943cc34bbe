//! Small objects, read whole, and never more of them than a writer can have made.

use bytes::Bytes;

use super::error::StoreError;
use super::wire::broken;
use crate::objects::{Key, ObjectStore};

/// Most bytes of a record, a list of condemned packs or an adopt: each names packs, revisions or segments with some 110 bytes, and two
/// million packs of 64 MiB are more than 100 TiB.
pub const LIST_BYTES: u64 = 256 << 20;
/// Most bytes of a segment of the index, whose rows take 54 bytes. A writer closes one with less than 2.5 million rows (128 MiB); the
/// first releases closed them by the bytes of the packs alone.
pub const SEGMENT_BYTES: u64 = 512 << 20;
/// Most bytes of a note: a tombstone, a pin, a session or its beat.
pub const NOTE_BYTES: u64 = 1 << 20;

/// Reads an object of at most `most_bytes`; `None` when there is none.
///
/// # Errors
///
/// Fails where the store does not answer, and with [`StoreError::Damaged`] on a longer object: no writer has made it.
pub async fn read(
    objects: &dyn ObjectStore,
    key: &Key,
    most_bytes: u64,
) -> Result<Option<Bytes>, StoreError> {
    match objects.get_up_to(key, most_bytes).await? {
        Some(bytes) if bytes.len() as u64 > most_bytes => Err(StoreError::Damaged {
            key: key.to_string(),
            store: objects.place(),
            source: broken("it is larger than any that is written"),
        }),
        read => Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Classify as _, ErrorKind};
    use crate::objects::SimStore;

    #[tokio::test]
    async fn an_object_that_no_writer_made_is_damage_and_is_named() {
        let store = SimStore::new(1);
        let key = Key::new("rev/w/x").unwrap();
        assert_eq!(read(&store, &key, 4).await.unwrap(), None);
        for (bytes, is_read) in [("1234", true), ("12345", false)] {
            store.put(&key, bytes.into()).await.unwrap();
            match read(&store, &key, 4).await {
                Ok(read) => assert_eq!((is_read, read), (true, Some(bytes.into()))),
                Err(error) => {
                    assert_eq!((is_read, error.kind()), (false, ErrorKind::Corrupt));
                    assert!(error.to_string().contains("`rev/w/x`"), "{error}");
                }
            }
        }
    }
}
