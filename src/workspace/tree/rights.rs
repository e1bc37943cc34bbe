//! What a restore may give to what it writes.

use crate::store::EntryOwner;

use super::names::Names;
use super::stat::Stat;

/// What a restore may give to what it writes. The default gives no more than the caller could have made by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreRights {
    /// Who owns what is written. Without a rule root keeps the owners of a directory's entries and everybody else owns what they
    /// write; an archive names the owners that were saved.
    pub owner: Option<OwnerRule>,
    /// Whether files get their setuid and setgid bits. Directories always do: there setgid only says whose group new entries get.
    pub special_bits: bool,
    /// Whether devices are made.
    pub devices: bool,
    /// Whether attributes that give rights are set: `security.*` (capabilities among them) and `trusted.*`.
    pub privileged_xattrs: bool,
}

impl RestoreRights {
    /// Returns the rule for the entries of a directory. Asks the kernel who asks where there is none.
    pub(in crate::workspace) fn owner_rule(&self) -> &OwnerRule {
        match &self.owner {
            Some(rule) => rule,
            None if rustix::process::geteuid().is_root() => &OwnerRule::Keep,
            None => &OwnerRule::Current,
        }
    }
}

/// Who owns what a restore writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerRule {
    /// The numbers that were saved.
    Keep,
    /// These, whatever was saved.
    Fixed {
        /// The user's number.
        uid: u32,
        /// The group's number.
        gid: u32,
    },
    /// The numbers that were saved, moved range by range. What no range holds is not set, and counted as a shortfall.
    Map {
        /// Ranges of users; the first that holds a number counts.
        users: Vec<IdRange>,
        /// Ranges of groups; the first that holds a number counts.
        groups: Vec<IdRange>,
    },
    /// The user and group of the saved name where this host knows it, else the number that was saved.
    Names,
    /// Whoever restores.
    Current,
}

/// Numbers that are moved to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first number as it was saved.
    pub from: u32,
    /// What it becomes.
    pub to: u32,
    /// How many numbers are moved.
    pub count: u32,
}

impl IdRange {
    fn map(ranges: &[Self], id: u32) -> Option<u32> {
        ranges.iter().find_map(|range| {
            let offset = id.checked_sub(range.from).filter(|offset| *offset < range.count)?;
            range.to.checked_add(offset)
        })
    }
}

/// The owner that an entry is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewOwner {
    /// `None` leaves the user as it is.
    pub(super) uid: Option<u32>,
    /// `None` leaves the group as it is.
    pub(super) gid: Option<u32>,
    /// Whether this is what the rule asks for.
    pub(super) is_whole: bool,
}

impl OwnerRule {
    /// Says who is to own an entry. The names of this host are asked for only by [`OwnerRule::Names`]. A number that the kernel takes
    /// for none is left out.
    pub(super) fn apply<'a>(&self, owner: &EntryOwner, names: impl FnOnce() -> &'a Names) -> NewOwner {
        let NewOwner { uid, gid, is_whole } = self.asked_for(owner, names);
        let is_number = uid != Some(NO_ID) && gid != Some(NO_ID);
        let number = |id: Option<u32>| id.filter(|id| *id != NO_ID);
        NewOwner { uid: number(uid), gid: number(gid), is_whole: is_whole && is_number }
    }

    fn asked_for<'a>(&self, owner: &EntryOwner, names: impl FnOnce() -> &'a Names) -> NewOwner {
        let whole = |uid, gid| NewOwner { uid: Some(uid), gid: Some(gid), is_whole: true };
        match self {
            Self::Keep => whole(owner.uid, owner.gid),
            Self::Fixed { uid, gid } => whole(*uid, *gid),
            Self::Map { users, groups } => {
                let (uid, gid) = (IdRange::map(users, owner.uid), IdRange::map(groups, owner.gid));
                NewOwner { uid, gid, is_whole: uid.is_some() && gid.is_some() }
            }
            Self::Names => {
                let names = names();
                whole(
                    names.uid(&owner.user).unwrap_or(owner.uid),
                    names.gid(&owner.group).unwrap_or(owner.gid),
                )
            }
            Self::Current => NewOwner { uid: None, gid: None, is_whole: true },
        }
    }

    /// Returns whether an entry that is there has the owner that it is to get.
    pub(in crate::workspace) fn is_given(&self, owner: &EntryOwner, stat: &Stat, names: &Names) -> bool {
        let new = self.apply(owner, || names);
        new.uid.is_none_or(|uid| uid == stat.uid) && new.gid.is_none_or(|gid| gid == stat.gid)
    }

    /// Changes the owner that an archive names; returns whether this is what the rule asks for. A number that no range holds
    /// becomes [`NOBODY`], as the kernel shows a number that a user namespace does not know. Saved names go, except where the rule
    /// follows them: a reader would prefer them to the numbers.
    pub(in crate::workspace) fn rename(&self, owner: &mut EntryOwner, names: &Names) -> bool {
        let new = self.apply(owner, || names);
        let (uid, gid) = match self {
            Self::Keep => return true,
            Self::Current => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            Self::Fixed { .. } | Self::Map { .. } | Self::Names => {
                (new.uid.unwrap_or(NOBODY), new.gid.unwrap_or(NOBODY))
            }
        };
        let (user, group) = match self {
            Self::Names => (std::mem::take(&mut owner.user), std::mem::take(&mut owner.group)),
            _ => <_>::default(),
        };
        *owner = EntryOwner { uid, gid, user, group };
        new.is_whole
    }
}

