//! Fewer rules for the same view: a directory that the view itself made stands for all that is in it.
//!
//! Pure. A launch opens each rule's path and hands it to the kernel, one after another: a profile with forty paths costs a
//! tenth of a millisecond more than one with fifteen. In a view a directory like /etc holds nothing but what the rules
//! name; where every thing in it may be read, one rule for the directory says the same. Only reading and executing are
//! folded: what may be written stays a list of its own, by name.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::policy::{PathRule, Step, StepKind};

use super::cell::StepCell;

/// By bytes: paths compare many times slower.
type Rules = BTreeMap<OsString, u8>;

/// What one rule for a directory may say.
const FOLDABLE: u8 = PathRule::READ | PathRule::EXECUTE;

/// A directory that the view makes on the way to its places.
struct Made {
    /// What the rules allow for every place in it.
    common: u8,
    /// All in it may be missing, and then it is not made.
    optional: bool,
}

/// The rules of a view with these steps, with a directory's in place of those in it where that saves at least one.
#[must_use]
pub fn folded(rules: Vec<(PathBuf, u8)>, steps: &[StepCell]) -> Vec<(PathBuf, u8)> {
    let mut rules: Rules = rules.into_iter().map(|(path, rights)| (path.into(), rights)).collect();
    for (directory, Made { common, optional }) in made(&rules, steps) {
        if common & PathRule::READ == 0 || common & !rights_of(&rules, Path::new(directory)) == 0 {
            continue;
        }
        let begin = [directory.as_bytes(), b"/"].concat();
        let is_said = |path: &OsStr, rights: u8| {
            path.as_bytes().starts_with(&begin) && rights & !PathRule::OPTIONAL & !common == 0
        };
        if rules.iter().filter(|(path, rights)| is_said(path, **rights)).count() < 2 {
            continue;
        }
        rules.retain(|path, rights| !is_said(path, *rights));
        let may_miss = if optional { PathRule::OPTIONAL } else { 0 };
        *rules.entry(directory.to_owned()).or_insert(may_miss) |= common;
    }
    rules.into_iter().map(|(path, rights)| (path.into(), rights)).collect()
}

/// What the rules allow for all of `path`.
fn rights_of(rules: &Rules, path: &Path) -> u8 {
    let given = path.ancestors().filter_map(|above| rules.get(above.as_os_str()));
    given.fold(0, |all, rights| all | rights) & !PathRule::OPTIONAL
}

/// The upper ones first. Not the root: a rule for it would be no rule set at all.
fn made<'a>(rules: &Rules, steps: &'a [StepCell]) -> BTreeMap<&'a OsStr, Made> {
    // A link is not opened; what it leads to is.
    let places: BTreeMap<&OsStr, &StepCell> =
        steps.iter().filter(|step| step.kind != StepKind::Link).map(|step| (place(step), step)).collect();
    let mut made: BTreeMap<&OsStr, Made> = BTreeMap::new();
    for (at, step) in &places {
        let place: &'a Path = Path::new(*at);
        let rights = rights_of(rules, place) & FOLDABLE;
        let may_miss = step.flags & Step::OPTIONAL != 0;
        let directories = place.ancestors().skip(1).filter(|above| above.parent().is_some());
        for directory in directories.map(Path::as_os_str) {
            made.entry(directory)
                .and_modify(|known| {
                    known.common &= rights;
                    known.optional &= may_miss;
                })
                .or_insert(Made { common: rights, optional: may_miss });
        }
    }
    // What lies in a place of its own (bound, in memory) is not the view's directory.
    made.retain(|directory, _| {
        !Path::new(directory).ancestors().any(|above| places.contains_key(above.as_os_str()))
    });
    made
}

