//! ACLs as text, the way archives carry them, and as bytes, the way the kernel keeps them.
//!
//! The bytes are those of the attributes `system.posix_acl_access` and `system.posix_acl_default`: the number 2 in four
//! bytes, then eight bytes an entry (tag, permissions, id), all little-endian.

const VERSION: u32 = 2;
/// The id of an entry that needs none.
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The attribute that holds a file's ACL.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute that holds the ACL which a directory gives to what is made in it.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// A name in an ACL that stands there without its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclName<'a> {
    /// A user's name.
    User(&'a [u8]),
    /// A group's name.
    Group(&'a [u8]),
}

/// An ACL that was read from text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedAcl {
    /// The ACL as the kernel keeps it.
    pub binary: Vec<u8>,
    /// Whether it says no more than permission bits do. The kernel keeps no such ACL for access.
    pub minimal: bool,
    /// How many of its entries were left out because nobody knows the number of their name.
    pub unknown_names: u64,
}

/// Why a text is no ACL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AclError {
    /// An entry is not `tag:name:permissions` or `tag:name:permissions:id`.
    #[error("`{0}` is not an entry of an ACL")]
    Entry(String),
    /// The entries do not make an ACL: one is missing that every ACL has, or is there twice.
    #[error("the ACL has {count} entries for {what}")]
    Entries {
        /// What the entries are for.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AclEntry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// Returns the ACL that `text` describes: entries between commas or line ends, `#` before a comment.
///
/// A number may stand after the permissions, or in place of the name; for other names `lookup` is asked, and entries whose
/// name it does not know are left out and counted.
///
/// # Errors
///
/// Fails on entries that are none, and on an ACL that the kernel would not take.
pub fn acl_from_text(
    text: &[u8],
    lookup: &dyn Fn(AclName<'_>) -> Option<u32>,
) -> Result<ParsedAcl, AclError> {
    let (mut entries, mut unknown_names) = (Vec::new(), 0);
    for line in text.split(|byte| matches!(byte, b'\n' | 0)) {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        for part in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty()) {
            match entry_from_text(part, lookup) {
                Some(Some(entry)) => entries.push(entry),
                Some(None) => unknown_names += 1,
                None => return Err(AclError::Entry(part.escape_ascii().to_string())),
            }
        }
    }
    // Stable: entries of one kind keep the order they were written in.
    entries.sort_by_key(|entry| entry.tag);
    check(&entries)?;
    Ok(ParsedAcl { minimal: entries.len() == 3, binary: to_binary(&entries), unknown_names })
}

/// Returns the text of an ACL, with numbers for names and commas between entries; `None` where `binary` is no ACL in the
/// order in which the kernel writes them.
#[must_use]
pub fn acl_to_text(binary: &[u8]) -> Option<String> {
    let entries = from_binary(binary)?;
    let text = |entry: &AclEntry| {
        let (tag, named) = match entry.tag {
            USER_OBJ => ("user", false),
            USER => ("user", true),
            GROUP_OBJ => ("group", false),
            GROUP => ("group", true),
            MASK => ("mask", false),
            _ => ("other", false),
        };
        let id = if named { entry.id.to_string() } else { String::new() };
        let letter = |bit: u16, letter: char| if entry.permissions & bit == 0 { '-' } else { letter };
        format!("{tag}:{id}:{}{}{}", letter(4, 'r'), letter(2, 'w'), letter(1, 'x'))
    };
    Some(entries.iter().map(text).collect::<Vec<_>>().join(","))
}

/// Returns the permission bits that the kernel shows for a file with this ACL: the mask stands in for the group, where there
/// is one. `None` where `binary` is no ACL.
#[must_use]
pub fn acl_permissions(binary: &[u8]) -> Option<u16> {
    let entries = from_binary(binary)?;
    let of = |tag| entries.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions);
    Some(of(USER_OBJ)? << 6 | of(MASK).or(of(GROUP_OBJ))? << 3 | of(OTHER)?)
}

/// Returns `None` for what is no entry, `Some(None)` for one whose name nobody knows.
fn entry_from_text(text: &[u8], lookup: &dyn Fn(AclName<'_>) -> Option<u32>) -> Option<Option<AclEntry>> {
    let mut fields: Vec<&[u8]> = text.split(|byte| *byte == b':').map(<[u8]>::trim_ascii).collect();
    if matches!(fields.first(), Some(&(b"default" | b"d"))) {
        fields.remove(0);
    }
    let tag = *fields.first()?;
    let (name, permissions, number) = match fields.get(1..)? {
        // BSD leaves out the name that is always empty.
        [permissions] if matches!(tag, b"other" | b"o" | b"mask" | b"m") => (&b""[..], *permissions, None),
        [name, permissions] => (*name, *permissions, None),
        [name, permissions, number] => (*name, *permissions, Some(*number)),
        _ => return None,
    };
    let permissions = permissions_from_text(permissions)?;
    let (plain, named) = match tag {
        b"user" | b"u" => (USER_OBJ, Some(USER)),
        b"group" | b"g" => (GROUP_OBJ, Some(GROUP)),
        b"mask" | b"m" => (MASK, None),
        b"other" | b"o" => (OTHER, None),
        _ => return None,
    };
    if name.is_empty() {
        return Some(Some(AclEntry { tag: plain, permissions, id: NO_ID }));
    }
    let tag = named?;
    let id = match number.filter(|number| !number.is_empty()) {
        Some(number) => Some(decimal(number)?),
        None if name.iter().all(u8::is_ascii_digit) => Some(decimal(name)?),
        None if tag == USER => lookup(AclName::User(name)),
        None => lookup(AclName::Group(name)),
    };
    Some(id.map(|id| AclEntry { tag, permissions, id }))
}

fn permissions_from_text(text: &[u8]) -> Option<u16> {
    if let [digit @ b'0'..=b'7'] = text {
        return Some(u16::from(digit - b'0'));
    }
    let bit = |letter: &u8| match letter {
        b'r' => Some(4),
        b'w' => Some(2),
        b'x' => Some(1),
        b'-' => Some(0),
        _ => None,
    };
    if text.is_empty() || text.len() > 3 {
        return None;
    }
    text.iter().try_fold(0, |all, letter| Some(all | bit(letter)?))
}

fn decimal(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok().filter(|id| *id != NO_ID)
}

/// Says whether the kernel would take the ACL: the three of every file once, one mask where somebody is named.
fn check(entries: &[AclEntry]) -> Result<(), AclError> {
    let count = |tag| entries.iter().filter(|entry| entry.tag == tag).count();
    for (what, tag) in [("the owner", USER_OBJ), ("the owning group", GROUP_OBJ), ("others", OTHER)] {
        if count(tag) != 1 {
            return Err(AclError::Entries { what, count: count(tag) });
        }
    }
    let masks = count(MASK);
    if masks > 1 || masks == 0 && count(USER) + count(GROUP) > 0 {
        return Err(AclError::Entries { what: "the mask", count: masks });
    }
    Ok(())
}

fn to_binary(entries: &[AclEntry]) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for entry in entries {
        bytes.extend_from_slice(&entry.tag.to_le_bytes());
        bytes.extend_from_slice(&entry.permissions.to_le_bytes());
        bytes.extend_from_slice(&entry.id.to_le_bytes());
    }
    bytes
}

fn from_binary(bytes: &[u8]) -> Option<Vec<AclEntry>> {
    let (version, rest) = bytes.split_first_chunk::<4>()?;
    let (chunks, tail) = rest.as_chunks::<8>();
    if u32::from_le_bytes(*version) != VERSION || !tail.is_empty() {
        return None;
    }
    let entries: Vec<AclEntry> = chunks
        .iter()
        .map(|[a, b, c, d, id @ ..]| AclEntry {
            tag: u16::from_le_bytes([*a, *b]),
            permissions: u16::from_le_bytes([*c, *d]),
            id: u32::from_le_bytes(*id),
        })
        .collect();
    let fine = |entry: &AclEntry| match entry.tag {
        USER | GROUP => entry.id != NO_ID,
        USER_OBJ | GROUP_OBJ | MASK | OTHER => entry.id == NO_ID,
        _ => false,
    };
    let fine = entries.iter().all(|entry| fine(entry) && entry.permissions <= 7)
        && entries.is_sorted_by_key(|entry| entry.tag)
        && check(&entries).is_ok();
    fine.then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody(_: AclName<'_>) -> Option<u32> {
        None
    }

    fn parsed(text: &str) -> ParsedAcl {
        acl_from_text(text.as_bytes(), &nobody).unwrap()
    }

    #[test]
    fn text_and_bytes_say_the_same() {
        let text = "user::rw-,user:1000:r-x,user:0:---,group::r--,group:7:rwx,mask::rwx,other::--x";
        let acl = parsed(text);
        assert_eq!((acl.minimal, acl.unknown_names), (false, 0));
        assert_eq!(acl.binary.len(), 4 + 7 * 8);
        assert_eq!(acl.binary[..12], [2, 0, 0, 0, 1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(acl_to_text(&acl.binary).unwrap(), text);
        assert_eq!(acl_permissions(&acl.binary), Some(0o671));
        assert_eq!(acl_permissions(&parsed("user::rw-,group::r--,other::---").binary), Some(0o640));
    }

    #[test]
    fn every_spelling_in_use_is_read() {
        let wanted = parsed("user::rw-,user:5:r--,group::r--,mask::r--,other::---").binary;
        for text in [
            "user::rw-\nuser:5:r--\ngroup::r--\nmask::r--\nother::---\n",
            "u::rw-,u:5:r,g::r--,m:r--,o:---",
            "user::rw-,user:joe:r--:5,group::r--,mask::r--,other::---",
            "other::---,mask::r--,group::r--,user:5:r--:5,user::rw-",
            "# file: x\nuser::rw-\nuser:5:r--\t#effective:r--\n group::r--\nmask::r--\nother::---",
            "default:user::rw-,default:user:5:r--,default:group::r--,default:mask::r--,default:other::---",
            "user::6,user:5:4,group::4,mask::4,other::0",
        ] {
            assert_eq!(parsed(text).binary, wanted, "{text}");
        }
        assert!(parsed("user::rw-,group::r--,other::---").minimal);
    }

    #[test]
    fn names_without_numbers_are_looked_up_or_left_out_and_counted() {
        let text = b"user::rw-,user:joe:r--,group::r--,group:dev:rwx,mask::r--,other::---";
        let lookup = |name: AclName<'_>| (name == AclName::User(b"joe")).then_some(41);
        let acl = acl_from_text(text, &lookup).unwrap();
        assert_eq!(acl.unknown_names, 1);
        assert_eq!(
            acl_to_text(&acl.binary).unwrap(),
            "user::rw-,user:41:r--,group::r--,mask::r--,other::---"
        );
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused() {
        for text in [
            "",
            "user::rw-,group::r--",
            "user::rw-,user::rw-,group::r--,other::---",
            "user::rw-,user:5:r--,group::r--,other::---",
            "user::rw-,group::r--,other::---,mask::r--,mask::r--",
            "user::rwxr,group::r--,other::---",
            "user::rq-,group::r--,other::---",
            "user::rw-,group::r--,other:5:---",
            "nobody::rw-",
            "user",
            "user::rw-,user:5:r--:abc,group::r--,mask::r--,other::---",
            "user::rw-,user:99999999999:r--,group::r--,mask::r--,other::---",
        ] {
            assert!(acl_from_text(text.as_bytes(), &nobody).is_err(), "{text}");
        }
        let good = parsed("user::rw-,user:5:r--,group::r--,mask::r--,other::---").binary;
        for cut in 0..good.len() {
            assert_eq!(acl_to_text(&good[..cut]), None, "{cut}");
        }
        let mut wrong = good.clone();
        wrong[0] = 3;
        assert_eq!(acl_to_text(&wrong), None);
        let mut wrong = good;
        wrong[4] = 0x40;
        assert_eq!(acl_to_text(&wrong), None);
    }
}