/// What `chown` takes for "leave it as it is", so that nobody can have this number.
const NO_ID: u32 = u32::MAX;

/// The kernel's overflow number of users and groups: `/proc/sys/kernel/overflowuid`, which nobody changes.
pub(in crate::workspace) const NOBODY: u32 = 65_534;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_who_owns_and_what_it_cannot_say() {
        let names = Names::new();
        let owner = |uid, gid, user: &str| EntryOwner {
            uid,
            gid,
            user: user.as_bytes().into(),
            group: Box::default(),
        };
        let apply = |rule: &OwnerRule, owner: &EntryOwner| {
            let new = rule.apply(owner, || &names);
            (new.uid, new.gid, new.is_whole)
        };
        let saved = owner(1_005, 7, "root");
        assert_eq!(apply(&OwnerRule::Keep, &saved), (Some(1_005), Some(7), true));
        assert_eq!(apply(&OwnerRule::Fixed { uid: 1, gid: 2 }, &saved), (Some(1), Some(2), true));
        assert_eq!(apply(&OwnerRule::Names, &saved), (Some(0), Some(7), true));
        assert_eq!(apply(&OwnerRule::Current, &saved), (None, None, true));
        let range = IdRange { from: 1_000, to: 100_000, count: 10 };
        let map = OwnerRule::Map { users: vec![range], groups: vec![range] };
        assert_eq!(apply(&map, &saved), (Some(100_005), None, false));
        assert_eq!(apply(&map, &owner(1_010, 1_000, "")), (None, Some(100_000), false));

        let nobody = owner(u32::MAX, 7, "");
        assert_eq!(apply(&OwnerRule::Keep, &nobody), (None, Some(7), false));
        assert_eq!(apply(&OwnerRule::Names, &owner(1, u32::MAX, "")), (Some(1), None, false));
        assert_eq!(apply(&OwnerRule::Fixed { uid: u32::MAX, gid: 2 }, &saved), (None, Some(2), false));

        let renamed = |rule: &OwnerRule, mut owner: EntryOwner| {
            let is_whole = rule.rename(&mut owner, &names);
            (owner.uid, owner.gid, String::from_utf8(owner.user.to_vec()).unwrap(), is_whole)
        };
        assert_eq!(renamed(&OwnerRule::Keep, saved.clone()), (1_005, 7, "root".to_owned(), true));
        assert_eq!(renamed(&OwnerRule::Names, saved.clone()), (0, 7, "root".to_owned(), true));
        assert_eq!(renamed(&OwnerRule::Fixed { uid: 1, gid: 2 }, saved.clone()), (1, 2, String::new(), true));
        assert_eq!(renamed(&map, saved.clone()), (100_005, NOBODY, String::new(), false));
        let current = rustix::process::geteuid().as_raw();
        assert_eq!(renamed(&OwnerRule::Current, saved).0, current);
    }
}
