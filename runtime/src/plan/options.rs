//! Mount options: one table from words to what they do, and what a list of them adds up to.
//!
//! A later option overrides an earlier one that it negates. What is not in the table is data for
//! the file system, to be judged by it.
//!
//! Access time is not three flags but one choice of three (mount_setattr(2): `MOUNT_ATTR__ATIME`
//! is a field, not a bit), so that the last word decides, and the negations fall back to relatime,
//! the kernel's default since Linux 2.6.30.

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME,
};

use super::Propagation;

/// What one option does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Sets an attribute of the mount.
    Set(u64),
    /// Clears it.
    Clear(u64),
    /// `ro`, `rw`: an attribute of the mount and a flag of the superblock.
    Readonly(bool),
    /// Chooses how access times are kept.
    Atime(u64),
    /// Takes that choice back.
    NotAtime(u64),
    /// The same five for a whole tree.
    RecursiveSet(u64),
    RecursiveClear(u64),
    RecursiveAtime(u64),
    RecursiveNotAtime(u64),
    /// A flag of the superblock, as fsconfig(2) calls it.
    Super(&'static str),
    /// The flag this one negates.
    NotSuper(&'static str),
    Bind,
    RecursiveBind,
    Remount,
    Propagate(Propagation, Recursion),
    IdMap(Recursion),
    TmpCopyUp,
    /// Nothing to be done for it.
    ///
    /// `iversion`: since Linux 6.1 those file systems that can do it always do, and fsconfig(2)
    /// has no word for it. `silent`: only about what the kernel logs. `defaults`: as it says.
    Nothing,
}

/// Whether something is meant for the mounts below as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recursion {
    No,
    Yes,
}

use Effect::{
    Atime, Bind, Clear, IdMap, NotAtime, NotSuper, Nothing, Propagate, Readonly, RecursiveAtime,
    RecursiveBind, RecursiveClear, RecursiveNotAtime, RecursiveSet, Remount, Set, Super, TmpCopyUp,
};

/// Every option that is not data, sorted by its word.
#[rustfmt::skip]
const TABLE: &[(&str, Effect)] = &[
    ("async", NotSuper("sync")),
    ("atime", NotAtime(MOUNT_ATTR_NOATIME)),
    ("bind", Bind),
    ("defaults", Nothing),
    ("dev", Clear(MOUNT_ATTR_NODEV)),
    ("diratime", Clear(MOUNT_ATTR_NODIRATIME)),
    ("dirsync", Super("dirsync")),
    ("exec", Clear(MOUNT_ATTR_NOEXEC)),
    ("idmap", IdMap(Recursion::No)),
    ("iversion", Nothing),
    ("lazytime", Super("lazytime")),
    ("loud", Nothing),
    ("mand", Super("mand")),
    ("noatime", Atime(MOUNT_ATTR_NOATIME)),
    ("nodev", Set(MOUNT_ATTR_NODEV)),
    ("nodiratime", Set(MOUNT_ATTR_NODIRATIME)),
    ("noexec", Set(MOUNT_ATTR_NOEXEC)),
    ("noiversion", Nothing),
    ("nolazytime", NotSuper("lazytime")),
    ("nomand", NotSuper("mand")),
    ("norelatime", NotAtime(MOUNT_ATTR_RELATIME)),
    ("nostrictatime", NotAtime(MOUNT_ATTR_STRICTATIME)),
    ("nosuid", Set(MOUNT_ATTR_NOSUID)),
    ("nosymfollow", Set(MOUNT_ATTR_NOSYMFOLLOW)),
    ("private", Propagate(Propagation::Private, Recursion::No)),
    ("ratime", RecursiveNotAtime(MOUNT_ATTR_NOATIME)),
    ("rbind", RecursiveBind),
    ("rdev", RecursiveClear(MOUNT_ATTR_NODEV)),
    ("rdiratime", RecursiveClear(MOUNT_ATTR_NODIRATIME)),
    ("relatime", Atime(MOUNT_ATTR_RELATIME)),
    ("remount", Remount),
    ("rexec", RecursiveClear(MOUNT_ATTR_NOEXEC)),
    ("ridmap", IdMap(Recursion::Yes)),
    ("rnoatime", RecursiveAtime(MOUNT_ATTR_NOATIME)),
    ("rnodev", RecursiveSet(MOUNT_ATTR_NODEV)),
    ("rnodiratime", RecursiveSet(MOUNT_ATTR_NODIRATIME)),
    ("rnoexec", RecursiveSet(MOUNT_ATTR_NOEXEC)),
    ("rnorelatime", RecursiveNotAtime(MOUNT_ATTR_RELATIME)),
    ("rnostrictatime", RecursiveNotAtime(MOUNT_ATTR_STRICTATIME)),
    ("rnosuid", RecursiveSet(MOUNT_ATTR_NOSUID)),
    ("rnosymfollow", RecursiveSet(MOUNT_ATTR_NOSYMFOLLOW)),
    ("ro", Readonly(true)),
    ("rprivate", Propagate(Propagation::Private, Recursion::Yes)),
    ("rrelatime", RecursiveAtime(MOUNT_ATTR_RELATIME)),
    ("rro", RecursiveSet(MOUNT_ATTR_RDONLY)),
    ("rrw", RecursiveClear(MOUNT_ATTR_RDONLY)),
    ("rshared", Propagate(Propagation::Shared, Recursion::Yes)),
    ("rslave", Propagate(Propagation::Slave, Recursion::Yes)),
    ("rstrictatime", RecursiveAtime(MOUNT_ATTR_STRICTATIME)),
    ("rsuid", RecursiveClear(MOUNT_ATTR_NOSUID)),
    ("rsymfollow", RecursiveClear(MOUNT_ATTR_NOSYMFOLLOW)),
    ("runbindable", Propagate(Propagation::Unbindable, Recursion::Yes)),
    ("rw", Readonly(false)),
    ("shared", Propagate(Propagation::Shared, Recursion::No)),
    ("silent", Nothing),
    ("slave", Propagate(Propagation::Slave, Recursion::No)),
    ("strictatime", Atime(MOUNT_ATTR_STRICTATIME)),
    ("suid", Clear(MOUNT_ATTR_NOSUID)),
    ("symfollow", Clear(MOUNT_ATTR_NOSYMFOLLOW)),
    ("sync", Super("sync")),
    ("tmpcopyup", TmpCopyUp),
    ("unbindable", Propagate(Propagation::Unbindable, Recursion::No)),
];

