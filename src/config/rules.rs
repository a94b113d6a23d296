//! The rules that a profile, the defaults, a site file or `[userdir]` may hold: every key once, with its merging.
//!
//! Pure. Layers are laid over each other: a scalar of the upper layer replaces the lower one, lists are joined, maps
//! are joined key by key. Pieces lie beside each other: of two limits the larger one holds, for a cell of both needs it.
//! Each value keeps the place that it was written at.

use std::collections::BTreeMap;

use super::problem::{Located, Place};
use super::reader::{Entry, Reader};
use super::values::{
    Abi, Accept, Bytes, Count, Enforce, Entries, Groups, JailKind, Nice, OomScore, Percent, PoolKind, Port,
    Seccomp, Seconds, Size, Symlinks, Umask, Weight, Words, Workers,
};

/// A key with one value.
pub type One<T> = Option<Located<T>>;

/// A key with a list: where the key stands (none: nowhere), and the items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Many<T> {
    /// The uppermost layer's key.
    pub key: Option<Place>,
    /// All items of all layers, the lowest layer's first.
    pub items: Vec<Located<T>>,
}

/// A section or table with free keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<T>(pub BTreeMap<String, Keyed<T>>);

/// A value under a free key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed<T> {
    /// Where the key stands.
    pub key: Place,
    /// The value and its place.
    pub found: Located<T>,
}

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self { key: None, items: Vec::new() }
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// What the key table needs of a kind of value.
trait Rule: Sized {
    const LIST: bool = false;
    fn read(reader: &mut Reader<'_, '_>, section: &'static str, name: &'static str) -> Self;
    fn over(self, lower: Self) -> Self;
    /// As a layer over another one; limits differ.
    fn beside(self, other: Self) -> Self {
        self.over(other)
    }
    fn places(&self, key: &str, add: &mut dyn FnMut(String, Option<String>, &Place));
}

impl<T: serde::de::DeserializeOwned + Shown> Rule for One<T> {
    fn read(reader: &mut Reader<'_, '_>, section: &'static str, name: &'static str) -> Self {
        reader.one(section, name)
    }

    fn over(self, lower: Self) -> Self {
        self.or(lower)
    }

    fn beside(self, other: Self) -> Self {
        match (self, other) {
            (Some(one), Some(other)) if other.value.exceeds(&one.value) => Some(other),
            (one, other) => one.or(other),
        }
    }

    fn places(&self, key: &str, add: &mut dyn FnMut(String, Option<String>, &Place)) {
        if let Some(one) = self {
            add(key.to_owned(), None, &one.place);
        }
    }
}

impl<T: serde::de::DeserializeOwned + Shown> Rule for Many<T> {
    const LIST: bool = true;

    fn read(reader: &mut Reader<'_, '_>, section: &'static str, name: &'static str) -> Self {
        reader
            .many(section, name)
            .map_or_else(Self::default, |found| Self { key: Some(found.place), items: found.value })
    }

    fn over(mut self, mut lower: Self) -> Self {
        lower.items.append(&mut self.items);
        Self { key: self.key.or(lower.key), items: lower.items }
    }

    fn places(&self, key: &str, add: &mut dyn FnMut(String, Option<String>, &Place)) {
        for item in &self.items {
            add(key.to_owned(), Some(item.value.shown()), &item.place);
        }
    }
}

/// Where the free keys of a kind of value stand.
trait Free: serde::de::DeserializeOwned {
    fn entries<'i>(reader: &mut Reader<'i, '_>, section: &'static str, name: &'static str) -> Vec<Entry<'i>>;
}

impl Free for Words {
    fn entries<'i>(reader: &mut Reader<'i, '_>, section: &'static str, _: &'static str) -> Vec<Entry<'i>> {
        reader.take_section(section)
    }
}

impl Free for String {
    fn entries<'i>(reader: &mut Reader<'i, '_>, section: &'static str, name: &'static str) -> Vec<Entry<'i>> {
        reader.table(section, name)
    }
}

impl<T: Free> Rule for Named<T> {
    fn read(reader: &mut Reader<'_, '_>, section: &'static str, name: &'static str) -> Self {
        let entries = T::entries(reader, section, name).into_iter();
        let named = entries.filter_map(|Entry { name, key, value, .. }| {
            Some((name, Keyed { key, found: reader.value(value)? }))
        });
        Self(named.collect())
    }

    fn over(self, mut lower: Self) -> Self {
        lower.0.extend(self.0);
        lower
    }

    fn places(&self, key: &str, add: &mut dyn FnMut(String, Option<String>, &Place)) {
        for (name, one) in &self.0 {
            add(format!("{key}.{name}"), None, &one.key);
        }
    }
}

/// How an item of a list is written in the file, and which of two values is the larger.
pub trait Shown {
    /// The item's text.
    fn shown(&self) -> String;

    /// It is an amount and the larger of the two.
    fn exceeds(&self, _: &Self) -> bool {
        false
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        self.clone()
    }
}

