//! `install`: follows the manifest, and tells Debian's Apache that there is another suEXEC.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::manifest::{self, Entry, Kind};
use crate::{account, alternative, build, run, say, service, tree};

/// What an installation made that the manifest does not name: directories above, an account, and Apache's choice before.
pub(crate) const MADE: &str = "/var/lib/cellwall/installed";
/// The line of [`MADE`] that says that the account is ours.
pub(crate) const ACCOUNT: &str = "account";
/// What stands for the web server's group in the manifest, and in the files that name it.
pub(crate) const GROUP: &str = "www-data";

/// How to install.
pub(crate) struct Options {
    /// Everything goes beneath it; empty: this machine.
    pub(crate) destdir: PathBuf,
    /// The web server's group.
    pub(crate) group: String,
    /// Make Apache use it at once.
    pub(crate) activate: bool,
    /// Files get their owners here, and not by a package that names them.
    pub(crate) owned: bool,
}

/// `install [--destdir DIR] [--group NAME] [--activate] [--built]`
pub(crate) fn command(words: &[String]) -> Outcome {
    let mut options =
        Options { destdir: PathBuf::new(), group: GROUP.to_owned(), activate: false, owned: true };
    let mut built = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match (word.as_str(), words.as_slice().first()) {
            ("--destdir", Some(directory)) => options.destdir = absolute(directory)?,
            ("--group", Some(group)) => options.group.clone_from(group),
            ("--activate" | "--built", _) => {
                options.activate |= word == "--activate";
                built |= word == "--built";
                continue;
            }
            _ => {
                return Err(format!(
                    "install does not know {word:?}, or its value is missing. See: cargo xtask help"
                ));
            }
        }
        words.next();
    }
    tree::need_root("install")?;
    if !built {
        build::programs()?;
    }
    everything(&options)
}

/// Installs what has been built.
pub(crate) fn everything(options: &Options) -> Outcome {
    let here = options.destdir.as_os_str().is_empty();
    let place = if here { "this machine".to_owned() } else { options.destdir.display().to_string() };
    say::step(&format!("Installing to {place}"));
    let entries = manifest::read()?;
    let listed = entries.iter().map(|entry| beneath(&options.destdir, &entry.path)).collect();
    let mut installer = Installer { options, made: BTreeSet::new(), listed };
    for entry in &entries {
        installer.entry(entry).map_err(|why| format!("{}: {why}", entry.path))?;
    }
    if !here {
        say::note("Apache's choice of suEXEC belongs to this machine and is left as it is.");
        return Ok(());
    }
    // Before anything is made that only the notes tell of: whatever fails from here on, `uninstall` knows.
    let lacks_account = !account::is_there();
    installer.remember(&alternative::before()?, lacks_account).map_err(|why| format!("{MADE}: {why}"))?;
    if lacks_account {
        account::make()?;
    }
    alternative::register(options.activate)?;
    service::reload()?;
    compile();
    service::renew()?;
    advice(options.activate);
    Ok(())
}

struct Installer<'a> {
    options: &'a Options,
    made: BTreeSet<PathBuf>,
    /// All paths of the manifest.
    listed: BTreeSet<PathBuf>,
}

impl Installer<'_> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let path = beneath(&self.options.destdir, &entry.path);
        self.parents(&path)?;
        let ids = self.ids(entry)?;
        match entry.kind {
            Kind::Dir | Kind::State | Kind::Settings => directory(&path, ids, entry.mode),
            Kind::Tree => self.tree(&tree::root().join(&entry.source), &path, ids),
            Kind::Config if path.exists() => {
                say::note(&format!("{} is there already and stays as it is", entry.path));
                return Ok(());
            }
            Kind::Program => bytes(&tree::dist().join(&entry.source))
                .and_then(|bytes| file(&bytes, &path, ids, entry.mode)),
            Kind::Config | Kind::File => {
                self.text(entry).and_then(|bytes| file(&bytes, &path, ids, entry.mode))
            }
        }?;
        say::note(&format!("{:04o} {}:{:<8} {}", entry.mode, entry.owner, self.group(entry), path.display()));
        Ok(())
    }

    /// What is in a file: where it names the web server's group, the one of this machine. The manual keeps its words.
    fn text(&self, entry: &Entry) -> io::Result<Vec<u8>> {
        let text = bytes(&tree::root().join(&entry.source))?;
        let names_it = entry.kind == Kind::Config || entry.source.starts_with("packaging/");
        if self.options.group == GROUP || !names_it {
            return Ok(text);
        }
        let text = String::from_utf8(text).map_err(io::Error::other)?;
        Ok(text.replace(GROUP, &self.options.group).into_bytes())
    }

    /// All files below, and no others: what an older version brought and this one has not goes.
    fn tree(&self, from: &Path, to: &Path, ids: Ids) -> io::Result<()> {
        directory(to, ids, 0o755)?;
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            names.insert(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.tree(&source, &target, ids)?;
            } else {
                file(&bytes(&source)?, &target, ids, 0o644)?;
            }
        }
        for entry in fs::read_dir(to)? {
            let entry = entry?;
            let path = entry.path();
            let belongs = names.contains(&entry.file_name())
                || self.listed.iter().any(|listed| listed.starts_with(&path));
            if !belongs {
                gone(&path, entry.file_type()?.is_dir())?;
            }
        }
        Ok(())
    }

    /// Directories above that the machine lacks.
    fn parents(&mut self, path: &Path) -> io::Result<()> {
        let above: Vec<&Path> = path.ancestors().skip(1).take_while(|above| !above.exists()).collect();
        for directory in above.into_iter().rev() {
            DirBuilder::new().mode(0o755).create(directory)?;
            fs::set_permissions(directory, Permissions::from_mode(0o755))?;
            self.made.insert(directory.to_owned());
        }
        Ok(())
    }

    fn group<'e>(&'e self, entry: &'e Entry) -> &'e str {
        if entry.group == GROUP { &self.options.group } else { &entry.group }
    }

    fn ids(&self, entry: &Entry) -> io::Result<Ids> {
        if !self.options.owned {
            return Ok(Ids { owner: None, group: None });
        }
        let (owner, group) = (number("passwd", &entry.owner)?, number("group", self.group(entry))?);
        Ok(Ids { owner: Some(owner), group: Some(group) })
    }

    /// Writes down what `uninstall` cannot know otherwise; an earlier installation's notes stay.
    fn remember(&self, before: &str, makes_account: bool) -> io::Result<()> {
        let old = fs::read_to_string(MADE).unwrap_or_default();
        let mut lines: BTreeSet<String> = old.lines().map(str::to_owned).collect();
        lines.extend(self.made.iter().map(|path| format!("made {}", path.display())));
        if !lines.iter().any(|line| line.starts_with("apache ")) {
            lines.insert(format!("apache {before}"));
        }
        if makes_account {
            lines.insert(ACCOUNT.to_owned());
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(MADE, text)
    }
}

