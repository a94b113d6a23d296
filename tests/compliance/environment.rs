//! Variables: one case each, so that a change of one is seen.

use crate::arguments::alice;
use crate::suite::{Case, Group, case};

pub(crate) const GROUP: Group = Group { name: "environment", prepare: |_| (), cases };

/// suEXEC's exact names, but the two that every request of these tests has.
pub(crate) const NAMES: [&str; 46] = [
    "AUTH_TYPE",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "CONTEXT_DOCUMENT_ROOT",
    "CONTEXT_PREFIX",
    "DATE_GMT",
    "DATE_LOCAL",
    "DOCUMENT_ARGS",
    "DOCUMENT_NAME",
    "DOCUMENT_PATH_INFO",
    "DOCUMENT_ROOT",
    "DOCUMENT_URI",
    "HTTPS",
    "LAST_MODIFIED",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "QUERY_STRING",
    "QUERY_STRING_UNESCAPED",
    "REMOTE_ADDR",
    "REMOTE_HOST",
    "REMOTE_IDENT",
    "REMOTE_PORT",
    "REMOTE_USER",
    "REDIRECT_ERROR_NOTES",
    "REDIRECT_HANDLER",
    "REDIRECT_QUERY_STRING",
    "REDIRECT_REMOTE_USER",
    "REDIRECT_SCRIPT_FILENAME",
    "REDIRECT_STATUS",
    "REDIRECT_URL",
    "REQUEST_SCHEME",
    "REQUEST_URI",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
    "SCRIPT_URI",
    "SCRIPT_URL",
    "SERVER_ADDR",
    "SERVER_ADMIN",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "SERVER_SIGNATURE",
    "SERVER_SOFTWARE",
    "UNIQUE_ID",
    "USER_NAME",
    "TZ",
];

/// Names that neither lets through.
pub(crate) const NEVER: [&str; 60] = [
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "LD_BIND_NOW",
    "LD_PROFILE",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "HOSTALIASES",
    "RES_OPTIONS",
    "LOCALDOMAIN",
    "MALLOC_TRACE",
    "IFS",
    "ENV",
    "BASH_ENV",
    "CDPATH",
    "SHELLOPTS",
    "PS4",
    "BASH_FUNC_ls%%",
    "PERL5OPT",
    "PERL5LIB",
    "PERLLIB",
    "PERL5DB",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONINSPECT",
    "PYTHONSTARTUP",
    "RUBYOPT",
    "RUBYLIB",
    "NODE_OPTIONS",
    "NODE_PATH",
    "JAVA_TOOL_OPTIONS",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "PHP_VALUE",
    "PHP_FCGI_CHILDREN",
    "PHP_FCGI_MAX_REQUESTS",
    "FCGI_WEB_SERVER_ADDRS",
    "http_proxy",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TERM",
    "TERMINFO",
    "MAIL",
    "PWD",
    "PATH",
    "REDIRECT_X",
    "SERVER_X",
    "REMOTE_X",
    "query_string",
    "QUERY_STRINGX",
    "XHTTP_A",
    "OPENSSL_CONF",
    "KRB5_CONFIG",
];

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for name in NAMES {
        let value = match name {
            "REDIRECT_STATUS" => "404",
            "TZ" => "Europe/Athens",
            _ => "of this name",
        };
        all.push(case(format!("{name} is set"), "ran 0", move |w| alice(w).env(format!("{name}={value}"))));
    }
    for name in NEVER {
        all.push(case(format!("{name} is set and does not pass"), "ran 0", move |w| {
            alice(w).env(format!("{name}=/tmp/x"))
        }));
    }
    for name in [
        "HTTP_HOST",
        "HTTP_COOKIE",
        "HTTP_X_ANYTHING",
        "HTTP_1",
        "SSL_PROTOCOL",
        "SSL_CIPHER",
        "SSL_CLIENT_S_DN",
        "SSL_SERVER_M_SERIAL",
        "SSL_TLS_SNI",
    ] {
        all.push(case(format!("{name} is set"), "ran 0", move |w| {
            alice(w).env(format!("{name}=of this name"))
        }));
    }
    all.extend(odd());
    all
}

