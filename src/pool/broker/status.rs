//! The status and ping pages of a site, as php-fpm's, answered by the broker even when every worker is stuck.
//!
//! `?json`, `?xml`, `?html` and `?openmetrics` choose the form, `&full` adds the workers. A worker's serial number stands
//! where php-fpm has a pid, which the broker does not know.

use std::fmt::Write as _;

use crate::pool::fastcgi::pairs::Pairs;
use crate::pool::settings::Workers;
use crate::refusal::Untrusted;
use crate::sys::clock;

use super::arena::Key;
use super::calls::State;
use super::{Broker, answers};

/// One value of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
}

/// Names and values, in php-fpm's order.
type Rows = Vec<(&'static str, Value)>;

/// What the page says.
struct Page {
    pool: Rows,
    workers: Vec<Rows>,
    full: bool,
}

impl Broker {
    /// Answers a request for the status or ping page.
    pub(super) fn own_page(&mut self, key: Key, url: &[u8]) {
        let Some(call) = self.calls.get(key) else { return };
        let Some(site) = self.sites.get_mut(&call.site) else { return };
        site.counters.answered(200);
        let query = Pairs(call.codec.params()).flatten().find(|(name, _)| *name == b"QUERY_STRING");
        let query = query.map_or_else(Vec::new, |(_, value)| value.to_vec());
        let number = call.site;
        let text = if url == site.rules.pages.ping {
            let pong = Untrusted(&site.rules.pages.pong).to_string();
            head("text/plain; charset=us-ascii") + &pong
        } else {
            let asked = |word: &[u8]| query.split(|byte| *byte == b'&').any(|one| one == word);
            let page = self.page(number, asked(b"full"));
            match () {
                () if asked(b"json") => head("application/json") + &page.json(),
                () if asked(b"xml") => head("text/xml") + &page.xml(),
                () if asked(b"html") => head("text/html; charset=us-ascii") + &page.html(),
                () if asked(b"openmetrics") => {
                    head("application/openmetrics-text; version=1.0.0; charset=utf-8") + &page.openmetrics()
                }
                () => head("text/plain; charset=us-ascii") + &page.text(),
            }
        };
        answers::page(self, key, &text);
    }

    fn page(&self, number: u32, full: bool) -> Page {
        let mut page = Page { pool: Vec::new(), workers: Vec::new(), full };
        let Some(site) = self.sites.get(&number) else { return page };
        let children: u32 = site
            .workers
            .iter()
            .filter_map(|one| self.workers.get(&one.0))
            .map(|worker| worker.connections)
            .sum();
        let Workers { min, max, .. } = site.rules.workers;
        let manager = match min {
            0 => "ondemand",
            min if min == max => "static",
            _ => "dynamic",
        };
        let since = self.now.saturating_sub(site.counters.since) / 1_000_000;
        let began = clock::now().0.saturating_sub(since);
        let counters = &site.counters;
        let number = |number: u32| Value::Number(number.into());
        page.pool = vec![
            ("pool", Value::Text(site.rules.name.clone())),
            ("process manager", Value::Text(manager.to_owned())),
            ("start time", Value::Number(began)),
            ("start since", Value::Number(since)),
            ("accepted conn", Value::Number(counters.requests)),
            ("listen queue", number(site.waiting)),
            ("max listen queue", number(counters.queue_most)),
            ("listen queue len", number(site.rules.queue.length)),
            ("idle processes", number(children.saturating_sub(site.running))),
            ("active processes", number(site.running)),
            ("total processes", number(children.max(site.running))),
            ("max active processes", number(counters.running_most)),
            ("max children reached", Value::Number(counters.places_full)),
            ("slow requests", Value::Number(counters.slow)),
        ];
        if full {
            page.workers = site.workers.iter().filter_map(|one| self.worker_rows(one.0, began)).collect();
        }
        page
    }

    fn worker_rows(&self, serial: u32, began: u64) -> Option<Rows> {
        let worker = self.workers.get(&serial)?;
        let mut calls = self.calls.iter().map(|(_, call)| call);
        let call = calls.find(|call| {
            matches!(call.state, State::Linked(_))
                && call.job.as_ref().is_some_and(|job| job.worker == serial)
        });
        let job = call.and_then(|call| call.job.as_ref());
        let value = |name: &[u8]| {
            let mut pairs = Pairs(job.map_or(&[][..], |job| &job.params)).flatten();
            let found = pairs.find(|(known, _)| *known == name).map_or(&b"-"[..], |(_, value)| value);
            Value::Text(Untrusted(found).to_string())
        };
        let state = match worker {
            worker if worker.draining.is_some() => "Finishing",
            worker if worker.busy > 0 => "Running",
            _ => "Idle",
        };
        let duration = job.map_or(0, |job| self.now.saturating_sub(job.started));
        Some(vec![
            ("pid", Value::Number(serial.into())),
            ("state", Value::Text(state.to_owned())),
            ("start time", Value::Number(began.saturating_add(worker.since / 1_000_000))),
            ("start since", Value::Number(self.now.saturating_sub(worker.since) / 1_000_000)),
            ("requests", Value::Number(worker.requests)),
            ("request duration", Value::Number(duration)),
            ("request method", value(b"REQUEST_METHOD")),
            ("request uri", value(b"REQUEST_URI")),
            ("content length", value(b"CONTENT_LENGTH")),
            ("user", value(b"REMOTE_USER")),
            ("script", Value::Text(Untrusted(job.map_or(&b"-"[..], |job| &job.script)).to_string())),
        ])
    }
}

fn head(kind: &str) -> String {
    format!(
        "Content-Type: {kind}\r\nExpires: Thu, 01 Jan 1970 00:00:00 GMT\r\nCache-Control: no-cache, no-store\r\n\r\n"
    )
}

impl Value {
    /// Untrusted text has no control bytes, quotes or backslashes but its own escapes.
    fn json(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{}\"", text.replace('\\', "\\\\")),
            Self::Number(number) => number.to_string(),
        }
    }

    fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }

    fn markup(&self) -> String {
        self.plain().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
    }
}