/// The options that are understood, for the features document.
pub(crate) fn known() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(option, _)| *option)
}

/// Looks up a propagation type by its option.
pub(super) fn propagation(option: &str) -> Option<(Propagation, Recursion)> {
    match lookup(option) {
        Some(Propagate(propagation, recursion)) => Some((propagation, recursion)),
        _ => None,
    }
}

fn lookup(option: &str) -> Option<Effect> {
    let found = TABLE.binary_search_by_key(&option, |(word, _)| word).ok()?;
    TABLE.get(found).map(|(_, effect)| *effect)
}

/// Attributes to set, attributes to clear, and the choice of access times.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    set: u64,
    clear: u64,
    atime: Option<u64>,
}

impl Attributes {
    fn set(&mut self, attribute: u64) {
        self.set |= attribute;
        self.clear &= !attribute;
    }

    fn clear(&mut self, attribute: u64) {
        self.clear |= attribute;
        self.set &= !attribute;
    }

    fn not_atime(&mut self, choice: u64) {
        if self.atime.is_none_or(|chosen| chosen == choice) {
            self.atime = Some(MOUNT_ATTR_RELATIME);
        }
    }

    /// `attr_set` and `attr_clr` of mount_setattr(2). It takes a choice of access times only
    /// together with `MOUNT_ATTR__ATIME` in `attr_clr`.
    pub(super) fn bits(self) -> (u64, u64) {
        match self.atime {
            Some(choice) => (self.set | choice, self.clear | MOUNT_ATTR__ATIME),
            None => (self.set, self.clear),
        }
    }

    pub(super) fn has_atime(self) -> bool {
        self.atime.is_some()
    }
}

/// What is mounted, as far as the options say.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// A file system of the type the mount names.
    #[default]
    New,
    Bind(Recursion),
    Remount,
}

/// What a list of options adds up to.
#[derive(Debug, Default)]
pub(super) struct Options<'a> {
    pub(super) action: Action,
    pub(super) attributes: Attributes,
    pub(super) recursive: Attributes,
    /// Some flag was named that a mount or its superblock has.
    pub(super) any_flag: bool,
    /// `ro` is in force.
    pub(super) readonly: bool,
    /// Flags of the superblock, without `ro`.
    pub(super) superblock: Vec<&'static str>,
    pub(super) propagation: Option<(Propagation, Recursion)>,
    pub(super) idmap: Option<Recursion>,
    pub(super) tmpcopyup: bool,
    /// What is not in the table, with its place in the list.
    pub(super) data: Vec<(usize, &'a str)>,
}

