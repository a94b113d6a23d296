//! What belongs in a chroot: the paths that its sites' rules and pieces name on the host, the libraries and interpreters
//! of the programs among them, devices, accounts, and places to write.
//!
//! Each path is the same inside as outside. Links are made again, and what they lead to is taken too. What others than
//! root may change, and what not everybody may read, is left out and named. Reads the host; writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::accounts::Account;
use crate::config::ground::{Found, Ground, Kind};
use crate::config::jail::{accounts, alternatives, root_links};
use crate::config::problem::{Document, Located, Place, Problems};
use crate::config::profiles::{self, Presets};
use crate::config::provenance::Traced;
use crate::config::rules::Rules;
use crate::refusal::Pasted;

use super::super::policy;
use super::loader::{Loader, Needs, needs};
use super::manifest::plain;
use super::{Copied, Selection, Thing};

/// What belongs in a chroot.
#[derive(Debug, Default)]
pub struct Plan {
    /// By the path inside.
    pub things: BTreeMap<PathBuf, Thing>,
    /// What the administrator should know.
    pub notes: Vec<String>,
}

/// By the host as it is now.
///
/// # Errors
/// A site or piece that is not there.
pub fn plan(selection: &Selection, directory: &Path) -> Result<Plan, String> {
    let mut sites = Vec::new();
    for name in &selection.sites {
        let missing = || {
            let unread = || format!("the file of site {name} cannot be read\n  help: run: cellwall check");
            policy::unknown(name).unwrap_or_else(unread)
        };
        sites.push(Traced::of(name).ok_or_else(missing)?);
    }
    let mut work = Gathering {
        away: directory,
        leave: BTreeSet::new(),
        uid_min: sites.first().map_or(1000, |site| site.uid_min),
        ground: Ground::default(),
        loader: Loader::of(Path::new("/")),
        queue: Vec::new(),
        plan: Plan::default(),
    };
    let own = own_pieces(&selection.pieces)?;
    let named = own.pieces.items.iter().map(|piece| &piece.value);
    let mut pieces: BTreeSet<String> = named.chain(&selection.pieces).cloned().collect();
    pieces.extend(sites.iter().flat_map(|site| site.pieces.iter().cloned()));
    work.always(&sites);
    let copied = work.presets(&pieces, &sites);
    work.rules(&own, None);
    sites.iter().for_each(|site| work.rules(&site.rules, Some(site)));
    sites.iter().for_each(|site| work.written(site));
    copied.iter().for_each(|item| work.item(item));
    for program in &selection.programs {
        if !work.wish(program, true) {
            return Err(format!("{} is not on this host", program.display()));
        }
    }
    work.follow();
    Ok(work.plan)
}

/// The rules of pieces that no site names.
fn own_pieces(names: &BTreeSet<String>) -> Result<Rules, String> {
    let document = Document::new(Path::new("--piece"), String::new());
    let located = |name: &String| Located { value: name.clone(), place: Place::new(&document, 0..0) };
    let names: Vec<Located<String>> = names.iter().map(located).collect();
    let problems = Problems::default();
    let rules = Presets::default().pieces(&names, &problems);
    match problems.into_sorted().first() {
        Some(problem) => {
            let help = problem.help.as_deref().unwrap_or("policy/README.md lists them");
            Err(format!("{}\n  help: {help}", problem.message))
        }
        None => Ok(rules),
    }
}

struct Gathering<'a> {
    /// The chroot itself.
    away: &'a Path,
    /// Trees that are not copied whole.
    leave: BTreeSet<PathBuf>,
    uid_min: u32,
    ground: Ground,
    loader: Loader,
    /// Paths that are on the host, and whether somebody named the very file.
    queue: Vec<(PathBuf, bool)>,
    plan: Plan,
}

