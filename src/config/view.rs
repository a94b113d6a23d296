//! From lists of paths to the steps of a view and the rules of Landlock: one list decides both.
//!
//! A path of root's is bound where it is, and the links on its way are made again. A path below a directory of the
//! site is bound at the topmost component that is not root's: all above it is root's, so the site cannot put something
//! else there between `apply` and a launch. Of a path of which several components are missing the launch finds that one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::policy::decode::checksum;
use crate::policy::encode::number;
use crate::policy::{MEMORY, OBJECTS, PathRule, Step, StepKind};

use super::cell::StepCell;
use super::ground::{Found, Kind};
use super::mounts;
use super::problem::Place;

/// A path that is compared as bytes: a directory still comes before what is in it, and paths compare many times slower.
type Key = OsString;

/// What a view and a rule set grow from.
#[derive(Debug, Default)]
pub struct Plan {
    links: BTreeMap<Key, PathBuf>,
    binds: BTreeMap<Key, Bind>,
    others: Vec<StepCell>,
    rules: BTreeMap<Key, u8>,
    /// Where each path was asked for; empty unless somebody wants to know.
    reasons: Option<BTreeMap<PathBuf, Vec<Place>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bind {
    directory: bool,
    site: bool,
    write: bool,
    /// Nothing is started from it, and nothing mapped.
    data_only: bool,
    optional: bool,
    /// Several components are missing: the first one is at this place, the root's being 1.
    deeper: Option<usize>,
}

impl Plan {
    /// A plan that remembers where each path was asked for.
    #[must_use]
    pub fn with_reasons() -> Self {
        Self { reasons: Some(BTreeMap::new()), ..Self::default() }
    }

    /// What stands at `path` was asked for at `place`.
    pub fn because(&mut self, path: &Path, place: &Place) {
        if let Some(reasons) = &mut self.reasons {
            reasons.entry(path.to_owned()).or_default().push(place.clone());
        }
    }

    /// What [`Self::because`] was told.
    pub fn take_reasons(&mut self) -> BTreeMap<PathBuf, Vec<Place>> {
        self.reasons.take().unwrap_or_default()
    }

    /// A path with rights, as it was found. `rights` may hold [`PathRule::OPTIONAL`].
    pub fn path(&mut self, found: &Found, rights: u8, place: &Place) {
        self.because(&found.real, place);
        for (link, _) in &found.links {
            self.because(link, place);
        }
        self.links(&found.links);
        let optional = rights & PathRule::OPTIONAL != 0;
        let write = rights & PathRule::WRITE != 0;
        let (top, directory) = match &found.foreign {
            // The kind of the whole path counts only when the path is the topmost foreign component itself.
            Some((top, _)) if *top == found.real => (top.clone(), found.kind != Kind::File),
            Some((top, _)) => (top.clone(), true),
            None if found.kind == Kind::Missing => (found.real.clone(), true),
            None => (found.real.clone(), found.kind == Kind::Directory),
        };
        let site = found.foreign.is_some() || found.kind == Kind::Missing;
        let data_only = write && rights & PathRule::EXECUTE == 0;
        let optional = optional || found.kind == Kind::Missing;
        let deeper = if found.foreign.is_none() { first_missing(found) } else { None };
        let bind = Bind { directory, site, write, data_only, optional, deeper };
        self.binds.entry(top.into()).and_modify(|known| known.join(bind)).or_insert(bind);
        self.rule(&found.real, rights);
    }

    /// A rule alone.
    pub fn rule(&mut self, path: &Path, rights: u8) {
        let known = self.rules.get(path.as_os_str()).copied();
        // A path that one list insists on is not optional.
        let optional = rights & known.unwrap_or(PathRule::OPTIONAL) & PathRule::OPTIONAL;
        let joined = (rights | known.unwrap_or(0)) & !PathRule::OPTIONAL | optional;
        self.rules.insert(path.into(), joined);
    }

    /// The first path that is shown beneath another one.
    #[must_use]
    pub fn beneath(&self, above: &Path) -> Option<PathBuf> {
        let listed = self.binds.keys().map(Path::new);
        let others = self.others.iter().map(|step| step.target.as_path());
        let mut all = listed.chain(others).filter(|path| *path != above && path.starts_with(above));
        all.next().map(Path::to_owned)
    }