impl<'a> Options<'a> {
    pub(super) fn parse(words: &'a [String]) -> Options<'a> {
        let mut options = Options::default();
        let (mut bind, mut remount) = (None, false);
        for (index, word) in words.iter().enumerate() {
            match lookup(word) {
                Some(Bind) => bind = bind.or(Some(Recursion::No)),
                Some(RecursiveBind) => bind = Some(Recursion::Yes),
                Some(Remount) => remount = true,
                Some(effect) => options.take(effect),
                // An empty word is what is left of a list with a comma too many.
                None if word.is_empty() => {}
                None => options.data.push((index, word)),
            }
        }
        options.action = match (remount, bind) {
            (true, _) => Action::Remount,
            (false, Some(recursion)) => Action::Bind(recursion),
            (false, None) => Action::New,
        };
        options
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Set(attribute) => self.attributes.set(attribute),
            Clear(attribute) => self.attributes.clear(attribute),
            Atime(choice) => self.attributes.atime = Some(choice),
            NotAtime(choice) => self.attributes.not_atime(choice),
            Readonly(readonly) => self.readonly(readonly),
            RecursiveSet(attribute) => self.recursive.set(attribute),
            RecursiveClear(attribute) => self.recursive.clear(attribute),
            RecursiveAtime(choice) => self.recursive.atime = Some(choice),
            RecursiveNotAtime(choice) => self.recursive.not_atime(choice),
            Super(flag) => {
                self.superblock.retain(|present| *present != flag);
                self.superblock.push(flag);
            }
            NotSuper(flag) => self.superblock.retain(|present| *present != flag),
            Propagate(propagation, recursion) => self.propagation = Some((propagation, recursion)),
            IdMap(recursion) => self.idmap = Some(recursion),
            TmpCopyUp => self.tmpcopyup = true,
            Bind | RecursiveBind | Remount | Nothing => {}
        }
        self.any_flag |= matches!(
            effect,
            Set(_) | Clear(_) | Atime(_) | NotAtime(_) | Readonly(_) | Super(_) | NotSuper(_)
        );
    }