#[derive(Clone, Copy)]
struct Ids {
    owner: Option<u32>,
    group: Option<u32>,
}

impl Ids {
    fn give(self, path: &Path, mode: u32) -> io::Result<()> {
        chown(path, self.owner, self.group)?;
        // Last, because a change of the owner takes set-id bits away (chown(2)).
        fs::set_permissions(path, Permissions::from_mode(mode))
    }
}

/// A path of the manifest, beneath the destination.
pub(crate) fn beneath(destdir: &Path, path: &str) -> PathBuf {
    if destdir.as_os_str().is_empty() {
        PathBuf::from(path)
    } else {
        destdir.join(path.trim_start_matches('/'))
    }
}

/// The directory behind an option, whether it is there or not.
pub(crate) fn absolute(directory: &str) -> Outcome<PathBuf> {
    std::path::absolute(directory).map_err(|why| format!("{directory:?}: {why}"))
}

fn directory(path: &Path, ids: Ids, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => Err(why),
        _ => ids.give(path, mode),
    }
}

/// Written beside, finished, then renamed: nobody ever starts half a program, and a running one is not overwritten.
fn file(bytes: &[u8], to: &Path, ids: Ids, mode: u32) -> io::Result<()> {
    let fresh = fresh(to);
    let mut out = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
    out.write_all(bytes)?;
    ids.give(&fresh, mode)?;
    out.sync_all()?;
    fs::rename(&fresh, to)
}

/// Where a file is until it is whole. An installation that was killed leaves it.
pub(crate) fn fresh(path: &Path) -> PathBuf {
    path.with_extension("cellwall-new")
}

fn bytes(from: &Path) -> io::Result<Vec<u8>> {
    fs::read(from).map_err(|why| io::Error::new(why.kind(), format!("cannot read {}: {why}", from.display())))
}

fn gone(path: &Path, is_directory: bool) -> io::Result<()> {
    if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) }?;
    say::note(&format!("removed {}, which this version does not have", path.display()));
    Ok(())
}

/// The number of a user or a group, from the machine's name service.
fn number(database: &str, name: &str) -> io::Result<u32> {
    if name == "root" {
        return Ok(0);
    }
    let output = Command::new("getent").args([database, name]).output()?;
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    line.split(':').nth(2).and_then(|field| field.trim().parse().ok()).ok_or_else(|| {
        io::Error::other(format!(
            "this machine has no {name} in its {database} database; install the web server first, or name its group \
             with --group"
        ))
    })
}

/// The launcher reads the host's rules in compiled form only: where its log is, and who may call it. Without sites all
/// it does from now on is to refuse, with a record. An older configuration with mistakes is no reason not to install.
fn compile() {
    if let Err(why) = run::quietly("cellwall apply", Command::new("/usr/bin/cellwall").arg("apply")) {
        say::notice(&why);
    }
}

fn advice(active: bool) {
    say::step("Next");
    say::note("write a site file in /etc/cellwall/sites.d (see cellwall.toml(5)), then: cellwall apply");
    if service::is_here() {
        say::note(
            "views at boot:             systemctl enable --now cellwall-views.service cellwall-views.path",
        );
        say::note("sites with [pool]:         systemctl enable --now cellwalld");
    } else {
        say::note("sites with [pool]:         start cellwalld at boot, as root; it needs no options");
    }
    if !active && alternative::is_apache_here() {
        say::note(&format!("let Apache use Cellwall:   {}", alternative::CHOOSE));
        say::note(&format!("and go back:               {}", alternative::GO_BACK));
    }
}
