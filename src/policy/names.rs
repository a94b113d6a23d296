//! Which names of environment variables no policy may pass on, and which paths no policy may hold.
//!
//! Pure. Names: the administrator's check explains, and the launch asks again for each variable that the caller has: a
//! record that was made by other means than `cellwall apply` gets no further. Paths: the decoder refuses.

/// Can a name be passed from the caller at all? `HTTP_PROXY`: CVE-2016-5385; `HTTP_REDIRECT_STATUS`: CVE-2024-8927; the
/// loader's, the allocator's and the interpreters' names: sudo's long list of CVEs, starting with CVE-2005-2959.
#[must_use]
pub fn may_pass(name: &[u8]) -> bool {
    is_variable(name) && !is_never(name) && !begins_as_never(name)
}

/// Is this name in the list? Names of one length mostly end differently (`REMOTE_ADDR`, `REMOTE_HOST`), where they begin
/// alike: few are compared whole. Each launch asks this for each name of its caller's.
#[must_use]
pub fn is_among(name: &[u8], list: &[&[u8]]) -> bool {
    list.iter().any(|known| is_same(name, known))
}

/// As `==`, with the last letter looked at first.
#[must_use]
#[inline]
pub fn is_same(name: &[u8], other: &[u8]) -> bool {
    name.len() == other.len() && name.last() == other.last() && name == other
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
        && name.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'_' | b'a'..=b'z' | b'0'..=b'9'))
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

/// A list of names as a table for who explains, and as code for who asks: the compiler makes a choice of few steps by
/// length and letters of it, and a launch has no table to find in its memory.
macro_rules! names {
    ($(#[$about:meta])* $table:ident, $is:ident: $($name:literal)*) => {
        $(#[$about])*
        pub const $table: &[&[u8]] = &[$($name),*];

        fn $is(name: &[u8]) -> bool {
            matches!(name, $($name)|*)
        }
    };
}

/// The same for beginnings of names, by first letters, of which most names have none of these: a comparison of more is a call
/// for each beginning.
macro_rules! beginnings {
    ($(#[$about:meta])* $table:ident, $is:ident: $($name:literal)*) => {
        $(#[$about])*
        pub const $table: &[&[u8]] = &[$($name),*];

        fn $is(name: &[u8]) -> bool {
            let first = name.first();
            $((first == $name.first() && name.starts_with($name)))||*
        }
    };
}

names! {
    /// Exact names that never pass.
    NEVER, is_never:
    b"BASHOPTS"
    b"BASH_ENV"
    b"CDPATH"
    b"CLASSPATH"
    b"ENV"
    b"GCONV_PATH"
    b"GETCONF_DIR"
    b"GLOBIGNORE"
    b"HOSTALIASES"
    b"HTTP_PROXY"
    b"HTTP_REDIRECT_STATUS"
    b"IFS"
    b"KRB5_CONFIG"
    b"KRB5_CONFIG_DIR"
    b"LOCALDOMAIN"
    b"LOCPATH"
    b"NIS_PATH"
    b"NLSPATH"
    b"OPENSSL_CONF"
    b"OPENSSL_ENGINES"
    b"OPENSSL_MODULES"
    b"PATH"
    b"PERLIO"
    b"PERLIO_DEBUG"
    b"PERLLIB"
    b"PHPRC"
    b"PHP_ADMIN_VALUE"
    b"PHP_INI_SCAN_DIR"
    b"PHP_VALUE"
    b"PS4"
    b"RESOLV_HOST_CONF"
    b"RES_OPTIONS"
    b"SHELLOPTS"
    b"SSLKEYLOGFILE"
    b"SSL_CERT_DIR"
    b"SSL_CERT_FILE"
    b"TEMP"
    b"TERMCAP"
    b"TERMINFO"
    b"TERMINFO_DIRS"
    b"TERMPATH"
    b"TMP"
    b"TMPDIR"
    b"TZDIR"
    b"USE_ZEND_ALLOC"
}

beginnings! {
    /// Beginnings of names that never pass.
    NEVER_PREFIXES, begins_as_never:
    b"BASH_FUNC_"
    b"CURL_"
    b"DYLD_"
    b"GIT_"
    b"GLIBC_"
    b"JAVA_"
    b"JDK_"
    b"LC_"
    b"LD_"
    b"LUA_"
    b"MALLOC_"
    b"NODE_"
    b"NPM_"
    b"PERL5"
    b"PERL_"
    b"PYTHON"
    b"RUBY"
    b"_JAVA"
}

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
    fn the_lists_are_the_ones_that_are_asked() {
        assert!(NEVER.iter().all(|name| !may_pass(name)));
        assert!(NEVER_PREFIXES.iter().all(|prefix| !may_pass(&[prefix, &b"X"[..]].concat())));
    }

    #[test]
    fn a_name_is_among_others_only_as_it_is() {
        let list: [&[u8]; 4] = [b"", b"A", b"REMOTE_ADDR", b"REMOTE_HOST"];
        for name in list {
            assert!(is_among(name, &list));
        }
        for name in ["B", "AA", "REMOTE_PORT", "REMOTE_ADD", "XEMOTE_ADDR", "remote_host"] {
            assert!(!is_among(name.as_bytes(), &list), "{name}");
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

    #[test]
    fn names_and_paths_are_no_longer_than_the_kernel_takes() {
        assert!(is_variable(&[b'A'; 255]) && !is_variable(&[b'A'; 256]));
        let name = |length| [&b"/"[..], &vec![b'a'; length]].concat();
        assert!(is_plain_path(&name(255)) && !is_plain_path(&name(256)));
        let path = |length| b"/a".iter().cycle().take(length).copied().collect::<Vec<u8>>();
        assert!(is_plain_path(&path(4094)) && !is_plain_path(&path(4096)));
        assert!(may_pass_prefix(b"ABC") && !may_pass_prefix(b"AB") && !may_pass_prefix(b"AB-"));
    }
}