    fn readonly(&mut self, readonly: bool) {
        self.readonly = readonly;
        if readonly {
            self.attributes.set(MOUNT_ATTR_RDONLY);
        } else {
            self.attributes.clear(MOUNT_ATTR_RDONLY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_ATIME: u64 = MOUNT_ATTR__ATIME;

    fn words(list: &str) -> Vec<String> {
        list.split(' ').map(str::to_owned).collect()
    }

    /// (set, clear, recursively set, recursively cleared)
    fn bits(list: &str) -> (u64, u64, u64, u64) {
        let words = words(list);
        let options = Options::parse(&words);
        let (set, clear) = options.attributes.bits();
        let (recursive_set, recursive_clear) = options.recursive.bits();
        (set, clear, recursive_set, recursive_clear)
    }

    #[test]
    fn the_table_is_sorted_and_has_no_word_twice() {
        assert!(TABLE.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    #[test]
    fn every_option_of_the_specification_is_in_the_table() {
        // runtime-spec 1.3, config.md, "Linux mount options", and runc's own tmpcopyup.
        let specified = "async atime bind defaults dev diratime dirsync exec iversion lazytime \
            loud mand noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime \
            nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime remount \
            rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro \
            rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable \
            rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap \
            ridmap rnodev";
        for option in specified.split_whitespace() {
            assert!(lookup(option).is_some(), "{option}");
        }
        assert_eq!(known().count(), specified.split_whitespace().count());
    }

    #[test]
    fn single_options_set_or_clear_their_attribute() {
        let table = [
            ("ro", 1, 0),
            ("rw", 0, 1),
            ("nosuid", 2, 0),
            ("suid", 0, 2),
            ("nodev", 4, 0),
            ("dev", 0, 4),
            ("noexec", 8, 0),
            ("exec", 0, 8),
            ("nodiratime", 0x80, 0),
            ("diratime", 0, 0x80),
            ("nosymfollow", 0x20_0000, 0),
            ("symfollow", 0, 0x20_0000),
            ("noatime", 0x10, ALL_ATIME),
            ("strictatime", 0x20, ALL_ATIME),
            ("relatime", 0, ALL_ATIME),
            ("atime", 0, ALL_ATIME),
            ("nostrictatime", 0, ALL_ATIME),
            ("defaults", 0, 0),
            ("silent", 0, 0),
            ("iversion", 0, 0),
        ];
        for (option, set, clear) in table {
            assert_eq!(bits(option), (set, clear, 0, 0), "{option}");
        }
    }

    #[test]
    fn recursive_options_do_the_same_to_the_tree() {
        let table = [
            ("rro", 1, 0),
            ("rrw", 0, 1),
            ("rnosuid", 2, 0),
            ("rsuid", 0, 2),
            ("rnodev", 4, 0),
            ("rdev", 0, 4),
            ("rnoexec", 8, 0),
            ("rexec", 0, 8),
            ("rnodiratime", 0x80, 0),
            ("rdiratime", 0, 0x80),
            ("rnosymfollow", 0x20_0000, 0),
            ("rsymfollow", 0, 0x20_0000),
            ("rnoatime", 0x10, ALL_ATIME),
            ("rstrictatime", 0x20, ALL_ATIME),
            ("rrelatime", 0, ALL_ATIME),
            ("ratime", 0, ALL_ATIME),
            ("rnorelatime", 0, ALL_ATIME),
            ("rnostrictatime", 0, ALL_ATIME),
        ];
        for (option, set, clear) in table {
            assert_eq!(bits(option), (0, 0, set, clear), "{option}");
        }
    }

    #[test]
    fn a_later_option_overrides_what_it_negates() {
        assert_eq!(bits("ro rw"), (0, 1, 0, 0));
        assert_eq!(bits("rw ro"), (1, 0, 0, 0));
        assert_eq!(bits("nosuid suid nosuid"), (2, 0, 0, 0));
        assert_eq!(bits("noatime relatime"), (0, ALL_ATIME, 0, 0));
        assert_eq!(bits("noatime strictatime"), (0x20, ALL_ATIME, 0, 0));
        assert_eq!(bits("noatime atime"), (0, ALL_ATIME, 0, 0));
        assert_eq!(bits("strictatime atime"), (0x20, ALL_ATIME, 0, 0));
        assert_eq!(bits("noatime norelatime"), (0x10, ALL_ATIME, 0, 0));
        assert_eq!(bits("rnoatime rstrictatime"), (0, 0, 0x20, ALL_ATIME));
        assert_eq!(bits("rro rrw"), (0, 0, 0, 1));
    }

    #[test]
    fn superblock_flags_are_kept_in_order_and_negated() {
        let parse = |list| {
            let words = words(list);
            Options::parse(&words).superblock
        };
        assert_eq!(parse("sync dirsync mand lazytime"), ["sync", "dirsync", "mand", "lazytime"]);
        assert_eq!(parse("sync async"), [""; 0]);
        assert_eq!(parse("mand nomand dirsync"), ["dirsync"]);
        assert_eq!(parse("lazytime nolazytime lazytime"), ["lazytime"]);
    }

    #[test]
    fn propagation_is_the_last_that_was_named() {
        let parse = |list| {
            let words = words(list);
            Options::parse(&words).propagation
        };
        for (option, propagation, recursion) in [
            ("private", Propagation::Private, Recursion::No),
            ("rprivate", Propagation::Private, Recursion::Yes),
            ("slave", Propagation::Slave, Recursion::No),
            ("rslave", Propagation::Slave, Recursion::Yes),
            ("shared", Propagation::Shared, Recursion::No),
            ("rshared", Propagation::Shared, Recursion::Yes),
            ("unbindable", Propagation::Unbindable, Recursion::No),
            ("runbindable", Propagation::Unbindable, Recursion::Yes),
        ] {
            assert_eq!(parse(option), Some((propagation, recursion)), "{option}");
        }
        assert_eq!(parse("rprivate rshared"), Some((Propagation::Shared, Recursion::Yes)));
        assert_eq!(parse("ro"), None);
    }

    #[test]
    fn what_is_not_in_the_table_is_data() {
        let words = words("ro size=64k mode=755 nr_inodes=1,2 uid=0");
        let options = Options::parse(&words);
        let data = [(1, "size=64k"), (2, "mode=755"), (3, "nr_inodes=1,2"), (4, "uid=0")];
        assert_eq!(options.data, data);
    }

    #[test]
    fn bind_and_remount_decide_what_is_mounted() {
        let parse = |list| {
            let words = words(list);
            Options::parse(&words).action
        };
        assert_eq!(parse("ro"), Action::New);
        assert_eq!(parse("bind ro"), Action::Bind(Recursion::No));
        assert_eq!(parse("rbind bind"), Action::Bind(Recursion::Yes));
        assert_eq!(parse("bind remount ro"), Action::Remount);
    }
}
