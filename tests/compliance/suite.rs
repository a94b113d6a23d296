//! Cases, and the comparison of two launchers by them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use crate::harness::{Call, Launcher, World, make_directory, mode, world};
use crate::seen::{Facts, ORDER, Seen, look};

/// Cases of one kind.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// Once in each world, before the first case.
    pub(crate) prepare: fn(&World),
    pub(crate) cases: fn() -> Vec<Case>,
}

/// One request to both launchers.
pub(crate) struct Case {
    pub(crate) name: String,
    /// How it ends with suEXEC.
    end: String,
    /// How it ends with ours where that differs, and which difference that is.
    ours: Option<(&'static str, String)>,
    /// What else differs: identifier, fact, values.
    facts: Vec<(&'static str, [String; 3])>,
    request: Box<Request>,
}

type Request = dyn for<'w> Fn(&'w World) -> Call<'w> + Send + Sync;

/// The identifier in docs/differences.md, the fact, its values with suEXEC and with ours: only those that the other
/// one has not, joined by ` | `.
type Difference = (&'static str, &'static str, &'static str, &'static str);

/// What differs in every run, or in every refusal.
pub(crate) const ALWAYS: &[(&str, Difference)] = &[
    ("ran", ("no-new-privileges", "no_new_privs", "0", "1")),
    ("ran", ("system-calls", "seccomp", "0", "2")),
    ("ran", ("system-calls", "session_key", "ENOKEY", "EPERM")),
    ("ran", ("capability-bounds", "cap_bounding", "the caller's", "empty")),
    ("ran", ("account-variables", "$HOME", "", "/home/alice")),
    ("ran", ("account-variables", "$LANG", "", "C")),
    ("ran", ("account-variables", "$LOGNAME", "", "alice")),
    ("ran", ("account-variables", "$SHELL", "", "/bin/sh")),
    ("ran", ("account-variables", "$TMPDIR", "", "a directory of the site's own")),
    ("ran", ("account-variables", "$USER", "", "alice")),
    ("refused", ("page", "visitor", "nothing", "a page")),
];

/// A request that ends alike.
pub(crate) fn case(
    name: impl Into<String>,
    end: impl Into<String>,
    request: impl for<'w> Fn(&'w World) -> Call<'w> + Send + Sync + 'static,
) -> Case {
    Case { name: name.into(), end: end.into(), ours: None, facts: Vec::new(), request: Box::new(request) }
}

impl Case {
    /// With ours it ends otherwise.
    pub(crate) fn ours(mut self, identifier: &'static str, end: impl Into<String>) -> Self {
        self.ours = Some((identifier, end.into()));
        self
    }

    /// A fact differs.
    pub(crate) fn but(
        mut self,
        identifier: &'static str,
        fact: impl Into<String>,
        stock: impl Into<String>,
        ours: impl Into<String>,
    ) -> Self {
        self.facts.push((identifier, [fact.into(), stock.into(), ours.into()]));
        self
    }

    /// All differences that it shows.
    pub(crate) fn identifiers(self) -> Vec<String> {
        let ours = self.ours.map(|(identifier, _)| identifier);
        self.facts.iter().map(|difference| difference.0).chain(ours).map(str::to_owned).collect()
    }

    /// What is wrong with this pair, if anything.
    fn judge(&self, stock: &Seen, ours: &Seen) -> Vec<String> {
        let mut wrong = Vec::new();
        let expected = self.ours.as_ref().map_or(&self.end, |(_, end)| end);
        for (who, seen, expected) in [("suEXEC", stock, &self.end), ("ours", ours, expected)] {
            if seen.end != *expected {
                wrong.push(format!("{}: {who}: {}, not {expected}", self.name, seen.end));
            }
        }
        if self.ours.as_ref().is_some_and(|(_, end)| *end == self.end) {
            wrong.push(format!("{}: an end that does not differ is listed as a difference", self.name));
        }
        let kind = |seen: &Seen| seen.end.split(' ').next().unwrap_or_default().to_owned();
        let told = |seen: &Seen| kind(seen) != "ran" || seen.facts.contains_key("uid");
        if kind(stock) != kind(ours) || !told(stock) || !told(ours) {
            // Nothing of one kind to compare; or the program had no way to tell.
            return wrong;
        }
        let found: BTreeSet<[String; 3]> = differences(&stock.facts, &ours.facts).collect();
        let known = |(_, fact, stock, ours): &Difference| [*fact, *stock, *ours].map(str::to_owned);
        let own: BTreeSet<_> = self.facts.iter().map(|(_, difference)| difference.clone()).collect();
        let own_names: BTreeSet<&str> = self.facts.iter().map(|(_, [fact, ..])| fact.as_str()).collect();
        let always = ALWAYS.iter().filter(|(end, _)| *end == kind(stock)).map(|(_, difference)| difference);
        let always = always.filter(|difference| !own_names.contains(difference.1)).map(known);
        let expected: BTreeSet<_> = always.chain(own).collect();
        let tell = |what: &str, [fact, stock, ours]: &[String; 3]| {
            format!("{}: {what}: {fact}: suEXEC {stock:?}, ours {ours:?}", self.name)
        };
        wrong.extend(found.difference(&expected).map(|one| tell("an unlisted difference", one)));
        wrong.extend(expected.difference(&found).map(|one| tell("listed, and not seen", one)));
        wrong
    }
}

