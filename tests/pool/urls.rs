//! Odd URLs, and who asks: a pool's visitors get what they would get without it.

use std::fs;

use crate::harness::{Apache, Ask, Kind, Launcher, make_directory, world};
use crate::host::{Daemon, Nginx};

const TOLD: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n\
                    echo \"name=$SCRIPT_NAME info=$PATH_INFO file=$SCRIPT_FILENAME user=$REMOTE_USER\"\n";

/// The same URLs to Apache, which starts programs by suEXEC, and to nginx, which passes all that it is asked for to the pool.
#[test]
fn plain_cgi_programs_are_found_by_the_urls_by_which_apache_finds_them() {
    let long = format!("/a.cgi/token/{}", "a".repeat(2000));
    let urls = [
        "/a.cgi",
        "/a.cgi/",
        "/a.cgi/x",
        "/a.cgi/x/",
        &long,
        "/none.cgi",
        "/none.cgi/",
        "/none/a.cgi",
        "/b.txt/",
    ];
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n[pool]\nkind = \"cgi\"\n");
        world.apply();
        world.script(&world.alice, "a.cgi", TOLD);
        make_directory(world.alice.docroot().join("more"), world.alice.id, 0o755);
        let apache = Apache::start(world, Kind::Event, "");
        let by_suexec = urls.map(|url| apache.ask(&Ask::get("alice.test", url)));
        drop(apache);
        let _daemon = Daemon::start(world);
        let nginx = Nginx::start(&["alice"], "");
        for (url, theirs) in urls.into_iter().zip(by_suexec) {
            let ours = nginx.get("alice", url);
            assert_eq!(ours.status, theirs.status, "{url:.40}: {}", ours.text());
            if ours.status == 200 {
                assert_eq!(ours.text(), theirs.text(), "{url:.40}");
            } else {
                assert!(
                    ours.text().contains("Not Found") && ours.text().contains("Reference: "),
                    "{}",
                    ours.text()
                );
            }
        }
        // A directory is no program. Apache would look for an index.
        for url in ["/", "/more", "/more/"] {
            assert_eq!(nginx.get("alice", url).status, 404, "{url}");
        }
    });
}

/// What a manual of a framework says for nginx: all URLs of the host go to the program.
#[test]
fn a_program_of_the_sites_own_is_asked_for_every_url() {
    const PROGRAM: &str = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                           print \"Content-Type: text/plain\\r\\n\\r\\n$ENV{SCRIPT_NAME}|\", $ENV{PATH_INFO} // '', \"\\n\"; }\n";
    world(Launcher::Cellwall, |world| {
        let path = world.script(&world.alice, "app.fcgi", PROGRAM);
        let rules = format!("profile = \"perl\"\n[pool]\nkind = \"fastcgi\"\ncommand = {path:?}\n");
        world.site("alice", &rules);
        world.apply();
        let _daemon = Daemon::start(world);
        let plack = "location /plack { fastcgi_param SCRIPT_NAME ''; fastcgi_param PATH_INFO $uri;\n\
                     fastcgi_param REQUEST_METHOD $request_method; fastcgi_param QUERY_STRING $query_string;\n\
                     fastcgi_pass unix:/run/cellwall/pool/alice.sock; }\n\
                     location /bare { include /etc/nginx/fastcgi_params; fastcgi_pass unix:/run/cellwall/pool/alice.sock; }";
        let nginx = Nginx::start(&["alice"], plack);
        for (url, told) in [
            ("/", "/|"),
            ("/news/", "/news/|"),
            ("/news/1", "/news/1|"),
            ("/app.fcgi/news/", "/app.fcgi|/news/"),
            ("/plack/news/", "|/plack/news/"),
            ("/plack", "|/plack"),
            ("/bare/", "/bare/|"),
            ("/bare/1", "/bare/1|"),
        ] {
            let answer = nginx.get("alice", url);
            assert_eq!((answer.status, answer.text().trim_end()), (200, told), "{url}");
        }
    });
}

/// nginx's `fastcgi_params` have `REMOTE_USER $remote_user`, which is what a visitor typed, whether or not anybody looks at it.
#[test]
fn a_visitor_has_the_name_that_the_web_server_has_proved_and_no_other() {
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\n[pool]\nkind = \"cgi\"\n");
        world.apply();
        world.script(&world.alice, "a.cgi", TOLD);
        // hooke, secret
        fs::write("/tmp/passwords", "hooke:{PLAIN}secret\n").unwrap();
        let _daemon = Daemon::start(world);
        let closed = "location /closed/ { auth_basic cells; auth_basic_user_file /tmp/passwords;\n\
                      include /etc/nginx/fastcgi_params; fastcgi_param AUTH_TYPE Basic;\n\
                      fastcgi_param SCRIPT_FILENAME $document_root/a.cgi; fastcgi_pass unix:/run/cellwall/pool/alice.sock; }";
        let nginx = Nginx::start(&["alice"], closed);
        let ask = |url: &str, name: &str| {
            let ask = Ask::get("alice.test", url).header(&format!("Authorization: Basic {name}"));
            let answer = nginx.ask(&ask);
            (answer.status, answer.text().trim_end().rsplit("user=").next().unwrap_or_default().to_owned())
        };
        let [hooke, other] = ["aG9va2U6c2VjcmV0", "aG9va2U6Z3Vlc3NlZA=="];
        assert_eq!(ask("/a.cgi", hooke), (200, String::new()), "nobody has looked at the password");
        assert_eq!(ask("/closed/", hooke), (200, "hooke".to_owned()));
        assert_eq!(ask("/closed/", other).0, 401);
    });
}