impl Shown for Port {
    fn shown(&self) -> String {
        self.0.to_string()
    }
}

macro_rules! amounts {
    ($($kind:ty),+) => { $(impl Shown for $kind {
        fn shown(&self) -> String {
            String::new()
        }

        fn exceeds(&self, other: &Self) -> bool {
            self > other
        }
    })+ };
}
amounts!(Count, Percent, Seconds, Size, Weight);

macro_rules! never_listed {
    ($($kind:ty),+) => { $(impl Shown for $kind {
        fn shown(&self) -> String {
            String::new()
        }
    })+ };
}
never_listed!(
    bool, Abi, Accept, Bytes, Enforce, Entries, Groups, JailKind, Nice, OomScore, PoolKind, Seccomp,
    Symlinks, Umask, Words, Workers
);

macro_rules! rules {
    ($($section:literal $name:literal $field:ident: $kind:ty,)+) => {
        /// All rules of one layer, or of several merged ones.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Rules {
            $(#[doc = concat!("`", $name, "` in section \"", $section, "\".")] pub $field: $kind,)+
        }

        /// Section and name of every key.
        pub const KEYS: &[(&str, &str)] = &[$(($section, $name)),+];

        /// Does the key hold a list? None: there is no such key.
        #[must_use]
        pub fn is_list(section: &str, name: &str) -> Option<bool> {
            match (section, name) {
                $(($section, $name) => Some(<$kind as Rule>::LIST),)+
                _ => None,
            }
        }

        impl Rules {
            /// Takes every key that it knows.
            pub fn read(reader: &mut Reader<'_, '_>) -> Self {
                Self { $($field: <$kind as Rule>::read(reader, $section, $name),)+ }
            }

            /// This layer upon a lower one.
            #[must_use]
            pub fn over(self, lower: Self) -> Self {
                Self { $($field: Rule::over(self.$field, lower.$field),)+ }
            }

            /// Two of the same layer: nothing is taken away from either.
            #[must_use]
            pub fn beside(self, other: Self) -> Self {
                Self { $($field: Rule::beside(self.$field, other.$field),)+ }
            }

            /// Every written value: its key, the item for lists, and its place.
            pub fn places(&self, mut add: impl FnMut(String, Option<String>, &Place)) {
                $(Rule::places(&self.$field, &dotted($section, $name), &mut add);)+
            }
        }
    };
}

rules! {
    "" "user" user: One<String>,
    "" "group" group: One<String>,
    "" "groups" groups: Many<String>,
    "" "code_owner" code_owner: One<String>,
    "" "docroot" docroot: Many<String>,
    "" "profile" profile: Many<String>,
    "" "pieces" pieces: Many<String>,
    "" "symlinks" symlinks: One<Symlinks>,
    "" "hard_links" hard_links: One<bool>,
    "" "programs" programs: Many<String>,
    "" "interpreters" interpreters: Many<String>,
    "jail" "kind" jail_kind: One<JailKind>,
    "jail" "directory" jail_directory: One<String>,
    "jail" "private" private: Many<String>,
    "jail" "processes" jail_processes: One<bool>,
    "jail" "devices" devices: Many<String>,
    "jail" "landlock" landlock: One<Enforce>,
    "jail" "landlock_abi" landlock_abi: One<Abi>,
    "jail" "seccomp" seccomp: One<Seccomp>,
    "jail" "log_denials" log_denials: One<bool>,
    "privileges" "dangerous_set_id_mail" set_id_mail: One<bool>,
    "files" "read" read: Many<String>,
    "files" "execute" execute: Many<String>,
    "files" "write" write: Many<String>,
    "files" "sockets" sockets: Many<String>,
    "files" "at" at: Named<String>,
    "network" "connect" connect: Many<Port>,
    "network" "bind" bind: Many<Port>,
    "limits" "memory" memory: One<Size>,
    "limits" "processes" processes: One<Count>,
    "limits" "cpu" cpu: One<Seconds>,
    "limits" "cpu_weight" cpu_weight: One<Weight>,
    "limits" "cpu_max" cpu_max: One<Percent>,
    "limits" "wall" wall: One<Seconds>,
    "limits" "open_files" open_files: One<Count>,
    "limits" "file_size" file_size: One<Size>,
    "limits" "core" core: One<Size>,
    "limits" "stack" stack: One<Size>,
    "limits" "umask" umask: One<Umask>,
    "limits" "nice" nice: One<Nice>,
    "limits" "oom_score" oom_score: One<OomScore>,
    "limits" "cgroup" cgroup: One<Groups>,
    "environment" "pass" pass: Many<String>,
    "environment" "set" set: Named<String>,
    "environment" "authorization" authorization: One<bool>,
    "environment" "entries_max" entries_max: One<Entries>,
    "environment" "bytes_max" bytes_max: One<Bytes>,
    "handlers" "" handlers: Named<Words>,
    "pool" "kind" pool_kind: One<PoolKind>,
    "pool" "command" pool_command: One<Words>,
    "pool" "accept" pool_accept: One<Accept>,
    "pool" "listen" pool_listen: One<String>,
    "pool" "socket_group" pool_socket_group: One<String>,
    "pool" "clients" pool_clients: Many<String>,
    "pool" "workers" pool_workers: One<Workers>,
    "pool" "children" pool_children: One<Count>,
    "pool" "concurrency" pool_concurrency: One<Count>,
    "pool" "requests" pool_requests: One<Count>,
    "pool" "memory" pool_memory: One<Size>,
    "pool" "queue" pool_queue: One<Count>,
    "pool" "queue_timeout" pool_queue_timeout: One<Seconds>,
    "pool" "timeout" pool_timeout: One<Seconds>,
    "pool" "output_timeout" pool_output_timeout: One<Seconds>,
    "pool" "cpu_timeout" pool_cpu_timeout: One<Seconds>,
    "pool" "start_timeout" pool_start_timeout: One<Seconds>,
    "pool" "stop_timeout" pool_stop_timeout: One<Seconds>,
    "pool" "body_max" pool_body_max: One<Size>,
    "pool" "abandon" pool_abandon: One<bool>,
    "pool" "status" pool_status: One<String>,
    "pool" "ping" pool_ping: One<String>,
    "pool" "ping_answer" pool_ping_answer: One<String>,
    "pool" "access_log" pool_access_log: One<String>,
    "pool" "access_format" pool_access_format: One<String>,
    "pool" "slow_log" pool_slow_log: One<String>,
    "pool" "slow" pool_slow: One<Seconds>,
    "pool" "error_log" pool_error_log: One<String>,
    "pool" "errors_to_server" pool_errors_to_server: One<bool>,
}