impl Gathering<'_> {
    /// Root's links, and the accounts of the sites alone.
    fn always(&mut self, sites: &[Traced]) {
        for (place, text) in root_links() {
            self.add(&place, Thing::Link(text));
        }
        let known = sites.iter().filter_map(|site| site.identity.as_ref());
        let known: Vec<(&Account, &(u32, String))> = known.map(|(account, group)| (account, group)).collect();
        let (passwd, groups) = accounts(&known);
        self.add(Path::new("/etc/passwd"), Thing::Text(passwd));
        self.add(Path::new("/etc/group"), Thing::Text(groups));
        if sites.is_empty() {
            self.places(&Rules::default(), None);
            self.devices(&[]);
        }
    }

    /// What presets say about chroots: the trees to leave are known first; what to copy besides is returned.
    fn presets(&mut self, pieces: &BTreeSet<String>, sites: &[Traced]) -> Vec<Located<String>> {
        let problems = Problems::default();
        let profiles: BTreeSet<&str> = sites
            .iter()
            .flat_map(|site| &site.rules.profile.items)
            .map(|profile| profile.value.as_str())
            .collect();
        let pieces = pieces.iter().map(|name| (profiles::Kind::Piece, name.as_str()));
        let base = [(profiles::Kind::Piece, "base")];
        let mut copied = Vec::new();
        for (kind, name) in pieces.chain(profiles.into_iter().map(|name| (profiles::Kind::Profile, name))) {
            if let Some(preset) = profiles::load(kind, name, &problems) {
                copied.extend(preset.copied);
                self.leave.extend(preset.left.iter().map(|item| PathBuf::from(&item.value)));
            }
        }
        // No site's own list makes a chroot of all that the host has.
        let base = base.iter().filter_map(|(kind, name)| profiles::load(*kind, name, &problems));
        self.leave.extend(base.flat_map(|preset| preset.left).map(|item| PathBuf::from(item.value)));
        copied
    }

    /// The lists of one set of rules.
    fn rules(&mut self, rules: &Rules, site: Option<&Traced>) {
        for item in rules.read.items.iter().chain(&rules.execute.items) {
            // What a placeholder or a docroot stands for is the site's own: it is deployed, not copied.
            if !item.value.contains('{') && !self.below_docroot(&item.value, site) {
                self.item(item);
            }
        }
        let command = rules.pool_command.iter().filter_map(|command| command.value.0.first());
        let handlers = rules.handlers.0.values().filter_map(|handler| handler.found.value.0.first());
        let listed = rules.programs.items.iter().chain(&rules.interpreters.items).map(|item| &item.value);
        for program in handlers.chain(command).chain(listed) {
            let path = Path::new(program);
            if !self.below_docroot(program, site) && !self.wish(path, true) {
                self.note(format!("{program} is not on this host"));
            }
        }
        for (target, source) in &rules.at.0 {
            self.at(Path::new(target), &source.found);
        }
        for item in &rules.sockets.items {
            self.socket(item);
        }
    }

    /// The site's own: deployed, not copied.
    fn below_docroot(&self, path: &str, site: Option<&Traced>) -> bool {
        let docroots = site.into_iter().flat_map(|site| &site.rules.docroot.items);
        docroots.into_iter().any(|docroot| {
            let inside =
                Path::new(&docroot.value).strip_prefix(self.away).map(|path| Path::new("/").join(path));
            Path::new(path).starts_with(&docroot.value)
                || inside.is_ok_and(|inside| Path::new(path).starts_with(inside))
        })
    }

    /// What a site writes to, and its devices.
    fn written(&mut self, site: &Traced) {
        let rules = &site.rules;
        let Some((account, (gid, _))) = &site.identity else { return };
        self.places(rules, Some((account.uid, *gid)));
        let devices: Vec<&str> = rules.devices.items.iter().map(|item| item.value.as_str()).collect();
        if rules.devices.key.is_none() {
            self.devices(&[]);
        } else {
            self.devices(&devices);
        }
        let code =
            rules.code_owner.as_ref().and_then(|owner| nix::unistd::User::from_name(&owner.value).ok()?);
        let code = code.map_or(account.uid, |user| user.uid.as_raw());
        for docroot in rules.docroot.items.iter().flat_map(|item| site.filled(&item.value)) {
            match Path::new(&docroot).strip_prefix(self.away) {
                Ok(inside) => {
                    self.add(&Path::new("/").join(inside), Thing::Own { uid: code, gid: *gid, mode: 0o755 })
                }
                Err(_) => self.note(format!(
                    "docroot {docroot} is not below {}, where a chroot's sites lie",
                    self.away.display()
                )),
            }
        }
        for item in &rules.write.items {
            let (places, _) = alternatives(item);
            let [place] = places.as_slice() else { continue };
            for path in site.filled(&place.value) {
                let path = Path::new(&path);
                if plain(path) && !path.to_string_lossy().contains('*') && !path.is_file() {
                    self.add(path, Thing::Own { uid: account.uid, gid: *gid, mode: 0o750 });
                }
            }
        }
        if rules.jail_processes.as_ref().is_some_and(|one| one.value) {
            let proc = self.away.join("proc");
            self.add(Path::new("/proc"), Thing::Directory);
            self.note(format!(
                "jail.processes: what a chroot shows in /proc is the whole host\n  help: without it, or: mount -t proc \
                 -o hidepid=2 proc {}",
                Pasted(proc.as_os_str().as_encoded_bytes())
            ));
        }
    }

    /// /tmp and its like: everybody's, and each file its owner's; other private places are the site's.
    fn places(&mut self, rules: &Rules, own: Option<(u32, u32)>) {
        let listed = rules.private.items.iter().map(|item| item.value.as_str());
        let listed: Vec<&str> = listed.collect();
        let default = ["/tmp", "/var/tmp"];
        let all = if rules.private.key.is_some() { listed.as_slice() } else { default.as_slice() };
        for place in all {
            let shared = default.contains(place);
            let (uid, gid, mode) = match own {
                Some((uid, gid)) if !shared => (uid, gid, 0o700),
                _ if shared => (0, 0, 0o1777),
                _ => (0, 0, 0o1733),
            };
            self.add(Path::new(place), Thing::Own { uid, gid, mode });
        }
    }

    fn devices(&mut self, names: &[&str]) {
        let default = ["null", "zero", "full", "random", "urandom"];
        for name in if names.is_empty() { default.as_slice() } else { names } {
            let path = Path::new("/dev").join(name.strip_prefix("/dev/").unwrap_or(name));
            let facts = fs::symlink_metadata(&path).ok().filter(|facts| facts.file_type().is_char_device());
            match facts {
                Some(facts) => self.add(&path, Thing::Device(facts.rdev())),
                None => self.note(format!("{} is no device of this host", path.display())),
            }
        }
    }

    /// One item of a list, as the rules write it.
    fn item(&mut self, item: &Located<String>) {
        let (alternatives, optional) = alternatives(item);
        let mut any = false;
        for one in &alternatives {
            let path = Path::new(&one.value);
            let paths =
                if one.value.contains('*') { self.ground.expand(path) } else { vec![path.to_owned()] };
            for path in paths {
                any |= self.wish(&path, true);
            }
        }
        if !any && !optional {
            self.note(format!("nothing on this host is {}", item.value));
        }
    }

    /// Notes a path for copying, and makes the links on the way to it. False: it is not there.
    fn wish(&mut self, path: &Path, named: bool) -> bool {
        if !plain(path) {
            return false;
        }
        let found = self.ground.find(Path::new("/"), path);
        for (place, text) in &found.links {
            self.add(place, Thing::Link(text.clone()));
        }
        let there = found.kind != Kind::Missing;
        if there && !found.real.starts_with(self.away) && !self.leave.contains(&found.real) {
            if self.taken(&found) {
                self.queue.push((found.real.clone(), named));
            } else {
                self.note(format!("{} is left out: others than root may change it", path.display()));
            }
        }
        there
    }

    /// Root's all the way, or a service's file (resolv.conf of systemd-resolved).
    fn taken(&self, found: &Arc<Found>) -> bool {
        let service = |owner: u32| owner < self.uid_min && found.kind == Kind::File;
        let own = found.kind != Kind::File
            || fs::symlink_metadata(&found.real).is_ok_and(|facts| self.roots(&facts));
        own && found.open.is_none() && found.foreign.as_ref().is_none_or(|(_, owner)| service(*owner))
    }

    /// The same of one entry of a directory that is root's.
    fn roots(&self, facts: &fs::Metadata) -> bool {
        let owner = facts.uid() == 0 || facts.is_file() && facts.uid() < self.uid_min;
        owner && facts.mode() & 0o022 == 0
    }

    /// Until nothing more is needed.
    fn follow(&mut self) {
        while let Some((path, named)) = self.queue.pop() {
            let Ok(facts) = fs::symlink_metadata(&path) else { continue };
            let closed = |above: &&Path| fs::symlink_metadata(above).is_ok_and(|facts| facts.mode() & 1 == 0);
            if let Some(above) = path.ancestors().skip(1).find(closed) {
                self.note(format!(
                    "{} is left out: not everybody may search {}",
                    path.display(),
                    above.display()
                ));
            } else if facts.is_dir() {
                self.tree(&path);
            } else if facts.is_file() {
                self.file(&path, &path, named);
            }
        }
    }

    fn tree(&mut self, directory: &Path) {
        let readable = fs::symlink_metadata(directory).is_ok_and(|facts| facts.mode() & 5 == 5);
        if self.leave.contains(directory) || !readable {
            return;
        }
        self.add(directory, Thing::Directory);
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(facts) = fs::symlink_metadata(&path) else { continue };
            if !plain(&path) {
                self.note(format!("{} is left out: its name", path.display()));
            } else if facts.is_symlink() {
                self.wish(&path, false);
            } else if (facts.is_dir() || facts.is_file()) && !self.roots(&facts) {
                self.note(format!("{} is left out: others than root may change it", path.display()));
            } else if facts.is_dir() {
                self.tree(&path);
            } else if facts.is_file() {
                self.file(&path, &path, false);
            }
        }
    }

    /// A file of the host's, and what it needs.
    fn file(&mut self, source: &Path, path: &Path, named: bool) {
        if self.plan.things.contains_key(path) {
            return;
        }
        let facts = fs::symlink_metadata(source).ok();
        let readable = facts.as_ref().filter(|facts| facts.mode() & 4 != 0);
        let Some(copied) = readable.and_then(|facts| Copied::now(source, facts)) else {
            return self.note(format!("{} is left out: not everybody may read it", source.display()));
        };
        self.add(path, Thing::Copy(copied));
        match needs(source) {
            Ok(Needs::Machine(machine)) => {
                let origin = source.parent().unwrap_or(Path::new("/"));
                for library in &machine.libraries {
                    let found = self.loader.find(library, &machine, origin, &mut self.ground);
                    if found.is_empty() {
                        self.note(format!(
                            "{library}, which {} needs, is nowhere on this host",
                            source.display()
                        ));
                    }
                    for path in &found {
                        self.wish(path, false);
                    }
                }
                if let Some(loader) = &machine.interpreter {
                    self.wish(loader, true);
                }
            }
            Ok(Needs::Script(words)) if named => self.script(source, &words),
            Ok(Needs::Script(_) | Needs::None) | Err(_) => {}
        }
    }

    /// The interpreter of a script, and what `env` will look for.
    fn script(&mut self, script: &Path, words: &[String]) {
        let Some(interpreter) = words.first().map(Path::new) else { return };
        if !self.wish(interpreter, true) {
            let shown = interpreter.display();
            return self.note(format!("{shown}, which {} names, is not on this host", script.display()));
        }
        if interpreter.ends_with("env") {
            let name = words.iter().skip(1).find(|word| !word.starts_with('-') && !word.contains('='));
            let places = ["/usr/local/bin", "/usr/bin", "/bin"];
            let mut all = name.into_iter().flat_map(|name| places.map(|place| Path::new(place).join(name)));
            if let Some(path) = all.find(|path| path.is_file()) {
                self.wish(&path, true);
            }
        }
    }

    /// `files.at`: a file at another place.
    fn at(&mut self, target: &Path, source: &Located<String>) {
        let (sources, optional) = alternatives(source);
        let [one] = sources.as_slice() else { return };
        let found = self.ground.find(Path::new("/"), Path::new(&one.value));
        let above = self.ground.find(Path::new("/"), target.parent().unwrap_or(Path::new("/")));
        let place = above.real.join(target.file_name().unwrap_or_default());
        match found.kind {
            Kind::File if self.taken(&found) && plain(&place) => self.file(&found.real, &place, true),
            Kind::Missing if optional => {}
            _ => self.note(format!("{} is no file of root's on this host", one.value)),
        }
    }

    /// No socket can be copied; its directory can be mounted.
    fn socket(&mut self, item: &Located<String>) {
        let (sockets, _) = alternatives(item);
        let there = sockets.iter().map(|one| Path::new(&one.value)).find(|path| path.exists());
        let Some(place) = there.and_then(Path::parent).filter(|place| plain(place)) else { return };
        let real = self.ground.find(Path::new("/"), place).real.clone();
        let mounted = self.away.join(real.strip_prefix("/").unwrap_or(&real));
        self.add(&real, Thing::Directory);
        self.note(format!(
            "a service's socket cannot be copied: {}\n  help: run: mount --bind {} {}",
            item.value,
            Pasted(real.as_os_str().as_encoded_bytes()),
            Pasted(mounted.as_os_str().as_encoded_bytes())
        ));
    }

    /// Where nothing stands yet, with the directories above it.
    fn add(&mut self, path: &Path, thing: Thing) {
        if !plain(path) {
            return;
        }
        for above in path.ancestors().skip(1).filter(|above| plain(above)) {
            self.plan.things.entry(above.to_owned()).or_insert(Thing::Directory);
        }
        let place = self.plan.things.entry(path.to_owned()).or_insert(Thing::Directory);
        if *place == Thing::Directory {
            *place = thing;
        }
    }

    fn note(&mut self, text: String) {
        if !self.plan.notes.contains(&text) {
            self.plan.notes.push(text);
        }
    }
}