/// Entries that a server does not make, and values that libraries interpret.
fn odd() -> Vec<Case> {
    let mut all = Vec::new();
    for entry in [
        "QUERY_STRING",
        "=x",
        "",
        "x",
        "QUERY_STRING=",
        "QUERY_STRING=a=b",
        "HTTP_LINES=a\nb",
        "TZ=CET-1CEST",
    ] {
        all.push(case(format!("the entry {entry:?}"), "ran 0", move |w| alice(w).env(entry)));
    }
    for (identifier, entries) in [
        ("steering-headers", &["HTTP_PROXY=http://x", "HTTP_REDIRECT_STATUS=200"][..]),
        ("authorization", &["HTTP_AUTHORIZATION=Basic x", "HTTP_PROXY_AUTHORIZATION=x"]),
        (
            "variable-names",
            &["HTTP_=x", "HTTP_", "HTTP_NO_VALUE", "HTTP_lower=x", "HTTP_A-B=x", "HTTP_A B=x"],
        ),
        ("variables-of-ssl", &["SSL_CERT_FILE=/tmp/x", "SSL_CERT_DIR=/tmp", "SSL_=x", "SSL_ANYTHING=x"]),
        ("variable-values", &["HTTP_SHOCK=() { :; }; id", "QUERY_STRING=() { :; }", "REDIRECT_STATUS=2 00"]),
        ("variable-values", &["TZ=:/etc/shadow", "TZ=/etc/shadow", "TZ=../../x"]),
    ] {
        for entry in entries {
            let (name, value) = entry.split_once('=').unwrap_or((entry, "(no value)"));
            all.push(case(format!("the entry {entry:?}"), "ran 0", move |w| alice(w).env(entry)).but(
                identifier,
                format!("${name}"),
                value,
                "",
            ));
        }
    }
    all.push(case("a header of 100,000 bytes", "ran 0", |w| {
        alice(w).env(format!("HTTP_LONG={}", "v".repeat(100_000)))
    }));
    all.extend(several());
    all.extend([200_u32, 252, 300, 1000].map(many));
    all
}

/// More than one entry, and entries that stand twice.
fn several() -> Vec<Case> {
    let set = |name: &str, entries: &'static [&'static str]| {
        case(name, "ran 0", |w| entries.iter().fold(alice(w), |call, entry| call.env(entry)))
    };
    vec![
        set("a header twice", &["HTTP_X=1", "HTTP_X=2"]).but("one-value", "$HTTP_X", "2", ""),
        set("a header twice, the same", &["HTTP_X=1", "HTTP_X=1"]).but("one-value", "$HTTP_X", "1", ""),
        set("QUERY_STRING twice", &["QUERY_STRING=1", "QUERY_STRING=2"]).ours("one-value", "refused 87"),
        set("PATH twice", &["PATH=.", "PATH=/tmp"]),
        set("two in order", &["HTTP_B=1", "HTTP_A=2"]),
        set("PATH_INFO with a line break", &["PATH_INFO=/a\nb"]).ours("line-break", "refused 87"),
    ]
}

/// Headers, and the query behind them. suEXEC has room for 254 entries; two stand before these.
fn many(count: u32) -> Case {
    let made = case(format!("{count} headers"), "ran 0", move |w| {
        (0..count)
            .fold(alice(w), |call, number| call.env(format!("HTTP_X_{number}=v")))
            .env("QUERY_STRING=last")
    });
    if count < 252 {
        return made;
    }
    if count == 1000 {
        return made.ours("no-silent-cut", "refused 87");
    }
    let made = made.but("no-silent-cut", "$QUERY_STRING", "", "last");
    (252..count).fold(made, |made, number| made.but("no-silent-cut", format!("$HTTP_X_{number}"), "", "v"))
}
