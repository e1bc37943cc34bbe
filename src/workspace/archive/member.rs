//! Headers and extension records together make one entry.

use std::collections::BTreeMap;

use crate::store::{Attributes, Content, Entry, EntryKind, EntryOwner, EntryPath, FileTime, Xattr};

use super::acl::{self, AclName};
use super::error::ArchiveError;
use super::header::{
    Dialect, Field, GID, GROUP, Header, LINK, MAJOR, MINOR, MODE, MTIME, SIZE, UID, USER, until_nul,
};
use super::pax::{Overrides, Record};
use super::read::{ArchiveLimits, ArchiveSummary};
use super::sparse::{self, OldMap, SparseRecords};

/// What stood before an entry's header and holds for it.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) pax: Option<Vec<Record>>,
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
}

impl Extensions {
    /// Returns whether nothing stands there.
    pub(super) fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

/// Where the map of a sparse file is found.
#[derive(Debug)]
pub(super) enum SparseMap {
    /// In the header, and in blocks after it.
    Old(OldMap),
    /// In the records, or before the data.
    Records(SparseRecords),
}

/// An entry as its headers describe it; the map of a sparse file is not read yet.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) entry: Entry,
    /// How many bytes follow in the archive, padding not counted.
    pub(super) size: u64,
    pub(super) sparse: Option<SparseMap>,
    /// Whether it is a link to itself: the second time that GNU tar was told to pack the same name.
    pub(super) is_self_link: bool,
}

impl Member {
    /// Makes an entry of its header and of what stood before it.
    pub(super) fn new(
        header: &Header,
        before: Extensions,
        globals: &BTreeMap<Vec<u8>, Vec<u8>>,
        limits: &ArchiveLimits,
        place: &str,
        summary: &mut ArchiveSummary,
    ) -> Result<Self, ArchiveError> {
        let mut records = Overrides::default();
        let malformed = |problem: String| ArchiveError::malformed(place, problem);
        for (key, value) in globals {
            records.apply(key, value).map_err(malformed)?;
        }
        for Record { key, value } in before.pax.iter().flatten() {
            records.apply(key, value).map_err(malformed)?;
        }
        let sparse_records = sparse::from_records(&records.sparse).map_err(malformed)?;

        let own = agreed(before.long_name, records.path.take(), "name").map_err(malformed)?;
        let own = own.unwrap_or_else(|| header.name());
        let raw = sparse_records.as_ref().and_then(|sparse| sparse.name.clone()).unwrap_or(own);
        let place = if raw.is_empty() { place.to_owned() } else { shown(&raw) };
        let malformed = |problem: String| ArchiveError::malformed(&place, problem);
        let path = Named::new(&raw, limits, &place, "name")?;
        summary.absolute_names += u64::from(path.absolute);
        summary.dotted_names += u64::from(path.dotted);

        let stated = number(header, SIZE, "size").map_err(malformed)?;
        let stated = u64::try_from(stated).map_err(|_reason| malformed("its size is negative".to_owned()))?;
        let size = records.size.unwrap_or(stated);
        if i64::try_from(size).is_err() {
            return Err(malformed(format!("a size of {size} bytes is out of range")));
        }

        let link = || -> Result<Vec<u8>, ArchiveError> {
            let long = agreed(before.long_link.clone(), records.link.clone(), "link").map_err(malformed)?;
            let link = long.unwrap_or_else(|| header.text(LINK).to_vec());
            if link.is_empty() { Err(malformed("a link without a target".to_owned())) } else { Ok(link) }
        };
        let device = |record: Option<u64>, field, what| {
            let value = match record {
                Some(value) => Some(value),
                None if header.dialect() == Dialect::Old => Some(0),
                None => u64::try_from(number(header, field, what).map_err(malformed)?).ok(),
            };
            let value = value.and_then(|value| u32::try_from(value).ok());
            value.ok_or_else(|| malformed(format!("its {what} is out of range")))
        };
        let devices = || -> Result<(u32, u32), ArchiveError> {
            let major = device(records.major, MAJOR, "major number")?;
            Ok((major, device(records.minor, MINOR, "minor number")?))
        };

        let file = |size| EntryKind::File { size, content: Content::default(), extents: None };
        let kind = match header.kind() {
            b'1' => {
                let raw = link()?;
                let target = Named::new(&raw, limits, &place, "link target")?;
                if target.path.is_root() {
                    return Err(malformed("a hard link to the root".to_owned()));
                }
                EntryKind::HardLink { target: target.path }
            }
            b'2' => {
                let target = link()?;
                if target.len() > limits.max_path_bytes {
                    return Err(limit(&place, "bytes in a link target", limits.max_path_bytes));
                }
                EntryKind::Symlink { target: target.into() }
            }
            b'3' => {
                let (major, minor) = devices()?;
                EntryKind::CharDevice { major, minor }
            }
            b'4' => {
                let (major, minor) = devices()?;
                EntryKind::BlockDevice { major, minor }
            }
            b'5' | b'D' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            // Before POSIX a directory was a file with a slash after its name, and every tar still reads it so.
            b'0' | 0 | b'7' if raw.ends_with(b"/") || raw.is_empty() => EntryKind::Directory,
            b'0' | 0 | b'7' | b'S' => file(size),
            _ => {
                summary.unknown_kinds += 1;
                file(size)
            }
        };
        let is_file = matches!(kind, EntryKind::File { .. });
        // Some programs skip such data and some do not: whatever stood there would be two archives in one.
        if !is_file && size > 0 && header.kind() != b'D' {
            return Err(malformed(format!("claims {size} bytes of data, which only a file has")));
        }
        if path.path.is_root() && !matches!(kind, EntryKind::Directory) {
            return Err(malformed("the root is no directory".to_owned()));
        }
        let sparse = match (header.kind(), sparse_records) {
            (b'S', None) if header.dialect() == Dialect::Gnu => {
                Some(SparseMap::Old(OldMap::from_header(header).map_err(malformed)?))
            }
            (b'S', _) => return Err(malformed("a GNU sparse file in an archive of another kind".to_owned())),
            (_, Some(_)) if !is_file => {
                return Err(malformed("a sparse map, which only a file has".to_owned()));
            }
            (_, Some(records)) => Some(SparseMap::Records(records)),
            (_, None) => None,
        };

        let attributes = attributes(header, &mut records, summary).map_err(malformed)?;
        let is_self_link = matches!(&kind, EntryKind::HardLink { target } if *target == path.path);
        Ok(Self { entry: Entry { path: path.path, kind, attributes }, size, sparse, is_self_link })
    }
}

