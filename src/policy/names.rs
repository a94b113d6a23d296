//! Which names of environment variables no policy may pass on, and which paths no policy may hold.
//!
//! Pure. Used by the administrator's check, which explains, and by the decoder, which refuses: a record that was made
//! by other means than `cellwall apply` gets no further.

/// Can a name be passed from the caller at all? `HTTP_PROXY`: CVE-2016-5385; `HTTP_REDIRECT_STATUS`: CVE-2024-8927; the
/// loader's, the allocator's and the interpreters' names: sudo's long list of CVEs, starting with CVE-2005-2959.
#[must_use]
pub fn may_pass(name: &[u8]) -> bool {
    is_variable(name)
        && !NEVER.contains(&name)
        && !NEVER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// May a pattern `prefix*` stand in a policy? Only beginnings that can never match a forbidden name.
#[must_use]
pub fn may_pass_prefix(prefix: &[u8]) -> bool {
    prefix.len() >= 3
        && is_variable(prefix)
        && !NEVER_PREFIXES.iter().any(|never| never.starts_with(prefix) || prefix.starts_with(never))
}

/// Letters, digits and `_`, not beginning with a digit (POSIX.1-2017, 8.1).
#[must_use]
pub fn is_variable(name: &[u8]) -> bool {
    name.first().is_some_and(|first| !first.is_ascii_digit())
        && name.len() <= 255
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// An absolute path of plain components: no empty one, no `.` or `..`, no control bytes, at most 4,095 bytes.
#[must_use]
pub fn is_plain_path(path: &[u8]) -> bool {
    if path == b"/" {
        return true;
    }
    let Some(rest) = path.strip_prefix(b"/") else { return false };
    path.len() < 4096
        && rest.split(|byte| *byte == b'/').all(|part| {
            !matches!(part, b"" | b"." | b"..") && part.len() <= 255 && !part.iter().any(u8::is_ascii_control)
        })
}

/// Exact names that never pass.
pub const NEVER: &[&[u8]] = &[
    b"HTTP_PROXY",
    b"HTTP_REDIRECT_STATUS",
    b"PATH",
    b"IFS",
    b"ENV",
    b"BASH_ENV",
    b"SHELLOPTS",
    b"BASHOPTS",
    b"PS4",
    b"CDPATH",
    b"GLOBIGNORE",
    b"HOSTALIASES",
    b"LOCALDOMAIN",
    b"RES_OPTIONS",
    b"RESOLV_HOST_CONF",
    b"GCONV_PATH",
    b"GETCONF_DIR",
    b"LOCPATH",
    b"NLSPATH",
    b"NIS_PATH",
    b"TZDIR",
    b"TERMINFO",
    b"TERMINFO_DIRS",
    b"TERMCAP",
    b"TERMPATH",
    b"PERLLIB",
    b"PERLIO",
    b"PERLIO_DEBUG",
    b"PHPRC",
    b"PHP_INI_SCAN_DIR",
    b"PHP_VALUE",
    b"PHP_ADMIN_VALUE",
    b"USE_ZEND_ALLOC",
    b"CLASSPATH",
    b"OPENSSL_CONF",
    b"OPENSSL_MODULES",
    b"OPENSSL_ENGINES",
    b"SSL_CERT_FILE",
    b"SSL_CERT_DIR",
    b"SSLKEYLOGFILE",
    b"KRB5_CONFIG",
    b"KRB5_CONFIG_DIR",
    b"TMPDIR",
    b"TMP",
    b"TEMP",
];

/// Beginnings of names that never pass.
pub const NEVER_PREFIXES: &[&[u8]] = &[
    b"LD_",
    b"DYLD_",
    b"GLIBC_",
    b"MALLOC_",
    b"BASH_FUNC_",
    b"PERL5",
    b"PERL_",
    b"PYTHON",
    b"RUBY",
    b"NODE_",
    b"NPM_",
    b"LUA_",
    b"JAVA_",
    b"_JAVA",
    b"JDK_",
    b"GIT_",
    b"LC_",
    b"CURL_",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_steer_loaders_and_interpreters_never_pass() {
        for name in
            ["LD_PRELOAD", "PERL5OPT", "PYTHONPATH", "BASH_FUNC_x%%", "HTTP_PROXY", "PHPRC", "1A", "", "A-B"]
        {
            assert!(!may_pass(name.as_bytes()), "{name}");
        }
        for name in [
            "HTTP_COOKIE",
            "QUERY_STRING",
            "TZ",
            "SSL_PROTOCOL",
            "PHP_FCGI_CHILDREN",
            "MAPSERVER_CONFIG_FILE",
        ] {
            assert!(may_pass(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_pattern_that_could_match_a_forbidden_name_is_none() {
        for prefix in ["L", "LD_", "PER", "PERL5X", "", "P"] {
            assert!(!may_pass_prefix(prefix.as_bytes()), "{prefix}");
        }
        assert!(may_pass_prefix(b"HTTP_X_SHOP_"));
    }

    #[test]
    fn paths_are_plain() {
        for path in ["/", "/srv/www", "/srv/a b"] {
            assert!(is_plain_path(path.as_bytes()), "{path}");
        }
        for path in ["", "srv", "/srv/", "//srv", "/srv/../etc", "/./x", "/a\nb"] {
            assert!(!is_plain_path(path.as_bytes()), "{path}");
        }
    }
}