/// Where the view has what is not its own: of a path that is looked for at the launch from there on.
fn place(step: &StepCell) -> &OsStr {
    let path = if step.flags & Step::DEEPER != 0 { &step.source } else { &step.target };
    path.as_os_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u8 = PathRule::READ;
    const EXECUTE: u8 = PathRule::READ | PathRule::EXECUTE;
    const WRITE: u8 = PathRule::READ | PathRule::WRITE;

    fn step(kind: StepKind, target: &str, flags: u8) -> StepCell {
        StepCell { kind, source: target.into(), target: target.into(), flags }
    }

    fn bound(targets: &[&str]) -> Vec<StepCell> {
        targets.iter().map(|target| step(StepKind::BindDirectory, target, Step::READ_ONLY)).collect()
    }

    fn fold(rules: &[(&str, u8)], steps: &[StepCell]) -> Vec<(String, u8)> {
        let rules = rules.iter().map(|(path, rights)| (PathBuf::from(path), *rights)).collect();
        folded(rules, steps).into_iter().map(|(path, rights)| (path.display().to_string(), rights)).collect()
    }

    #[test]
    fn a_directory_of_the_views_own_stands_for_what_is_in_it() {
        let mut steps = bound(&["/etc/hosts", "/etc/ssl/certs", "/usr/bin", "/usr/lib", "/usr/share/php"]);
        steps.push(step(StepKind::Link, "/etc/localtime", 0));
        let rules = [
            ("/etc/hosts", READ),
            ("/etc/ssl/certs", READ),
            ("/usr/bin", EXECUTE),
            ("/usr/lib", EXECUTE),
            ("/usr/share/php", READ),
        ];
        assert_eq!(
            fold(&rules, &steps),
            [
                ("/etc".into(), READ),
                ("/usr/bin".into(), EXECUTE),
                ("/usr/lib".into(), EXECUTE),
                ("/usr/share/php".into(), READ)
            ]
        );
        let more = [&rules[..], &[("/usr/share/tz", READ)]].concat();
        steps.extend(bound(&["/usr/share/tz"]));
        assert_eq!(fold(&more, &steps)[1], ("/usr".into(), READ));
        assert_eq!(fold(&more, &steps).len(), 4);
    }

    #[test]
    fn nothing_is_folded_that_some_rule_does_not_allow() {
        // Bound as a whole, allowed in part.
        let steps = bound(&["/run/a", "/run/b", "/run/service"]);
        let rules = [("/run/a", READ), ("/run/b", READ), ("/run/service/socket", READ)];
        assert_eq!(fold(&rules, &steps).len(), 3);
        // A bound directory is the host's, with whatever else is in it.
        let rules = [("/home/u/a", READ), ("/home/u/b", READ)];
        assert_eq!(fold(&rules, &bound(&["/home/u"])).len(), 2);
        // The root is never one.
        assert_eq!(fold(&[("/a", READ), ("/b", READ)], &bound(&["/a", "/b"])).len(), 2);
    }

    #[test]
    fn what_may_be_written_stays_by_name() {
        let steps = bound(&["/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"]);
        let rules =
            [("/dev/null", WRITE), ("/dev/random", READ), ("/dev/urandom", READ), ("/dev/zero", WRITE)];
        assert_eq!(
            fold(&rules, &steps),
            [("/dev".into(), READ), ("/dev/null".into(), WRITE), ("/dev/zero".into(), WRITE)]
        );
    }

    #[test]
    fn a_directory_that_may_not_be_made_is_optional() {
        let steps: Vec<StepCell> = ["/opt/a", "/opt/b"]
            .iter()
            .map(|target| step(StepKind::BindDirectory, target, Step::OPTIONAL))
            .collect();
        let rules = [("/opt/a", READ | PathRule::OPTIONAL), ("/opt/b", READ | PathRule::OPTIONAL)];
        assert_eq!(fold(&rules, &steps), [("/opt".into(), READ | PathRule::OPTIONAL)]);
    }

    #[test]
    fn a_directory_is_optional_only_where_all_in_it_is() {
        let mut steps = bound(&["/opt/b"]);
        steps.push(step(StepKind::BindDirectory, "/opt/a", Step::OPTIONAL));
        let rules = [("/opt/a", READ | PathRule::OPTIONAL), ("/opt/b", READ)];
        assert_eq!(fold(&rules, &steps), [("/opt".into(), READ)]);
    }

    #[test]
    fn what_may_only_be_executed_is_not_folded() {
        let rules = [("/opt/a", PathRule::EXECUTE), ("/opt/b", PathRule::EXECUTE)];
        assert_eq!(fold(&rules, &bound(&["/opt/a", "/opt/b"])).len(), 2);
    }

    /// What is looked for at the launch lies where it is found: somewhere on the way from the source down.
    #[test]
    fn a_place_that_is_found_at_the_launch_counts_from_its_source_on() {
        let mut steps = bound(&["/home/u/a", "/home/u/b"]);
        let (source, target) = (PathBuf::from("/home"), PathBuf::from("/home/u/site/htdocs"));
        steps.push(StepCell { kind: StepKind::BindDirectory, source, target, flags: Step::DEEPER });
        let rules = [("/home/u/a", READ), ("/home/u/b", READ), ("/home/u/site/htdocs", READ)];
        assert_eq!(fold(&rules, &steps).len(), 3, "all of /home may be the host's");
    }
}