/// Returns a name for messages.
fn shown(raw: &[u8]) -> String {
    /// Enough to find the entry, and no more than a line or two.
    const SHOWN: usize = 200;
    let text = raw.get(..SHOWN).unwrap_or(raw).escape_ascii();
    format!("`{text}{}`", if raw.len() > SHOWN { "…" } else { "" })
}

fn limit(place: &str, what: &'static str, limit: usize) -> ArchiveError {
    ArchiveError::Limit { place: place.to_owned(), what, limit: u64::try_from(limit).unwrap_or(u64::MAX) }
}

/// Returns the one of two names that is there; refuses two that differ, because programs disagree on which one holds.
fn agreed(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>, what: &str) -> Result<Option<Vec<u8>>, String> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err(format!("has two long {what}s that differ")),
        (gnu, pax) => Ok(pax.or(gnu)),
    }
}

/// A name from an archive, made a path of the tree.
struct Named {
    path: EntryPath,
    absolute: bool,
    dotted: bool,
}

impl Named {
    fn new(
        raw: &[u8],
        limits: &ArchiveLimits,
        place: &str,
        what: &'static str,
    ) -> Result<Self, ArchiveError> {
        let refused = |problem: String| ArchiveError::Path { place: place.to_owned(), problem };
        if raw.len() > limits.max_path_bytes {
            return Err(limit(place, "bytes in a name", limits.max_path_bytes));
        }
        let parts = || raw.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        if parts().any(|part| part == b"..") {
            return Err(refused(format!("its {what} {} holds `..`", shown(raw))));
        }
        let inner: Vec<&[u8]> = parts().filter(|part| *part != b".").collect();
        if inner.len() > limits.max_depth {
            return Err(limit(place, "directories above each other", limits.max_depth));
        }
        let path = EntryPath::new(inner.join(&b'/'))
            .map_err(|_reason| refused(format!("its {what} has a part of more than 255 bytes, or a NUL")))?;
        let dotted = parts().next() == Some(b".") && !path.is_root();
        Ok(Self { path, absolute: raw.first() == Some(&b'/'), dotted })
    }
}

