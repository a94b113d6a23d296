//! AWStats: a log is counted by a click, and the counts are looked at.

use std::fmt::Write as _;
use std::fs;

use crate::harness::{User, World};
use crate::{Visitor, both_ways};

const SITE: &str = include_str!("../../packaging/sites/awstats.toml");

fn furnish(_: &World, user: &User) {
    let docroot = user.docroot();
    fs::copy("/usr/lib/cgi-bin/awstats.pl", docroot.join("awstats.pl")).unwrap();
    for place in ["log", "stats"] {
        fs::create_dir_all(format!("/var/www/alice/{place}")).unwrap();
    }
    let mut log = String::new();
    for number in 0..123 {
        writeln!(
            log,
            "192.0.2.{} - - [10/Nov/2026:13:{:02}:{:02} +0000] \"GET /page{}.html HTTP/1.1\" 200 1000 \"-\" \"Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0\"",
            number % 9 + 1,
            number / 60,
            number % 60,
            number % 5
        )
        .unwrap();
    }
    fs::write("/var/www/alice/log/access.log", log).unwrap();
    let text = "LogFile=\"/var/www/alice/log/access.log\"\nLogType=W\nLogFormat=1\nLogSeparator=\" \"\nSiteDomain=\"cells.example\"\n\
                HostAliases=\"localhost\"\nDNSLookup=0\nDirData=\"/var/www/alice/stats\"\nDirIcons=\"/icon\"\n\
                AllowToUpdateStatsFromBrowser=1\nAllowFullYearView=2\nUseFramesWhenCGI=0\n";
    fs::write(docroot.join("awstats.cells.conf"), text).unwrap();
}

fn used(visitor: &mut Visitor<'_>) {
    let counted = visitor.page("/awstats.pl?config=cells&update=1&year=2026&month=11");
    assert!(counted.contains("cells.example"), "{counted}");
    let page = visitor.page("/awstats.pl?config=cells&year=2026&month=11");
    assert!(page.contains("Statistics for") && page.contains(">123<"), "{page}");
    let pages = visitor.page("/awstats.pl?config=cells&output=urldetail&year=2026&month=11");
    assert!(pages.contains("/page4.html"), "{pages}");
}

#[test]
fn awstats_is_used_as_cgi_and_behind_nginx() {
    both_ways(SITE, furnish, used);
}
