//! All sites at once: as text for Prometheus, and as JSON for `cellwall status` and `cellwall top`.

use std::fmt::Write as _;

use super::Broker;
use super::counters::Histogram;
use super::site::Site;

/// A family: its name, kind, what it is, and the value of a site.
type Family = (&'static str, &'static str, &'static str, fn(&Site) -> u64);

const FAMILIES: [Family; 15] = [
    ("connections_total", "counter", "Connections of web servers.", |site| site.counters.connections),
    ("requests_total", "counter", "Requests.", |site| site.counters.requests),
    ("abandoned_total", "counter", "Requests whose web server went away.", |site| site.counters.abandoned),
    ("slow_total", "counter", "Requests that were slow.", |site| site.counters.slow),
    ("sent_bytes_total", "counter", "Bytes of answers.", |site| site.counters.bytes_out),
    ("lines_said_total", "counter", "Lines that programs wrote to their error output.", |site| {
        site.counters.lines_said
    }),
    ("lines_lost_total", "counter", "Lines of logs that could not be written.", |site| {
        site.counters.lines_lost
    }),
    ("waiting", "gauge", "Requests that wait for a worker.", |site| site.waiting.into()),
    ("running", "gauge", "Requests that are worked on.", |site| site.running.into()),
    ("places", "gauge", "Requests that can be worked on at a time.", |site| site.rules.places().into()),
    ("workers", "gauge", "Workers.", |site| {
        u64::try_from(site.workers.len()).unwrap_or(u64::MAX).saturating_add(site.alone.into())
    }),
    ("processes", "gauge", "Processes of the site's workers.", |site| site.usage.processes.into()),
    ("memory_bytes", "gauge", "Memory of the site's workers.", |site| site.usage.memory),
    ("cpu_microseconds_total", "counter", "CPU time of the site's workers.", |site| site.usage.cpu_us),
    ("behind", "gauge", "1: takes more than its share of the processors, and is behind others.", |site| {
        site.usage.behind.into()
    }),
];

impl Broker {
    /// The text format of Prometheus, version 0.0.4. Sites' names have no quotes: they are escaped.
    pub(super) fn prometheus(&self) -> String {
        let mut text = String::new();
        for (name, kind, help, value) in FAMILIES {
            let _ = write!(text, "# HELP cellwall_{name} {help}\n# TYPE cellwall_{name} {kind}\n");
            for site in self.sites.values() {
                let _ = writeln!(text, "cellwall_{name}{{site=\"{}\"}} {}", label(site), value(site));
            }
        }
        text.push_str("# HELP cellwall_answers_total Answers by the first digit of their status.\n");
        text.push_str("# TYPE cellwall_answers_total counter\n");
        for site in self.sites.values() {
            for (digit, count) in site.counters.statuses.iter().enumerate().filter(|(_, count)| **count > 0) {
                let name = label(site);
                let _ =
                    writeln!(text, "cellwall_answers_total{{site=\"{name}\",status=\"{digit}xx\"}} {count}");
            }
        }
        text.push_str(
            "# HELP cellwall_refusals_total Refusals by code.\n# TYPE cellwall_refusals_total counter\n",
        );
        for site in self.sites.values() {
            for (code, count) in &site.counters.refusals {
                let name = label(site);
                let _ = writeln!(text, "cellwall_refusals_total{{site=\"{name}\",code=\"{code}\"}} {count}");
            }
        }
        self.times(&mut text, "wait_seconds", "From the request to its worker.", |site| {
            &site.counters.waited
        });
        self.times(&mut text, "work_seconds", "From the worker to the last byte.", |site| {
            &site.counters.worked
        });
        text
    }

    fn times(&self, text: &mut String, name: &str, help: &str, of: fn(&Site) -> &Histogram) {
        let _ = write!(text, "# HELP cellwall_{name} {help}\n# TYPE cellwall_{name} histogram\n");
        // Ten thousand idle sites have nothing to say.
        for site in self.sites.values().filter(|site| of(site).count > 0) {
            let (times, label) = (of(site), label(site));
            for (end, sum) in times.below() {
                let end = end.map_or_else(|| "+Inf".to_owned(), seconds);
                let _ = writeln!(text, "cellwall_{name}_bucket{{site=\"{label}\",le=\"{end}\"}} {sum}");
            }
            let _ = writeln!(text, "cellwall_{name}_sum{{site=\"{label}\"}} {}", seconds(times.sum_us));
            let _ = writeln!(text, "cellwall_{name}_count{{site=\"{label}\"}} {}", times.count);
        }
    }

    /// One line for each site, its values parted by tabs; the first line names them. What `cellwall status` reads.
    pub(super) fn table(&self) -> String {
        let names = FAMILIES.iter().map(|(name, ..)| *name);
        let mut text = ["site", "state"].into_iter().chain(names).collect::<Vec<_>>().join("\t");
        text.push_str("\trefused\twork_p50_us\twork_p99_us\n");
        for site in self.sites.values() {
            let _ = write!(text, "{}\t{}", site.rules.name, self.state(site));
            for (.., value) in FAMILIES {
                let _ = write!(text, "\t{}", value(site));
            }
            let refused: u64 = site.counters.refusals.values().sum();
            let (half, most) = (site.counters.worked.quantile(50), site.counters.worked.quantile(99));
            let _ = writeln!(text, "\t{refused}\t{half}\t{most}");
        }
        text
    }

    fn state(&self, site: &Site) -> &'static str {
        match site {
            site if site.paused => "stopped",
            site if site.stands_in || site.stalled_until > self.now => "failing",
            _ => "up",
        }
    }

    /// One object for each site.
    pub(super) fn json(&self) -> String {
        let sites: Vec<String> = self.sites.values().map(|site| self.site_json(site)).collect();
        format!("{{\"version\":1,\"uptime_us\":{},\"sites\":[{}]}}\n", self.now, sites.join(",\n"))
    }

    fn site_json(&self, site: &Site) -> String {
        let counters = &site.counters;
        let mut text = format!("{{\"site\":\"{}\",\"generation\":{}", label(site), site.generation);
        let kind = match site.rules.kind {
            crate::pool::settings::Kind::Fastcgi => "fastcgi",
            crate::pool::settings::Kind::Parent => "parent",
            crate::pool::settings::Kind::Cgi => "cgi",
        };
        let state = self.state(site);
        let _ = write!(text, ",\"kind\":\"{kind}\",\"state\":\"{state}\"");
        for (name, _, _, value) in FAMILIES {
            let _ = write!(text, ",\"{name}\":{}", value(site));
        }
        for (name, times) in [("wait", &counters.waited), ("work", &counters.worked)] {
            let (half, most) = (times.quantile(50), times.quantile(99));
            let _ = write!(text, ",\"{name}_p50_us\":{half},\"{name}_p99_us\":{most}");
        }
        let refusals: Vec<String> =
            counters.refusals.iter().map(|(code, count)| format!("\"{code}\":{count}")).collect();
        let statuses: Vec<String> = counters.statuses.iter().map(u64::to_string).collect();
        let (refusals, statuses) = (refusals.join(","), statuses.join(","));
        let _ = write!(text, ",\"waiting_most\":{},\"answers\":[{statuses}]", counters.queue_most);
        let _ = write!(text, ",\"refusals\":{{{refusals}}}}}");
        text
    }
}

fn label(site: &Site) -> String {
    site.rules.name.replace('\\', "\\\\")
}

fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}
