//! The manual's section of each code, and the key of the configuration that decides it.

/// docs/refusals.md, compiled in.
const MANUAL: &str = include_str!("../../docs/refusals.md");

/// The section of a code, without its heading: what it means, how it comes about, what to do.
#[must_use]
pub fn section(code: &str) -> Option<&'static str> {
    let heading = format!("\n## {code} ");
    let start = MANUAL.find(&heading)?;
    let rest = MANUAL.get(start.checked_add(1)?..)?;
    let end = rest.get(3..).and_then(|rest| rest.find("\n## ")).map_or(rest.len(), |end| end + 3);
    rest.get(..end).map(str::trim_end)
}

/// The exit status of a code, or that of HTTP.
#[must_use]
pub fn status(code: &str) -> Option<&'static str> {
    let heading = section(code)?.lines().next()?;
    heading.split_once("status ")?.1.split([')', ' ', ',']).next()
}

/// The first paragraph of a section: what the code means, on one line.
#[must_use]
pub fn meaning(code: &str) -> Option<String> {
    let paragraph = section(code)?.split("\n\n").nth(1)?;
    Some(paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Every code of the manual, in its order.
pub fn all() -> impl Iterator<Item = &'static str> {
    let heading = |line: &'static str| line.strip_prefix("## ")?.split(' ').next();
    let is_code = |word: &&str| word.get(1..).is_some_and(|rest| rest.parse::<u32>().is_ok());
    MANUAL.lines().filter_map(heading).filter(is_code)
}

/// The key that decides, by the evidence. None: the rule is the program's own and cannot be set.
#[must_use]
pub fn key(code: &str, why: &str) -> Option<&'static str> {
    Some(match code {
        "X255" if why.contains("as many processes") => "limits.processes",
        "X255" if why.contains("memory limit") => "limits.memory",
        "P103" => "caller",
        "P107" => "minimum_uid",
        "P108" => "minimum_gid",
        "P114" | "V03" | "V04" | "G05" => "docroot",
        "P02" => "group",
        "P03" | "P121" | "V120" | "V01" => "user",
        "C02" => "limits",
        "C04" => "limits.cgroup",
        "C05" => "jail.directory",
        "C06" => "jail.kind",
        "E01" | "E03" => "environment.pass",
        "E02" | "G02" => "environment.entries_max",
        "V02" => "symlinks",
        "V06" => "hard_links",
        "V15" => "interpreters",
        "V11" | "V12" | "X255" => "files.execute",
        "V121" | "G06" => "handlers",
        "X02" => "files",
        "X03" => "jail.landlock",
        "L01" => "log",
        "B02" => "pool.queue",
        "B03" => "pool.queue_timeout",
        "B07" => "pool.command",
        "B08" => "pool.timeout",
        "B09" => "pool.output_timeout",
        "B10" => "pool.clients",
        "B11" => "pool.cpu_timeout",
        "G07" => "pool.body_max",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_section_with_a_meaning() {
        let mut count = 0;
        for code in all() {
            assert!(meaning(code).is_some_and(|text| text.len() > 20), "{code}");
            assert!(code.starts_with(|first: char| first.is_ascii_uppercase()), "{code}");
            count += 1;
        }
        assert!(count > 40, "{count}");
        assert_eq!(section("Z999"), None);
    }
}