impl Page {
    fn text(&self) -> String {
        let mut text = String::new();
        let rows = |text: &mut String, rows: &Rows| {
            for (name, value) in rows {
                let _ = writeln!(text, "{:<22}{}", format!("{name}:"), value.plain());
            }
        };
        rows(&mut text, &self.pool);
        for worker in &self.workers {
            text.push_str("\n************************\n");
            rows(&mut text, worker);
        }
        text
    }

    fn json(&self) -> String {
        let object = |rows: &Rows| {
            rows.iter()
                .map(|(name, value)| format!("\"{name}\":{}", value.json()))
                .collect::<Vec<_>>()
                .join(",")
        };
        let mut text = format!("{{{}", object(&self.pool));
        if self.full {
            let workers: Vec<String> =
                self.workers.iter().map(|rows| format!("{{{}}}", object(rows))).collect();
            let _ = write!(text, ",\"processes\":[{}]", workers.join(","));
        }
        text + "}\n"
    }

    fn xml(&self) -> String {
        let rows = |rows: &Rows| {
            let row = |(name, value): &(&str, Value)| {
                let name = name.replace(' ', "-");
                format!("<{name}>{}</{name}>\n", value.markup())
            };
            rows.iter().map(row).collect::<String>()
        };
        let mut text = format!("<?xml version=\"1.0\" ?>\n<status>\n{}", rows(&self.pool));
        if self.full {
            let workers: String = self
                .workers
                .iter()
                .map(|worker| format!("<process>\n{}</process>\n", rows(worker)))
                .collect();
            let _ = writeln!(text, "<processes>\n{workers}</processes>");
        }
        text + "</status>\n"
    }

    fn html(&self) -> String {
        let rows = |rows: &Rows| {
            let row = |(name, value): &(&str, Value)| {
                format!("<tr><th>{name}</th><td>{}</td></tr>\n", value.markup())
            };
            rows.iter().map(row).collect::<String>()
        };
        let mut text =
            format!("<!DOCTYPE html>\n<title>Status</title>\n<table>\n{}</table>\n", rows(&self.pool));
        for worker in &self.workers {
            let _ = write!(text, "<table>\n{}</table>\n", rows(worker));
        }
        text
    }

    /// php-fpm's names, so that what reads it need not know who answers.
    fn openmetrics(&self) -> String {
        const NAMES: [(&str, &str, &str); 11] = [
            ("start since", "start_since", "counter"),
            ("accepted conn", "accepted_connections", "counter"),
            ("listen queue", "listen_queue", "gauge"),
            ("max listen queue", "max_listen_queue", "gauge"),
            ("listen queue len", "listen_queue_length", "gauge"),
            ("idle processes", "idle_processes", "gauge"),
            ("active processes", "active_processes", "gauge"),
            ("total processes", "total_processes", "gauge"),
            ("max active processes", "max_active_processes", "gauge"),
            ("max children reached", "max_children_reached", "counter"),
            ("slow requests", "slow_requests", "counter"),
        ];
        let mut text = "# TYPE phpfpm_up gauge\nphpfpm_up 1\n".to_owned();
        for (row, name, kind) in NAMES {
            let found = self.pool.iter().find(|(known, _)| *known == row);
            let value = found.map_or_else(String::new, |(_, value)| value.plain());
            let total = if kind == "counter" { "_total" } else { "" };
            let _ = write!(text, "# TYPE phpfpm_{name} {kind}\nphpfpm_{name}{total} {value}\n");
        }
        text + "# EOF\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let row = vec![("pid", Value::Number(7)), ("request uri", Value::Text("/<a>\\x22".to_owned()))];
        Page {
            pool: vec![("pool", Value::Text("shop".to_owned())), ("accepted conn", Value::Number(3))],
            workers: vec![row],
            full: true,
        }
    }

    #[test]
    fn each_form_has_php_fpms_names_and_escapes_what_is_foreign() {
        assert_eq!(page().text().lines().next(), Some("pool:                 shop"));
        assert_eq!(
            page().json(),
            "{\"pool\":\"shop\",\"accepted conn\":3,\"processes\":[{\"pid\":7,\"request uri\":\"/<a>\\\\x22\"}]}\n"
        );
        assert!(
            page().xml().contains("<accepted-conn>3</accepted-conn>") && page().xml().contains("/&lt;a&gt;")
        );
        assert!(
            page().html().contains("<tr><th>pool</th><td>shop</td></tr>") && !page().html().contains("<a>")
        );
        let metrics = page().openmetrics();
        assert!(metrics.contains("\nphpfpm_accepted_connections_total 3\n") && metrics.ends_with("# EOF\n"));
    }
}
