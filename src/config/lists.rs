//! The shipped list of environment names, `policy/env.allow`.
//!
//! Pure.

/// Names that pass to every site; one with `*` at its end is a beginning.
pub fn environment() -> impl Iterator<Item = &'static str> {
    entries(ENVIRONMENT).map(|(name, _)| name)
}

/// Names and reasons.
fn entries(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(' ').map_or((line, ""), |(name, reason)| (name, reason.trim())))
}

const ENVIRONMENT: &str = include_str!("../../policy/env.allow");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::names::{NEVER, NEVER_PREFIXES, is_variable, may_pass, may_pass_prefix};

    #[test]
    fn every_name_has_its_reason_and_stands_in_order() {
        let mut last = "";
        for (name, reason) in entries(ENVIRONMENT) {
            assert!(reason.len() >= 8, "{name} has no reason");
            assert!(last < name, "{last} before {name}");
            last = name;
        }
    }

    #[test]
    fn no_name_steers_a_loader_or_an_interpreter() {
        for name in environment() {
            match name.strip_suffix('*') {
                Some(prefix) => assert!(may_pass_prefix(prefix.as_bytes()), "{name}"),
                None => assert!(may_pass(name.as_bytes()), "{name}"),
            }
            assert!(is_variable(name.trim_end_matches('*').as_bytes()), "{name}");
        }
    }

    /// The launcher takes the forbidden names out of HTTP_* one by one; no other beginning may need that.
    #[test]
    fn only_headers_have_forbidden_names_among_them() {
        for prefix in environment().filter_map(|name| name.strip_suffix('*')) {
            for never in NEVER.iter().chain(NEVER_PREFIXES) {
                let inside = never.starts_with(prefix.as_bytes());
                assert!(!inside || prefix == "HTTP_", "{prefix}");
            }
        }
    }

    /// What programs under Apache's suEXEC have seen for twenty years.
    #[test]
    fn the_names_of_suexec_are_there() {
        let all: Vec<&str> = environment().collect();
        for name in
            ["QUERY_STRING", "REDIRECT_STATUS", "SCRIPT_URL", "TZ", "USER_NAME", "HTTP_*", "UNIQUE_ID"]
        {
            assert!(all.contains(&name), "{name}");
        }
        let covered = |name: &str| {
            all.iter().any(|known| match known.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => *known == name,
            })
        };
        assert_eq!(all.iter().filter(|name| !name.contains("SSL_") && !name.ends_with('*')).count(), 48);
        assert!(covered("SSL_CLIENT_S_DN_CN") && covered("SSL_SERVER_M_SERIAL") && covered("SSL_PROTOCOL"));
        assert!(!covered("SSL_CERT_FILE") && !covered("SSL_CERT_DIR") && !covered("REDIRECT_HTTP_COOKIE"));
    }
}
