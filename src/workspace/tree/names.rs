//! The names of users and groups.

use std::collections::HashMap;
use std::fs;

/// The names in `/etc/passwd` and `/etc/group`, read once. Services that know more users are not asked.
#[derive(Debug, Default)]
pub struct Names {
    users: Table,
    groups: Table,
}

#[derive(Debug, Default)]
struct Table {
    names: HashMap<u32, Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, u32>,
}

impl Names {
    /// Reads both files; one that cannot be read has no names.
    #[must_use]
    pub fn new() -> Self {
        let read = |path| Table::parse(&fs::read(path).unwrap_or_default());
        Self { users: read("/etc/passwd"), groups: read("/etc/group") }
    }

    /// Returns a user's name; empty when not known.
    #[must_use]
    pub fn user(&self, uid: u32) -> Box<[u8]> {
        self.users.names.get(&uid).cloned().unwrap_or_default()
    }

    /// Returns a group's name; empty when not known.
    #[must_use]
    pub fn group(&self, gid: u32) -> Box<[u8]> {
        self.groups.names.get(&gid).cloned().unwrap_or_default()
    }

    /// Returns the number of the user of this name.
    #[must_use]
    pub fn uid(&self, user: &[u8]) -> Option<u32> {
        self.users.numbers.get(user).copied()
    }

    /// Returns the number of the group of this name.
    #[must_use]
    pub fn gid(&self, group: &[u8]) -> Option<u32> {
        self.groups.numbers.get(group).copied()
    }
}

impl Table {
    /// Reads lines of `name:…:number:…`; of two with the same name or number the first counts.
    fn parse(text: &[u8]) -> Self {
        let mut table = Self::default();
        for line in text.split(|b| *b == b'\n') {
            let mut fields = line.split(|b| *b == b':');
            let (Some(name), Some(number)) = (fields.next(), fields.nth(1)) else { continue };
            let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
            let Some(number) = number.filter(|_| !name.is_empty()) else { continue };
            table.names.entry(number).or_insert_with(|| name.into());
            table.numbers.entry(name.into()).or_insert(number);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_number_or_a_name_counts() {
        let table = Table::parse(b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:\nbroken\n:x:7:\nroot:x:9:\n");
        assert_eq!(table.names.get(&0).map(|n| &**n), Some(b"root".as_slice()));
        assert_eq!(table.numbers.get(b"toor".as_slice()), Some(&0));
        assert_eq!(table.numbers.get(b"root".as_slice()), Some(&0));
        assert!(!table.names.contains_key(&7));
    }

    #[test]
    fn an_unknown_number_has_no_name() {
        assert!(Names::new().user(4_000_000_000).is_empty());
    }
}
