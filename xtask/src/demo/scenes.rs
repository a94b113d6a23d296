//! What the audience sees. Each line is an observation; one that is not as promised is marked, and fails the command.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::Outcome;
use crate::say;

use super::sites::{LEFT_BEHIND, LISTED_PORT, OTHER_PORT, Site, Sites, rules};
use super::{host, price, web};

/// The launcher's records.
const RECORDS: &str = "/var/log/cellwall/cellwall.log";

/// The running count of what was not as promised.
#[derive(Default)]
pub(crate) struct Show {
    wrong: u32,
}

/// An attempt of the probe: its name there, in words, and what stock and Cellwall are to answer.
struct Attempt {
    name: &'static str,
    words: String,
    allowed: bool,
}

impl Show {
    /// Both sites answer, each as its own user.
    pub(crate) fn who_answers(&mut self, sites: &Sites) -> Outcome {
        title("1. Each site answers as its own user");
        println!(
            "    Apache: `SuexecUserGroup rose rose` for one site, `SuexecUserGroup fern fern` for the other."
        );
        println!("    /etc/cellwall/sites.d/rose.toml, and fern.toml the same with its name:");
        rules("rose").lines().for_each(|line| println!("        {line}"));
        host::choose(price::OURS)?;
        for site in [&sites.rose, &sites.fern] {
            for (page, remark) in
                [("hello.php", "mode 0644, no #!, no wrapper"), ("hello.cgi", "a CGI script")]
            {
                let answer = web::get(site.name, &format!("/{page}"))?;
                let good =
                    answer.status == 200 && answer.body.starts_with(&format!("uid={0} gid={0} ", site.uid));
                let url = format!("http://{}.example/{page}", site.name);
                self.seen(
                    good,
                    &format!("{url:29} {} {:38} ({remark})", answer.status, first_line(&answer.body)),
                );
            }
        }
        Ok(())
    }

    /// The same script, under stock suEXEC and in the cells.
    pub(crate) fn what_a_hacked_site_reaches(&mut self, sites: &Sites) -> Outcome {
        title("2. What a hacked site reaches: the same script under stock suEXEC, then in each cell");
        println!("    {:52} {:13} {:13} fern's cell", "it tries to", "stock suEXEC", "rose's cell");
        host::choose(price::STOCK)?;
        let stock = probe(&sites.rose, &sites.fern)?;
        host::choose(price::OURS)?;
        let rose = probe(&sites.rose, &sites.fern)?;
        let fern = probe(&sites.fern, &sites.rose)?;
        for attempt in attempts() {
            let seen =
                [&stock, &rose, &fern].map(|found| found.get(attempt.name).map_or("?", String::as_str));
            let [by_stock, by_rose, by_fern] = seen;
            let ports = attempt.name == "other_port" && !has_port_rules();
            let as_promised = |word: &str| word != "?" && (word != "denied") == attempt.allowed;
            let good = ports || (as_promised(by_rose) && as_promised(by_fern));
            let remark = if ports { "(needs Linux 6.7)" } else { "" };
            let words = &attempt.words;
            self.seen(good, &format!("{words:52} {by_stock:13} {by_rose:13} {by_fern:8} {remark}"));
        }
        Ok(())
    }

    /// A script that its whole group may write: refused, explained, mended.
    pub(crate) fn a_mistake(&mut self, sites: &Sites) -> Outcome {
        title("3. A mistake, and how it is found");
        let script = format!("/var/www/{}/htdocs/guestbook.cgi", sites.rose.name);
        let failed = |why| format!("{script}: {why}");
        fs::set_permissions(&script, Permissions::from_mode(0o775)).map_err(failed)?;
        println!("    Somebody has typed: chmod g+w {script}");
        let answer = web::get(sites.rose.name, "/guestbook.cgi")?;
        let tells = ["guestbook", "/var", "0775", "60101"].iter().any(|word| answer.body.contains(word));
        self.seen(
            answer.status == 500 && !tells,
            &format!("a visitor sees: {} {}", answer.status, visible(&answer.body)),
        );
        let reference = reference(&answer.body).unwrap_or("(no reference)");
        let (good, story) = host::cellwall(&["why", reference])?;
        let good = good && story.contains(&script) && story.contains("0775");
        self.seen(good, &format!("the administrator types: cellwall why {reference}"));
        story
            .lines()
            .filter(|line| !line.trim().is_empty())
            .for_each(|line| println!("        {}", line.trim_end()));
        let remedy = story.lines().find_map(|line| line.trim().strip_prefix("repair")).unwrap_or_default();
        let pasted = Command::new("sh").args(["-c", remedy.trim()]).output();
        let answer = web::get(sites.rose.name, "/guestbook.cgi")?;
        let good = pasted.is_ok_and(|said| said.status.success()) && answer.status == 200;
        let page = first_line(&answer.body);
        self.seen(
            good,
            &format!("the remedy, pasted: {}; a visitor sees: {} {page}", remedy.trim(), answer.status),
        );
        Ok(())
    }

