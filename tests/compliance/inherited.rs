//! What the caller leaves in the process, and how the end of the program is passed on.

use crate::arguments::alice;
use crate::harness::{Call, World};
use crate::suite::{Case, Group, case};

pub(crate) const GROUP: Group = Group { name: "inherited state", prepare: |_| (), cases };

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(descriptors());
    all.extend(signals());
    all.extend(masks());
    all.extend(rights());
    all.extend(ends());
    all
}

fn descriptors() -> Vec<Case> {
    let mut all = Vec::new();
    for (kind, stock) in [
        ("read", "0 1 2 7"),
        ("directory", "0 1 2 7"),
        ("path", "0 1 2 7"),
        ("memory", "0 1 2 7"),
        ("epoll", "0 1 2 7"),
        // The other end is open too.
        ("pipe", "0 1 2 3 7"),
        ("socket", "0 1 2 4 7"),
    ] {
        all.push(
            case(format!("an open descriptor: {kind}"), "ran 0", move |w| {
                let path = if kind == "directory" { "/" } else { "/etc/passwd" };
                alice(w).root(&["fd", "7", kind, path])
            })
            .but("descriptors", "fds", stock, "0 1 2"),
        );
    }
    all.push(case("a high descriptor", "ran 0", |w| alice(w).root(&["fd", "500", "directory", "/"])).but(
        "descriptors",
        "fds",
        "0 1 2 500",
        "0 1 2",
    ));
    all.push(case("descriptor 0 closed", "ran 0", |w| alice(w).order(&["close", "0"])));
    all.push(case("descriptor 2 closed", "ran 0", |w| alice(w).order(&["close", "2"])));
    all.push(
        case("descriptor 1 closed", "ran 1", |w| alice(w).order(&["close", "1"]))
            .ours("closed-descriptors", "ran 0"),
    );
    all.push(case("a listening socket as descriptor 0", "ran 0", |w| {
        let name = w.alice.home().join("socket");
        alice(w).root(&["fd", "0", "listen", name.to_str().unwrap()])
    }));
    all.push(
        case("a connected socket as descriptor 0", "ran 0", |w| alice(w).root(&["fd", "0", "socket", ""]))
            .but("descriptors", "fds", "0 1 2 4", "0 1 2"),
    );
    all.push(case("input", "ran 0", |w| alice(w).input("some bytes")));
    all
}

fn signals() -> Vec<Case> {
    let mut all = Vec::new();
    for (number, name) in [
        ("1", "HUP"),
        ("2", "INT"),
        ("10", "USR1"),
        ("13", "PIPE"),
        ("15", "TERM"),
        ("17", "CHLD"),
        ("25", "XFSZ"),
    ] {
        all.push(
            case(format!("SIG{name} ignored"), "ran 0", move |w| alice(w).order(&["ignore", number]))
                .but("signals", "ignored", number, ""),
        );
        all.push(
            case(format!("SIG{name} blocked"), "ran 0", move |w| alice(w).order(&["block", number]))
                .but("signals", "blocked", number, ""),
        );
    }
    for kind in ["virtual", "prof", "real"] {
        all.push(
            case(format!("a timer that runs: {kind}"), "ran 0", move |w| {
                alice(w).order(&["timer", kind, "600000"])
            })
            .but("timers", format!("timer_{kind}"), "runs", "stands"),
        );
    }
    all.push(case("a death signal", "ran 0", |w| alice(w).order(&["death", "15"])));
    all
}

fn masks() -> Vec<Case> {
    let mut all = vec![case("umask 022", "ran 0", |w| alice(w).order(&["umask", "022"]))];
    for mask in ["000", "002", "027", "077", "777"] {
        all.push(
            case(format!("umask {mask}"), "ran 0", move |w| alice(w).order(&["umask", &format!("0{mask}")]))
                .but("umask", "umask", mask, "022"),
        );
    }
    for (name, orders, fact, stock, ours) in [
        ("nice 10", &["nice", "10"][..], "nice", "10", "ordinary"),
        ("the scheduler for batches", &["batch", "3"], "scheduler", "3", "ordinary"),
        ("the scheduler for idle times", &["batch", "5"], "scheduler", "5", "ordinary"),
        ("one processor", &["cpus", "1"], "cpus", "1", "ordinary"),
        ("an input priority", &["io", "24583"], "io_priority", "24583", "0"),
        ("a timer slack", &["slack", "1000000000"], "timer_slack", "1000000000", "50000"),
    ] {
        all.push(case(name, "ran 0", |w| alice(w).root(orders)).but("priorities", fact, stock, ours));
    }
    all.push(case("a keyring", "ran 0", |w| alice(w).root(&["keyring"])).but(
        "keyring",
        "session_key",
        "found",
        "EPERM",
    ));
    for (name, number, value) in [
        ("core", "4", "4097"),
        ("cpu", "0", "1001"),
        ("stack", "3", "4194307"),
        ("nofile", "7", "201"),
        ("memlock", "8", "4097"),
        ("sigpending", "11", "101"),
        ("fsize", "1", "1000001"),
    ] {
        all.push(
            case(format!("a soft limit: {name}"), "ran 0", move |w| alice(w).order(&["soft", number, value]))
                .but("limits", "limits", format!("limit_{name} {value}"), "ordinary"),
        );
    }
    all
}

fn rights() -> Vec<Case> {
    vec![
        case("no_new_privs", "refused 1", |w| alice(w).order(&["no_new_privs"]))
            .ours("without-root", "refused 81"),
        case("a file size limit of zero, SIGXFSZ ignored", "ran 0", |w| {
            alice(w).order(&["ignore", "25"]).order(&["soft", "1", "0"])
        })
        .but("always-recorded", "recorded", "no", "yes")
        .but("signals", "ignored", "25", "")
        .but("limits", "limits", "limit_fsize 0", "ordinary"),
        case("a file size limit of zero", "died of signal 25", |w| alice(w).order(&["soft", "1", "0"]))
            .ours("always-recorded", "ran 0"),
    ]
}

/// The program's end is the launcher's.
fn ends() -> Vec<Case> {
    fn deed<'w>(world: &'w World, wish: &str) -> Call<'w> {
        alice(world).deed(wish)
    }
    let mut all = Vec::new();
    for status in ["0", "1", "2", "77", "101", "126", "255"] {
        all.push(case(format!("the program ends with {status}"), format!("ran {status}"), move |w| {
            deed(w, &format!("exit:{status}"))
        }));
    }
    for signal in ["1", "6", "9", "11", "14", "15"] {
        all.push(case(
            format!("the program ends by signal {signal}"),
            format!("ran signal {signal}"),
            move |w| deed(w, &format!("kill:{signal}")),
        ));
    }
    all.push(case("the program speaks on each descriptor", "ran 0", |w| deed(w, "say")));
    all
}