    /// A step that is no bind of a listed path.
    pub fn step(
        &mut self,
        kind: StepKind,
        source: impl Into<PathBuf>,
        target: impl Into<PathBuf>,
        flags: u8,
    ) {
        self.others.push(StepCell { kind, source: source.into(), target: target.into(), flags });
    }

    /// Links that are made when nothing else stands in their place.
    pub fn links(&mut self, links: &[(PathBuf, PathBuf)]) {
        self.links.extend(links.iter().map(|(place, text)| (Key::from(place), text.clone())));
    }

    /// The rules, without those that a rule above already gives.
    #[must_use]
    pub fn rules(&self) -> Vec<(PathBuf, u8)> {
        let given = |path: &OsStr, rights: u8| {
            above(path).any(|above| {
                self.rules.get(above).is_some_and(|more| {
                    more & PathRule::OPTIONAL == 0 && rights & !PathRule::OPTIONAL & !more == 0
                })
            })
        };
        let all = self.rules.iter().filter(|(path, rights)| !given(path, **rights));
        all.map(|(path, rights)| (path.into(), *rights)).collect()
    }

    /// The steps, parents first. `set_id`: set-id bits keep their meaning.
    #[must_use]
    pub fn steps(self, set_id: bool) -> Vec<StepCell> {
        let Self { links, binds, others, .. } = self;
        let replaced = |path: &OsStr| others.iter().any(|step| step.target.as_os_str() == path);
        let kept = collapsed(&binds);
        let mut steps: Vec<StepCell> = kept
            .iter()
            .filter(|(path, _)| !replaced(path))
            .map(|(path, bind)| StepCell {
                kind: if bind.directory { StepKind::BindDirectory } else { StepKind::BindFile },
                source: bind.source(Path::new(path)),
                target: path.into(),
                flags: bind.flags(set_id),
            })
            .collect();
        // A link inside a bound directory is there already.
        let bound = |path: &OsStr| above(path).any(|above| kept.contains_key(above));
        let links = links.into_iter().filter(|(place, _)| !bound(place) && !replaced(place));
        steps.extend(links.map(|(target, source)| StepCell {
            kind: StepKind::Link,
            source,
            target: target.into(),
            flags: 0,
        }));
        steps.extend(others);
        steps.sort_by(|one, other| one.target.as_os_str().cmp(other.target.as_os_str()));
        steps
    }
}

impl Bind {
    fn join(&mut self, other: Self) {
        self.directory |= other.directory;
        self.site |= other.site;
        self.write |= other.write;
        self.data_only &= other.data_only;
        self.optional &= other.optional;
        self.deeper = self.deeper.or(other.deeper);
    }

    /// What the launcher looks at to tell whether anything has come.
    fn source(self, path: &Path) -> PathBuf {
        self.deeper.map_or_else(|| path.to_owned(), |known| path.components().take(known).collect())
    }