/// Returns a number of the header, 0 where the field is blank.
fn number(header: &Header, field: Field, what: &str) -> Result<i64, String> {
    let number = header.number(field).map_err(|error| format!("its {what} {error}"))?;
    Ok(number.unwrap_or_default())
}

fn attributes(
    header: &Header,
    records: &mut Overrides,
    summary: &mut ArchiveSummary,
) -> Result<Attributes, String> {
    let id = |record: Option<u64>, field, what| {
        let value = match record {
            Some(value) => Some(value),
            None => u64::try_from(number(header, field, what)?).ok(),
        };
        value.and_then(|value| u32::try_from(value).ok()).ok_or_else(|| format!("its {what} is out of range"))
    };
    let name = |record: Option<Vec<u8>>, field| -> Box<[u8]> {
        match record {
            Some(name) => name.into(),
            None if header.dialect() == Dialect::Old => Box::default(),
            None => until_nul(header.text(field)).into(),
        }
    };
    let mode = number(header, MODE, "mode")?;
    let mtime = match records.mtime {
        Some(time) => time,
        None => FileTime { seconds: number(header, MTIME, "time")?, nanoseconds: 0 },
    };
    let owner = EntryOwner {
        uid: id(records.uid, UID, "owner")?,
        gid: id(records.gid, GID, "group")?,
        user: name(records.user.take(), USER),
        group: name(records.group.take(), GROUP),
    };
    let xattrs = xattrs(records, &owner, summary)?;
    let mut mode = u16::try_from(mode & 0o7777).unwrap_or_default();
    let acl = xattrs.iter().find(|xattr| *xattr.name == *acl::ACCESS);
    if let Some(permissions) = acl.and_then(|acl| acl::acl_permissions(&acl.value)) {
        // On disk the two are one. bsdtar writes the owning group's permissions where the kernel shows the mask, and
        // setting such a mode after the ACL would narrow it.
        mode = mode & 0o7000 | permissions;
    }
    Ok(Attributes { mode, owner, mtime, xattrs })
}

/// Returns attributes and ACLs. An ACL that is there as the kernel keeps it wins over its text.
fn xattrs(
    records: &mut Overrides,
    owner: &EntryOwner,
    summary: &mut ArchiveSummary,
) -> Result<Vec<Xattr>, String> {
    let plain = records.take_xattrs()?;
    let mut xattrs: Vec<Xattr> = plain
        .into_iter()
        .map(|Record { key, value }| Xattr { name: key.into(), value: value.into() })
        .collect();
    // Nothing is asked of this machine: its users need not be those of the archive. The owner's own name is known.
    let lookup = |name: AclName<'_>| match name {
        AclName::User(name) => (*name == *owner.user).then_some(owner.uid),
        AclName::Group(name) => (*name == *owner.group).then_some(owner.gid),
    };
    for (name, text) in [(acl::ACCESS, &records.acl_access), (acl::DEFAULT, &records.acl_default)] {
        let Some(text) = text else { continue };
        if xattrs.iter().any(|xattr| *xattr.name == *name) {
            continue;
        }
        let parsed = acl::acl_from_text(text, &lookup).map_err(|error| error.to_string())?;
        summary.unknown_acl_names += parsed.unknown_names;
        // The permission bits say the same, and the kernel keeps no such ACL.
        if !(parsed.minimal && name == acl::ACCESS) {
            xattrs.push(Xattr { name: name.into(), value: parsed.binary.into() });
        }
    }
    xattrs.sort();
    Ok(xattrs)
}
