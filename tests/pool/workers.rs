//! What stands behind a pool: programs in five languages, each in its cell, as they come from the distribution.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Ask, Launcher, User, World, put, world};

use super::host::{Daemon, Nginx, logged, processes, until};

/// A program that answers `uid QUERY PATH_INFO BODY-LENGTH PID`, and what its site's file says beyond the user.
struct Kind {
    rules: &'static str,
    file: &'static str,
    text: &'static str,
    /// What is asked for; the worker's own file where it is one program for all.
    path: &'static str,
}

const PHP: Kind = Kind {
    rules: "profile = \"php\"\n[pool]\ncommand = \"/usr/bin/php-cgi\"\n",
    file: "a.php",
    text: "<?php echo posix_getuid(), ' ', $_SERVER['QUERY_STRING'] ?? '', ' ', $_SERVER['PATH_INFO'] ?? '', ' ', \
           strlen(file_get_contents('php://input')), ' ', getmypid();",
    path: "/a.php",
};
const PERL: Kind = Kind {
    rules: "profile = \"perl\"\n[pool]\ncommand = \"{docroot}/app.fcgi\"\n",
    file: "app.fcgi",
    text: "#!/usr/bin/perl\nuse strict; use warnings; use FCGI;\nmy $request = FCGI::Request();\n\
           while ($request->Accept() >= 0) {\n  my $body = ''; read(STDIN, $body, $ENV{CONTENT_LENGTH} || 0);\n\
           print \"Content-Type: text/plain\\r\\n\\r\\n\", join(' ', $<, $ENV{QUERY_STRING} // '', $ENV{PATH_INFO} // '', \
           length $body, $$);\n}\n",
    path: "/app.fcgi",
};
const RUBY: Kind = Kind {
    rules: "profile = \"ruby\"\n[pool]\ncommand = \"{docroot}/app.fcgi\"\n",
    file: "app.fcgi",
    text: "#!/usr/bin/ruby\nrequire 'fcgi'\nFCGI.each do |request|\n  body = request.in.read\n\
           request.out.print \"Content-Type: text/plain\\r\\n\\r\\n\", [Process.uid, request.env['QUERY_STRING'], \
           request.env['PATH_INFO'], body.to_s.bytesize, Process.pid].join(' ')\n  request.finish\nend\n",
    path: "/app.fcgi",
};
const C: Kind = Kind {
    rules: "profile = \"static\"\npieces = [\"base\"]\n[pool]\ncommand = \"{docroot}/app.fcgi\"\n",
    file: "app.fcgi",
    text: "#include <fcgi_stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
           static const char *of(const char *name) { const char *value = getenv(name); return value ? value : \"\"; }\n\
           int main(void) { while (FCGI_Accept() >= 0) { long length = 0; while (getchar() != EOF) length++;\n\
           printf(\"Content-Type: text/plain\\r\\n\\r\\n%d %s %s %ld %d\", (int)getuid(), of(\"QUERY_STRING\"), of(\"PATH_INFO\"), \
           length, (int)getpid()); } return 0; }\n",
    path: "/app.fcgi",
};
/// Threads of its own: each waits until another one is there as well.
const THREADS: Kind = Kind {
    rules: "profile = \"static\"\npieces = [\"base\"]\n[pool]\ncommand = \"{docroot}/app.fcgi\"\nconcurrency = 4\n\
            workers = { max = 1 }\n",
    file: "app.fcgi",
    text: "#include <fcgiapp.h>\n#include <pthread.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
           static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER, count = PTHREAD_MUTEX_INITIALIZER;\n\
           static int inside, most;\nstatic const char *of(const char *value) { return value ? value : \"\"; }\n\
           static void *serve(void *none) { FCGX_Request request; FCGX_InitRequest(&request, 0, 0);\n\
           for (;;) { pthread_mutex_lock(&turn); int got = FCGX_Accept_r(&request); pthread_mutex_unlock(&turn); if (got < 0) break;\n\
           pthread_mutex_lock(&count); if (++inside > most) most = inside; pthread_mutex_unlock(&count);\n\
           long length = 0; while (FCGX_GetChar(request.in) != -1) length++;\n\
           const char *query = of(FCGX_GetParam(\"QUERY_STRING\", request.envp));\n\
           if (*query == 't') for (int turns = 0; turns < 1000 && most < 4; turns++) usleep(10000);\n\
           FCGX_FPrintF(request.out, \"Content-Type: text/plain\\r\\n\\r\\n%d %s %s %d %d\", (int)getuid(), query, \
           of(FCGX_GetParam(\"PATH_INFO\", request.envp)), *query == 't' ? most : (int)length, (int)getpid());\n\
           pthread_mutex_lock(&count); inside--; pthread_mutex_unlock(&count); FCGX_Finish_r(&request); } return 0; }\n\
           int main(void) { FCGX_Init(); pthread_t all[4]; for (int i = 0; i < 4; i++) pthread_create(all + i, 0, serve, 0);\n\
           for (int i = 0; i < 4; i++) pthread_join(all[i], 0); return 0; }\n",
    path: "/app.fcgi",
};

fn furnish(user: &User, kind: &Kind) {
    let docroot = user.docroot();
    let file = docroot.join(kind.file);
    if kind.text.starts_with("#include") {
        let source = format!("/mnt/{}.c", user.name);
        fs::write(&source, kind.text).unwrap();
        let built = Path::new("/mnt").join(format!("{}.fcgi", user.name));
        let said = Command::new("cc")
            .args(["-O1", "-pthread", "-o"])
            .arg(&built)
            .args([&source, "-lfcgi"])
            .output()
            .unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        put(&file, &fs::read(built).unwrap(), user.id, 0o755);
    } else {
        put(&file, kind.text.as_bytes(), user.id, if kind.file.ends_with(".php") { 0o644 } else { 0o755 });
    }
}

/// The three sites of a world, a kind each.
fn serve(world: &World, kinds: [&Kind; 3]) -> (Daemon, Nginx) {
    for (user, kind) in [&world.alice, &world.bob, &world.carol].into_iter().zip(kinds) {
        furnish(user, kind);
        world.site(&user.name, &kind.rules.replace("{docroot}", user.docroot().to_str().unwrap()));
    }
    world.apply();
    (Daemon::start(world), Nginx::start(&["alice", "bob", "carol"], ""))
}

fn is_served(nginx: &Nginx, user: &User, kind: &Kind) {
    let name = &user.name;
    let told = |ask: &Ask| {
        let answer = nginx.ask(ask);
        assert_eq!(
            answer.status,
            200,
            "{name} {}: {}\n{}",
            kind.path,
            answer.text(),
            logged(&[""]).join("\n")
        );
        let text = answer.text();
        let (rest, pid) = text.rsplit_once(' ').unwrap();
        (rest.to_owned(), pid.to_owned())
    };
    let host = format!("{name}.test");
    let (first, pid) = told(&Ask::get(&host, &format!("{}?a=b", kind.path)));
    assert_eq!(first, format!("{} a=b  0", user.id));
    let info = "/more/path";
    let path = format!("{}{info}?q", kind.path);
    // More than one: Ruby's own FastCGI closes each connection that it was asked to keep, and none may be lost with it.
    for body in [200_000, 0, 1, 70_000, 5, 100] {
        let (second, again) = told(&Ask::post(&host, &path, "x".repeat(body)));
        assert_eq!(second, format!("{} q {info} {body}", user.id));
        assert_eq!(pid, again, "one worker serves one request after another");
    }
    assert!(!logged(&["launch ", &format!("site={name}"), "jail=view", "seccomp=on"]).is_empty());
}

#[test]
fn php_perl_and_ruby_serve_in_their_cells() {
    world(Launcher::Cellwall, |world| {
        let kinds = [&PHP, &PERL, &RUBY];
        let (_daemon, nginx) = serve(world, kinds);
        for (user, kind) in [&world.alice, &world.bob, &world.carol].into_iter().zip(kinds) {
            is_served(&nginx, user, kind);
        }
    });
}

#[test]
fn programs_in_c_serve_one_by_one_and_by_threads() {
    world(Launcher::Cellwall, |world| {
        let kinds = [&C, &THREADS, &C];
        let (_daemon, nginx) = serve(world, kinds);
        for (user, kind) in [&world.alice, &world.bob].into_iter().zip(kinds) {
            is_served(&nginx, user, kind);
        }
        // Four at a time: none is answered before four are inside.
        let answers: Vec<String> = std::thread::scope(|scope| {
            let ask = || nginx.get("bob", "/app.fcgi?t").text();
            let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|one| one.join().unwrap()).collect()
        });
        for answer in &answers {
            assert!(answer.contains(" t  4 "), "{answers:?}");
        }
        until("one process for all", || processes(world.bob.id).len() == 1);
    });
}