/// The sections of [`Rules`].
pub const SECTIONS: &[&str] =
    &["jail", "privileges", "files", "network", "limits", "environment", "handlers", "pool"];

/// `section.name`, as it is written in messages.
#[must_use]
pub fn dotted(section: &str, name: &str) -> String {
    match (section, name) {
        ("", name) => name.to_owned(),
        (section, "") => section.to_owned(),
        (section, name) => format!("{section}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::problem::{Document, Problems};
    use super::*;

    fn read(text: &str) -> Rules {
        let document = Document::new(Path::new("/x.toml"), text.to_owned());
        let problems = Problems::default();
        let mut reader = Reader::open(&document, SECTIONS, &problems);
        let rules = Rules::read(&mut reader);
        reader.finish();
        assert_eq!(problems.into_sorted(), vec![]);
        rules
    }

    #[test]
    fn lists_are_joined_and_the_upper_scalar_wins_with_its_place() {
        let lower = read("[files]\nread = [\"/a\"]\n[limits]\nmemory = \"1M\"\ncpu = 5\n");
        let upper = read("[limits]\n\nmemory = \"2M\"\n[files]\nread = \"/b\"\n");
        let merged = upper.over(lower);
        let texts: Vec<&str> = merged.read.items.iter().map(|item| item.value.as_str()).collect();
        assert_eq!(texts, ["/a", "/b"]);
        let memory = merged.memory.expect("written");
        assert_eq!((memory.value, memory.place.line()), (Size(2 << 20), 3));
        assert_eq!(merged.cpu.map(|cpu| cpu.value), Some(Seconds(5)));
    }

    #[test]
    fn maps_are_joined_key_by_key() {
        let lower = read("[environment]\nset = { TZ = \"UTC\", A = \"1\" }\n[handlers]\n\".php\" = \"/a\"\n");
        let upper =
            read("[environment.set]\nTZ = \"Europe/Athens\"\n[handlers]\n\".pl\" = [\"/b\", \"-T\"]\n");
        let merged = upper.over(lower);
        let set: Vec<(&str, &str)> =
            merged.set.0.iter().map(|(name, one)| (name.as_str(), one.found.value.as_str())).collect();
        assert_eq!(set, [("A", "1"), ("TZ", "Europe/Athens")]);
        assert_eq!(merged.handlers.0.keys().collect::<Vec<_>>(), [".php", ".pl"]);
    }

    #[test]
    fn an_empty_list_is_written_and_an_absent_one_is_not() {
        assert!(read("[network]\nconnect = []\n").connect.key.is_some());
        assert!(read("").connect.key.is_none());
    }

    #[test]
    fn every_value_tells_where_it_was_written() {
        let mut all = Vec::new();
        read("docroot = [\"/a\",\n  \"/b\"]\n[limits]\ncpu = 1\n").places(|key, item, place| {
            all.push((key, item, place.line()));
        });
        assert_eq!(
            all,
            [
                ("docroot".to_owned(), Some("/a".to_owned()), 1),
                ("docroot".to_owned(), Some("/b".to_owned()), 2),
                ("limits.cpu".to_owned(), None, 4)
            ]
        );
    }
}
