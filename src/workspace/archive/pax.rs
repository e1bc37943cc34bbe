//! Extension records: reading, overriding, writing. A record is `LENGTH KEY=VALUE` and a line end, the length counting all of it.

use std::collections::HashSet;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::store::FileTime;

use super::acl;

/// Written without padding by libarchive and with it by others.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// Returns the records of an extension header, in their order; the reason where one is malformed.
pub(super) fn records(mut data: &[u8]) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let wrong = || format!("record {} of the extension header has no right length", records.len() + 1);
        let space = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length = data.get(..space).and_then(decimal).ok_or_else(wrong)?;
        let length = usize::try_from(length).map_err(|_reason| wrong())?;
        let record = data.get(..length).ok_or_else(wrong)?;
        let body = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n")).ok_or_else(wrong)?;
        let equals = memchr::memchr(b'=', body).filter(|at| *at > 0).ok_or_else(|| {
            format!("record {} of the extension header has no key and value", records.len() + 1)
        })?;
        let (key, value) = body.split_at(equals);
        records.push(Record { key: key.to_vec(), value: value.get(1..).unwrap_or_default().to_vec() });
        data = data.get(length..).unwrap_or_default();
    }
    Ok(records)
}

/// Returns the number that `text` is: digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What records say about one entry; what nothing is said about is `None` and the header's.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) user: Option<Vec<u8>>,
    pub(super) group: Option<Vec<u8>>,
    pub(super) mtime: Option<FileTime>,
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) acl_access: Option<Vec<u8>>,
    pub(super) acl_default: Option<Vec<u8>>,
    /// Names as they stand in the key, undecoded.
    xattrs: Vec<Record>,
    /// Names and values, decoded.
    coded_xattrs: Vec<Record>,
    /// The `GNU.sparse.` records, in their order, keys without that.
    pub(super) sparse: Vec<Record>,
}

impl Overrides {
    /// Takes in a record; later ones win over earlier ones, and an empty one takes back. Returns the reason where its value is malformed.
    pub(super) fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let wrong = || format!("`{}` is no value for `{}`", value.escape_ascii(), key.escape_ascii());
        let number = || if value.is_empty() { Ok(None) } else { decimal(value).map(Some).ok_or_else(wrong) };
        let text = || {
            let fine = !value.contains(&0);
            if fine { Ok((!value.is_empty()).then(|| value.to_vec())) } else { Err(wrong()) }
        };
        match key {
            b"path" => self.path = text()?,
            b"linkpath" => self.link = text()?,
            // Taking a size back would leave it to the reader which one holds.
            b"size" => self.size = Some(number()?.ok_or_else(wrong)?),
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"uname" => self.user = text()?,
            b"gname" => self.group = text()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value).ok_or_else(wrong)?),
            b"SCHILY.devmajor" => self.major = number()?,
            b"SCHILY.devminor" => self.minor = number()?,
            b"SCHILY.acl.access" => self.acl_access = Some(value.to_vec()).filter(|acl| !acl.is_empty()),
            b"SCHILY.acl.default" => self.acl_default = Some(value.to_vec()).filter(|acl| !acl.is_empty()),
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push(Record { key: name.to_vec(), value: value.to_vec() });
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = percent_decode(name).ok_or_else(wrong)?;
                    let value = BASE64.decode(value).map_err(|_reason| wrong())?;
                    self.coded_xattrs.push(Record { key: name, value });
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.push(Record { key: name.to_vec(), value: value.to_vec() });
                }
            }
        }
        Ok(())
    }

    /// Returns the extended attributes, sorted, each name once; the reason where a name cannot be one.
    pub(super) fn take_xattrs(&mut self) -> Result<Vec<Record>, String> {
        // What comes later in `all` wins over what comes earlier.
        let mut all = Vec::new();
        // libarchive writes both forms and does not escape `=` in the plain one: `name=with` and `value` is read there as
        // `name` and `with=value`. Such a record says nothing that its coded twin does not.
        let joined = |record: &Record| [&record.key[..], b"=", &record.value].concat();
        let explained: HashSet<Vec<u8>> = self.coded_xattrs.iter().map(joined).collect();
        for record in std::mem::take(&mut self.xattrs) {
            if !explained.contains(&joined(&record)) {
                all.push(Record { key: unescape_name(&record.key), value: record.value });
            }
        }
        all.append(&mut self.coded_xattrs);
        all.reverse();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all.dedup_by(|older, newer| older.key == newer.key);
        match all.iter().find(|record| record.key.is_empty() || record.key.contains(&0)) {
            Some(record) => Err(format!("`{}` is no name of an attribute", record.key.escape_ascii())),
            None => Ok(all),
        }
    }
}