    /// Time that a launch adds.
    pub(crate) fn the_price(&mut self) -> Outcome {
        title("4. What a launch costs");
        let price = price::measure()?;
        let ratio = price.ours * 100 / price.stock.max(1);
        println!(
            "    Time added to a small compiled program by (median of {} turns, one after the other):",
            price.rounds
        );
        println!("    stock suEXEC, which changes the user          {:6} µs", price.stock);
        println!("    Cellwall, with identity, view, rules, record  {:6} µs", price.ours);
        let less = price.ours > 0 && price.ours < price.stock;
        self.seen(
            less,
            &format!(
                "ratio {}.{:02} (`cargo xtask bench launch` measures thoroughly)",
                ratio / 100,
                ratio % 100
            ),
        );
        let record = fs::read_to_string(RECORDS).unwrap_or_default();
        let record =
            record.lines().rfind(|line| line.contains("site=rose-tiny")).unwrap_or("none").to_owned();
        self.seen(
            record.contains(" jail=view ") && record.contains(" seccomp=on "),
            &format!("its record: {}", record.split_once("site=").map_or("none", |parts| parts.1)),
        );
        Ok(())
    }

    /// The last line. `ended`: whether it came to its end; all that tells why is gone when we are.
    pub(crate) fn end(self, ended: Outcome) -> Outcome {
        if self.wrong > 0 || ended.is_err() {
            tail(RECORDS);
            tail(web::LOG);
            ended?;
            return Err(format!("{} lines are not as promised; they are marked with NO!", self.wrong));
        }
        println!("\nEverything is as promised. Users, files and server of the demonstration are gone.");
        Ok(())
    }

    /// One observation.
    fn seen(&mut self, good: bool, what: &str) {
        println!("{} {}", if good { " ok" } else { "NO!" }, what.trim_end());
        self.wrong += u32::from(!good);
    }
}

fn attempts() -> Vec<Attempt> {
    let attempt = |name, words: &str, allowed| Attempt { name, words: words.to_owned(), allowed };
    vec![
        attempt("neighbour", "read the other site's config.php (mode 0644)", false),
        attempt("names", "see the other site's name in /var/www", false),
        attempt("process", "see a process of the other site's owner", false),
        attempt("left_behind", &format!("read {LEFT_BEHIND} (mode 0644)"), false),
        attempt("other_port", &format!("connect to port {OTHER_PORT}, which its rules do not list"), false),
        attempt("own_script", "change its own program", false),
        attempt("listed_port", &format!("connect to port {LISTED_PORT}, which its rules list"), true),
        attempt("uploads", "write to its uploads, which its rules list", true),
    ]
}

fn probe(site: &Site, neighbour: &Site) -> Outcome<BTreeMap<String, String>> {
    let (other, pid) = (neighbour.name, neighbour.job.id());
    let query = format!("/probe.cgi?{other},{pid},{LISTED_PORT},{OTHER_PORT},{LEFT_BEHIND}");
    let answer = web::get(site.name, &query)?;
    if answer.status != 200 {
        return Err(format!(
            "the probe of {} did not run: {} {}",
            site.name,
            answer.status,
            visible(&answer.body)
        ));
    }
    let pairs = answer.body.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, what)| (name.to_owned(), what.to_owned())).collect())
}

/// Landlock has rules for TCP ports since Linux 6.7.
fn has_port_rules() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 7)
}

/// The end of a log that is gone when we are.
fn tail(log: &str) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    println!("\n   The end of {log}:");
    lines.iter().skip(lines.len().saturating_sub(12)).for_each(|line| println!("       {line}"));
}

/// The page's words, without its marks and its window's title.
fn visible(page: &str) -> String {
    let page = page.split_once("</title>").map_or(page, |parts| parts.1);
    let mut text = String::new();
    let mut inside = false;
    for letter in page.chars() {
        match letter {
            '<' => inside = true,
            '>' => {
                inside = false;
                text.push(' ');
            }
            _ if !inside => text.push(letter),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn reference(page: &str) -> Option<&str> {
    let rest = page.split("Reference: ").nth(1)?;
    rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').next()
}

fn first_line(body: &str) -> &str {
    body.lines().next().unwrap_or_default()
}

fn title(text: &str) {
    println!("\n{}", say::bold(text));
}

#[cfg(test)]
mod tests {
    use super::{reference, visible};

    #[test]
    fn a_page_is_shown_as_its_visitor_sees_it() {
        let page = "<!DOCTYPE html>\n<title>500</title>\n<p>It could not. Reference: 7F3K-92QX</p>\n";
        assert_eq!(visible(page), "It could not. Reference: 7F3K-92QX");
        assert_eq!(reference(page), Some("7F3K-92QX"));
    }
}
