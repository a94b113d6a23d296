//! What a cell has of its own: devices, private directories, /proc and the accounts that it shows.

use std::path::{Path, PathBuf};

use crate::policy::{PRIVATE_DIRECTORY, PathRule, Step, StepKind};

use super::{READ, WRITE, Work};
use crate::config::accounts::Account;
use crate::config::ground::Kind;
use crate::config::problem::Place;
use crate::config::values::JailKind;

impl Work<'_, '_, '_> {
    pub(super) fn devices(&mut self) {
        let view = self.site.kind() == JailKind::View;
        let default = ["null", "zero", "full", "random", "urandom"].map(|name| (name.to_owned(), None));
        let written = &self.site.rules.devices;
        let items: Vec<(String, Option<Place>)> = match written.key {
            None => default.into(),
            Some(_) => {
                written.items.iter().map(|item| (item.value.clone(), Some(item.place.clone()))).collect()
            }
        };
        for (name, place) in items {
            let path = Path::new("/dev").join(name.strip_prefix("/dev/").unwrap_or(&name));
            let found = self.compiler.ground.find(&self.root, &path);
            if found.kind != Kind::Device || found.real != path {
                // Those that were not asked for by name may be missing, in a container for example.
                if place.is_some() {
                    let help = "there are null, zero, full, random, urandom, tty and what else is in /dev";
                    self.compiler.problems.error(
                        place.as_ref(),
                        format!("{} is no device", path.display()),
                        help,
                    );
                }
                continue;
            }
            let rights = match path.to_str() {
                Some("/dev/random" | "/dev/urandom") => READ,
                Some("/dev/null" | "/dev/zero" | "/dev/full") => WRITE,
                _ => WRITE | PathRule::CONTROL,
            };
            self.plan.rule(&path, rights);
            if view {
                self.plan.step(
                    StepKind::BindFile,
                    &path,
                    &path,
                    Step::READ_ONLY | Step::NO_EXEC | Step::NO_SET_ID,
                );
            }
        }
        if view {
            let flags = Step::NO_DEVICES | Step::NO_EXEC | Step::NO_SET_ID;
            self.plan.step(StepKind::Memory, "", "/dev/shm", flags);
            self.plan.rule(Path::new("/dev/shm"), WRITE);
        }
    }

    /// The site's own /tmp and its like. A chroot has those that its administrator made.
    pub(super) fn private(&mut self) -> (String, Vec<String>) {
        let written = &self.site.rules.private;
        let mut targets: Vec<PathBuf> = Vec::new();
        for item in &written.items {
            let path = PathBuf::from(&item.value);
            if path == Path::new("/") {
                let help = "name directories below it, such as \"/tmp\" and \"/var/tmp\"";
                self.compiler.problems.error(Some(&item.place), "/ cannot be private", help);
            } else if self.compiler.plain(&path, &item.place, "jail.private") && !targets.contains(&path) {
                self.plan.because(&path, &item.place);
                targets.push(path);
            }
        }
        if written.key.is_none() {
            targets = ["/tmp", "/var/tmp"].map(PathBuf::from).into();
        }
        if self.site.kind() == JailKind::Chroot {
            targets.iter().for_each(|target| self.plan.rule(target, WRITE | PathRule::OPTIONAL));
            return (
                targets.first().map_or_else(|| "/tmp".to_owned(), |path| path.display().to_string()),
                Vec::new(),
            );
        }
        let mut names = Vec::new();
        let mut temporary = None;
        for target in &targets {
            let name = target.to_string_lossy().trim_start_matches('/').replace('/', "-");
            let directory = self.own_directory().join(&name);
            let inside = match self.site.kind() {
                JailKind::View => {
                    let flags = Step::NO_DEVICES | Step::NO_EXEC | Step::NO_SET_ID | Step::SITE;
                    self.plan.step(StepKind::BindDirectory, &directory, target, flags);
                    target.clone()
                }
                JailKind::Host | JailKind::Chroot => directory,
            };
            self.plan.rule(&inside, WRITE);
            temporary.get_or_insert_with(|| inside.display().to_string());
            names.push(name);
        }
        (temporary.unwrap_or_else(|| "/tmp".to_owned()), names)
    }

    /// A private directory is empty at first: nothing that the site's rules name can be seen beneath it, and a view in which
    /// it should be cannot be made.
    pub(super) fn hidden(&self) {
        for item in &self.site.rules.private.items {
            let target = Path::new(&item.value);
            let docroot = self.site.docroots.iter().find(|(docroot, _)| docroot == target);
            let link = self.compiler.root_links.iter().find(|(link, _)| link == target);
            let equal = docroot.map(|(path, _)| path.clone()).or_else(|| link.map(|(path, _)| path.clone()));
            if let Some(hidden) = equal.or_else(|| self.plan.beneath(target)) {
                let (target, hidden) = (target.display(), hidden.display());
                let message = format!("a private {target} would hide {hidden}, which the site's rules name");
                let help = "name what lies beneath it and is to be private, or another directory";
                self.compiler.problems.error(Some(&item.place), message, help);
            }
        }
    }

    fn own_directory(&self) -> PathBuf {
        Path::new(PRIVATE_DIRECTORY).join(self.site.account.uid.to_string()).join(&self.site.file.name)
    }

    pub(super) fn processes(&mut self) {
        self.plan.rule(Path::new("/proc"), READ);
        if self.site.kind() != JailKind::View {
            return;
        }
        let flags = Step::NO_DEVICES | Step::NO_EXEC | Step::NO_SET_ID;
        self.plan.step(StepKind::Processes, "", "/proc", flags);
        // Shells use them for process substitution.
        for (name, text) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
            let text = Path::new("/proc/self").join(text);
            self.plan.step(StepKind::Link, text, Path::new("/dev").join(name), 0);
        }
    }

    /// A view has its own.
    pub(super) fn accounts(&mut self) -> (String, String) {
        for name in ["passwd", "group"] {
            let source = self.own_directory().join(".etc").join(name);
            let target = Path::new("/etc").join(name);
            let flags = Step::READ_ONLY | Step::NO_DEVICES | Step::NO_EXEC | Step::NO_SET_ID;
            self.plan.rule(&target, READ);
            self.plan.step(StepKind::BindFile, source, target, flags);
        }
        accounts(&[(self.site.account, self.site.group)])
    }
}

/// /etc/passwd and /etc/group with these accounts, each with its group, and no neighbours.
#[must_use]
pub fn accounts(all: &[(&Account, &(u32, String))]) -> (String, String) {
    let mut passwd = "root:x:0:0:root:/root:/usr/sbin/nologin\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        .to_owned();
    let mut groups = "root:x:0:\nnogroup:x:65534:\n".to_owned();
    for (account, (gid, group)) in all {
        let Account { name, uid, home, .. } = account;
        passwd.push_str(&format!("{name}:x:{uid}:{gid}::{}:/bin/sh\n", home.display()));
        groups.push_str(&format!("{group}:x:{gid}:\n"));
    }
    (passwd, groups)
}