/// Returns the time that `text` is: seconds, with a sign and a fraction where needed. Digits after the ninth round down.
fn time(text: &[u8]) -> Option<FileTime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix(b"+").unwrap_or(text)),
    };
    let (whole, fraction) = match memchr::memchr(b'.', text) {
        Some(dot) => (text.get(..dot)?, text.get(dot + 1..)?),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) || whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { i128::from(decimal(whole)?) };
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.fold(0_i128, |value, digit| value * 10 + i128::from(digit - b'0'));
    let rest = fraction.get(9..).is_some_and(|rest| rest.iter().any(|digit| *digit != b'0'));
    let magnitude = whole * 1_000_000_000 + nanoseconds;
    let total = if negative { -magnitude - i128::from(rest) } else { magnitude };
    Some(FileTime {
        seconds: i64::try_from(total.div_euclid(1_000_000_000)).ok()?,
        nanoseconds: u32::try_from(total.rem_euclid(1_000_000_000)).ok()?,
    })
}

/// Undoes what [`escape_name`] did.
fn unescape_name(name: &[u8]) -> Vec<u8> {
    let mut rest = name;
    let mut plain = Vec::with_capacity(name.len());
    while let Some((byte, after)) = rest.split_first() {
        (rest, _) = match (rest.strip_prefix(b"%3D"), rest.strip_prefix(b"%25")) {
            (Some(after), _) => (after, plain.push(b'=')),
            (None, Some(after)) => (after, plain.push(b'%')),
            (None, None) => (after, plain.push(*byte)),
        };
    }
    plain
}

/// Returns an attribute's name as it stands in a key: `=` would end the key, so it is `%3D`, and what looks like that has its `%` as `%25`.
fn escape_name(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for (at, byte) in name.iter().enumerate() {
        let rest = name.get(at..).unwrap_or_default();
        match byte {
            b'=' => escaped.extend_from_slice(b"%3D"),
            b'%' if rest.starts_with(b"%3D") || rest.starts_with(b"%25") => escaped.extend_from_slice(b"%25"),
            byte => escaped.push(*byte),
        }
    }
    escaped
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut rest = text;
    let mut plain = Vec::with_capacity(text.len());
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'%' {
            let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
            plain.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
            rest = after.get(2..)?;
        } else {
            plain.push(*byte);
            rest = after;
        }
    }
    Some(plain)
}

/// How the ACLs of entries stand in an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AclForm {
    /// As text with numbers for names where that says it all, which GNU tar and bsdtar read (`SCHILY.acl.…`).
    #[default]
    Text,
    /// As the attributes that the kernel keeps them in (`SCHILY.xattr.system.posix_acl_…`), which a Docker Engine reads.
    Attribute,
}

/// Records to be written, in the order in which they were put in.
#[derive(Debug)]
pub(super) struct RecordWriter {
    acls: AclForm,
    bytes: Vec<u8>,
    text_is_utf8: bool,
}

impl RecordWriter {
    /// Starts with nothing.
    pub(super) fn new(acls: AclForm) -> Self {
        Self { acls, bytes: Vec::new(), text_is_utf8: true }
    }

    /// Adds a record of bytes that are no text.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        append_record(&mut self.bytes, key, value);
    }

    /// Adds a record of a name, which should be UTF-8.
    pub(super) fn put_text(&mut self, key: &str, value: &[u8]) {
        self.text_is_utf8 &= std::str::from_utf8(value).is_ok();
        self.put(key.as_bytes(), value);
    }

    /// Adds a time.
    pub(super) fn put_time(&mut self, key: &str, time: FileTime) {
        self.put(key.as_bytes(), time_text(time).as_bytes());
    }

    /// Adds an extended attribute: an ACL in the form asked for.
    pub(super) fn put_xattr(&mut self, name: &[u8], value: &[u8]) {
        let key = match name {
            acl::ACCESS => "SCHILY.acl.access",
            acl::DEFAULT => "SCHILY.acl.default",
            _ => "",
        };
        let says_it_all = |text: &String| {
            acl::acl_from_text(text.as_bytes(), &|_| None)
                .is_ok_and(|read| read.binary == value && !(read.minimal && name == acl::ACCESS))
        };
        let as_text = self.acls == AclForm::Text && !key.is_empty();
        match acl::acl_to_text(value).filter(|text| as_text && says_it_all(text)) {
            Some(text) => self.put(key.as_bytes(), text.as_bytes()),
            None => self.put(&[b"SCHILY.xattr.", &escape_name(name)[..]].concat(), value),
        }
    }

    /// Returns all records; empty where none is needed.
    pub(super) fn finish(self) -> Vec<u8> {
        if self.text_is_utf8 {
            return self.bytes;
        }
        // Without it, a reader may refuse or translate names that are not UTF-8.
        let mut bytes = Vec::new();
        append_record(&mut bytes, b"hdrcharset", b"BINARY");
        bytes.extend_from_slice(&self.bytes);
        bytes
    }
}