    fn flags(self, set_id: bool) -> u8 {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        Step::NO_DEVICES
            | flag(!self.write, Step::READ_ONLY)
            | flag(!set_id, Step::NO_SET_ID)
            | flag(self.data_only, Step::NO_EXEC)
            | flag(self.optional, Step::OPTIONAL)
            | flag(self.site, Step::SITE)
            | flag(self.deeper.is_some(), Step::DEEPER)
    }
}

/// Without the binds that one above makes already.
fn collapsed(binds: &BTreeMap<Key, Bind>) -> BTreeMap<Key, Bind> {
    let mut kept: BTreeMap<Key, Bind> = BTreeMap::new();
    for (path, bind) in binds {
        let above = above(path).find_map(|above| kept.get(above));
        let mut bind = *bind;
        if let Some(above) = above {
            // Landlock gives the rights of a directory to all below it: the mount says the same.
            bind.data_only &= above.data_only;
            if (above.write || !bind.write) && (bind.data_only || !above.data_only) && !above.optional {
                continue;
            }
        }
        kept.insert(path.clone(), bind);
    }
    kept
}

/// The directories above a path, the nearest first.
fn above(path: &OsStr) -> impl Iterator<Item = &OsStr> {
    Path::new(path).ancestors().skip(1).map(Path::as_os_str)
}

/// Components of the first path that is missing, where what was asked for lies deeper.
fn first_missing(found: &Found) -> Option<usize> {
    let first = found.nearest.components().count() + 1;
    (found.kind == Kind::Missing && first < found.real.components().count()).then_some(first)
}

/// The name of a view: two sites of one uid with the same steps share it. Another one where a directory of root's is another
/// one, something else is mounted beneath what is bound, or a mount forbids more or less than before.
#[must_use]
pub fn id(uid: u32, steps: &[StepCell]) -> u64 {
    let mut all = uid.to_le_bytes().to_vec();
    // A view that is kept without them is another one.
    all.extend(OBJECTS.as_bytes());
    for step in steps {
        all.push(number(step.kind));
        for path in [&step.source, &step.target] {
            all.extend(path.as_os_str().as_bytes());
            // No path holds a zero byte.
            all.push(0);
        }
        all.push(step.flags);
        if step.kind == StepKind::Memory {
            all.extend(MEMORY.to_bytes());
        }
        if matches!(step.kind, StepKind::BindDirectory | StepKind::BindFile) {
            all.extend(mounts::here().forbidden(&step.source));
            all.push(0);
        }
        if step.kind == StepKind::BindDirectory {
            all.extend(mounts::here().beneath(&step.source));
            // Those that others than root may replace the launcher looks at itself (`launch::jail::stamp`).
            if step.flags & (Step::SITE | Step::OPTIONAL) == 0 {
                all.extend(mounts::here().identity(&step.source));
            }
        }
    }
    checksum(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, kind: Kind, foreign: Option<&str>) -> Found {
        Found {
            real: path.into(),
            kind,
            links: Vec::new(),
            foreign: foreign.map(|top| (top.into(), 1001)),
            nearest: path.into(),
            open: None,
        }
    }

    fn shown(plan: Plan) -> Vec<(String, u8)> {
        plan.steps(false)
            .into_iter()
            .map(|step| (step.target.display().to_string(), step.flags & (Step::READ_ONLY | Step::SITE)))
            .collect()
    }

    #[test]
    fn nested_binds_collapse_unless_the_inner_one_is_written() {
        let mut plan = Plan::default();
        plan.path(&found("/usr", Kind::Directory, None), PathRule::READ, &nowhere());
        plan.path(&found("/usr/lib", Kind::Directory, None), PathRule::READ | PathRule::EXECUTE, &nowhere());
        plan.path(&found("/usr-x", Kind::Directory, None), PathRule::READ, &nowhere());
        plan.path(
            &found("/usr/share/w", Kind::Directory, None),
            PathRule::READ | PathRule::WRITE,
            &nowhere(),
        );
        assert_eq!(
            shown(plan),
            [
                ("/usr".into(), Step::READ_ONLY),
                ("/usr-x".into(), Step::READ_ONLY),
                ("/usr/share/w".into(), 0)
            ]
        );
    }

    #[test]
    fn a_site_path_is_bound_at_the_topmost_component_that_is_not_roots() {
        let mut plan = Plan::default();
        let home = Some("/home/u");
        plan.path(
            &found("/home/u/public_html", Kind::Directory, home),
            PathRule::READ | PathRule::EXECUTE,
            &nowhere(),
        );
        plan.path(
            &found("/home/u/data", Kind::Directory, home),
            PathRule::READ | PathRule::WRITE,
            &nowhere(),
        );
        assert_eq!(
            plan.rules(),
            [("/home/u/data".into(), PathRule::READ | PathRule::WRITE), ("/home/u/public_html".into(), 3)]
        );
        assert_eq!(shown(plan), [("/home/u".into(), Step::SITE)]);
    }

    fn nowhere() -> Place {
        let document = super::super::problem::Document::new(Path::new("/x.toml"), String::new());
        Place::new(&document, 0..0)
    }

    #[test]
    fn a_rule_that_one_above_gives_is_left_out() {
        let mut plan = Plan::default();
        plan.rule(Path::new("/usr"), PathRule::READ);
        plan.rule(Path::new("/usr/lib"), PathRule::READ);
        plan.rule(Path::new("/usr/bin"), PathRule::READ | PathRule::EXECUTE);
        assert_eq!(plan.rules(), [("/usr".into(), 1), ("/usr/bin".into(), 3)]);
    }

    #[test]
    fn the_id_tells_views_apart() {
        let step = |target: &str| StepCell {
            kind: StepKind::Directory,
            source: PathBuf::new(),
            target: target.into(),
            flags: 0,
        };
        assert_ne!(id(1, &[step("/a")]), id(2, &[step("/a")]));
        assert_ne!(id(1, &[step("/a")]), id(1, &[step("/b")]));
        assert_eq!(id(1, &[step("/a")]), id(1, &[step("/a")]));
    }
}