/// Facts whose values differ: name, values that only the first has, values that only the second has.
fn differences(stock: &Facts, ours: &Facts) -> impl Iterator<Item = [String; 3]> {
    let names: BTreeSet<String> = stock.keys().chain(ours.keys()).cloned().collect();
    names.into_iter().filter_map(|name| {
        let values = |facts: &Facts| facts.get(&name).cloned().unwrap_or_default();
        let (mut one, mut other) = (values(stock), values(ours));
        if name == ORDER {
            // Which variables there are is told by other facts.
            (one, other) = (without(&one, &without(&one, &other)), without(&other, &without(&other, &one)));
        }
        let (mut left, mut right) = (without(&one, &other), without(&other, &one));
        if left.is_empty() && right.is_empty() {
            // The same values, in another order.
            (left, right) = (one.clone(), other.clone());
        }
        (one != other).then(|| [name, left.join(" | "), right.join(" | ")])
    })
}

/// What is in `these` and not in `those`, each as often as it stands there.
fn without(these: &[String], those: &[String]) -> Vec<String> {
    let mut those = those.to_vec();
    let mut left = these.to_vec();
    left.retain(|value| match those.iter().position(|other| other == value) {
        Some(place) => {
            those.remove(place);
            false
        }
        None => true,
    });
    left
}

/// All cases of a group, with both launchers.
pub(crate) fn compare(group: &Group) {
    let cases = (group.cases)();
    let (stock, ours) = thread::scope(|scope| {
        let stock = scope.spawn(|| run_all(group, &cases, Launcher::Stock));
        let ours = scope.spawn(|| run_all(group, &cases, Launcher::Cellwall));
        (stock.join().unwrap(), ours.join().unwrap())
    });
    let wrong: Vec<String> = cases
        .iter()
        .zip(stock.iter().zip(&ours))
        .flat_map(|(case, (stock, ours))| case.judge(stock, ours))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", group.name, cases.len(), wrong.join("\n"));
    tell(group, &cases);
}

/// For `cargo xtask compliance`, which makes a table of it: one write, as groups run side by side.
#[allow(clippy::print_stdout, reason = "the table is what is asked for")]
fn tell(group: &Group, cases: &[Case]) {
    let reasons = crate::differences::listed();
    let different = cases.iter().filter(|case| case.ours.is_some() || !case.facts.is_empty()).count();
    let mut text = format!("\ncompliance group;{};{};{different}\n", group.name, cases.len());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for case in cases {
        let own = case.facts.iter().map(|difference| difference.0);
        let own: BTreeSet<&str> = own.chain(case.ours.as_ref().map(|(identifier, _)| *identifier)).collect();
        for identifier in own {
            *counts.entry(identifier).or_default() += 1;
        }
    }
    for (identifier, count) in counts {
        text.push_str(&format!("compliance difference;{identifier};{count};{}\n", reasons[identifier]));
    }
    for identifier in ALWAYS.iter().map(|(_, difference)| difference.0).collect::<BTreeSet<_>>() {
        text.push_str(&format!("compliance always;{identifier};{}\n", reasons[identifier]));
    }
    print!("{text}");
}

fn run_all(group: &Group, cases: &[Case], launcher: Launcher) -> Vec<Seen> {
    let all = Mutex::new(Vec::new());
    world(launcher, |world| {
        (group.prepare)(world);
        renew(world);
        let ordinary = look(world, world.call(&world.alice, "a.cgi"), None);
        for case in cases {
            renew(world);
            all.lock().unwrap().push(look(world, (case.request)(world), Some(&ordinary)));
        }
    });
    all.into_inner().unwrap()
}

/// Fresh trees: all that a case left is gone, and owners and modes are as in a new world. Homes stay, because a policy
/// is bound to them; what is in them goes.
fn renew(world: &World) {
    mode("/var/www", 0o755);
    chown("/var/www", Some(0), Some(0)).unwrap();
    for user in [&world.alice, &world.bob, &world.carol] {
        let place = format!("/var/www/{}", user.name);
        drop(fs::remove_dir_all(&place));
        make_directory(&place, 0, 0o755);
        make_directory(user.docroot(), user.id, 0o755);
        empty(&user.home());
        chown(user.home(), Some(user.id), Some(user.id)).unwrap();
        mode(user.home(), 0o755);
        make_directory(user.home().join("public_html"), user.id, 0o755);
        empty(&Path::new("/var/marks").join(&user.name));
    }
    empty(Path::new("/var/stray-marks"));
    world.probe(&world.alice, "a.cgi");
}

fn empty(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is_directory = path.symlink_metadata().unwrap().is_dir();
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }
}