fn append_record(bytes: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    // The length counts its own digits.
    let digits = (1..).find(|digits| (body + digits).to_string().len() == *digits).unwrap_or(1);
    bytes.extend_from_slice(format!("{} ", body + digits).as_bytes());
    bytes.extend_from_slice(key);
    bytes.push(b'=');
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
}

fn time_text(time: FileTime) -> String {
    let total = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let sign = if total < 0 { "-" } else { "" };
    let (whole, fraction) = (total.abs() / 1_000_000_000, total.abs() % 1_000_000_000);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let fraction = format!("{fraction:09}");
    format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_long_as_they_say_and_no_other_way() {
        let read = records(b"12 path=a\nb\n11 key=val\n7 a=\n=\n").unwrap();
        let shown: Vec<_> = read.iter().map(|r| (&r.key[..], &r.value[..])).collect();
        assert_eq!(shown, [(&b"path"[..], &b"a\nb"[..]), (b"key", b"val"), (b"a", b"\n=")]);
        for wrong in [
            &b"11 path=a\nb\n"[..],
            b"13 path=a\nb\n",
            b"0 a=b\n",
            b"5 a=b\n",
            b"6 a=b",
            b"-6 a=b\n",
            b"+6 a=b\n",
            b" 6 a=b\n",
            b"6\ta=b\n",
            b"a=b\n",
            b"6 a=b\n\0\0",
            b"5 ab\n",
            b"5 =b\n",
            b"99999999999999999999 a=b\n",
            b"18446744073709551615 a=b\n",
            b"6 a=b\n ",
        ] {
            assert!(records(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn a_written_record_is_read_back_at_every_length() {
        for length in (0..120).chain(980..1010).chain(9980..10010) {
            let value = vec![b'x'; length];
            let mut bytes = Vec::new();
            append_record(&mut bytes, b"k", &value);
            assert_eq!(records(&bytes).unwrap(), [Record { key: b"k".to_vec(), value }]);
        }
    }

    #[test]
    fn times_keep_their_nanoseconds_on_both_sides_of_1970() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("-1.5", -2, 500_000_000),
            ("-0.000000001", -1, 999_999_999),
            ("-3", -3, 0),
            ("1700000000.123456789", 1_700_000_000, 123_456_789),
            ("9223372036854775807.999999999", i64::MAX, 999_999_999),
            ("-9223372036854775808", i64::MIN, 0),
        ] {
            let value = FileTime { seconds, nanoseconds };
            assert_eq!(time(text.as_bytes()), Some(value), "{text}");
            assert_eq!(time_text(value), text);
        }
        assert_eq!(time(b"1.1234567899"), time(b"1.123456789"));
        assert_eq!(time(b"-1.1234567891"), time(b"-1.123456790"));
        for wrong in ["", ".", "-", "1e3", "1.5.5", "1,5", "--1", " 1", "9223372036854775808"] {
            assert_eq!(time(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn attribute_names_survive_the_key() {
        for name in ["user.a", "user.a=b", "user.50%", "user.%3D", "user.%25", "user.=%3D%", "user.%253D"] {
            let escaped = escape_name(name.as_bytes());
            assert!(!escaped.contains(&b'='), "{name}");
            assert_eq!(unescape_name(&escaped), name.as_bytes(), "{name}");
        }
    }

    #[test]
    fn both_forms_of_an_attribute_make_one() {
        let mut overrides = Overrides::default();
        for (key, value) in [
            ("SCHILY.xattr.user.a", "=b=value"),
            ("LIBARCHIVE.xattr.user.a%3D%3Db", "dmFsdWU"),
            ("SCHILY.xattr.user.c", "1"),
            ("SCHILY.xattr.user.empty", ""),
            ("LIBARCHIVE.xattr.user.c", "MQ=="),
        ] {
            overrides.apply(key.as_bytes(), value.as_bytes()).unwrap();
        }
        let found = overrides.take_xattrs().unwrap();
        let shown: Vec<_> = found.iter().map(|r| (&r.key[..], &r.value[..])).collect();
        assert_eq!(shown, [(&b"user.a==b"[..], &b"value"[..]), (b"user.c", b"1"), (b"user.empty", b"")]);
    }
}
