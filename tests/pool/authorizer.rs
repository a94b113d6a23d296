//! The authorizer's role (FastCGI 1.0, 6.3), as lighttpd asks for it: may this page be had?

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::harness::{Ask, Launcher, put, world};

use super::host::{Daemon, logged};
use super::web::{Host, Server};

/// Whoever knows the word may pass, and is somebody then.
const PROGRAM: &str = "#!/usr/bin/perl\nuse FCGI;\nmy $request = FCGI::Request();\nwhile ($request->Accept() >= 0) {\n\
                       my $known = ($ENV{QUERY_STRING} // '') eq 'sesame' && $ENV{FCGI_ROLE} eq 'AUTHORIZER';\n\
                       print $known ? \"Status: 200\\r\\nVariable-REMOTE_USER: ali\\r\\n\\r\\n\"\n\
                       : \"Status: 403\\r\\nContent-Type: text/plain\\r\\n\\r\\nno, $ENV{FCGI_ROLE}\"; }\n";

fn lighttpd(place: &Path, hosts: &[Host]) -> Command {
    let (text, port) = (place.display(), hosts[0].port);
    let text = format!(
        "server.modules = ( \"mod_fastcgi\" )\nserver.document-root = \"/var/www/alice/htdocs\"\nserver.bind = \"127.0.0.1\"\n\
         server.port = {port}\nserver.username = \"www-data\"\n\
         server.upload-dirs = (\"{text}\")\nmimetype.assign = ( \"\" => \"text/plain\" )\n\
         fastcgi.server = ( \"/\" => (( \"socket\" => \"/run/cellwall/pool/alice.sock\", \"mode\" => \"authorizer\",\n\
         \"docroot\" => \"/var/www/alice/htdocs\", \"check-local\" => \"disable\" )) )\n"
    );
    let file = place.join("server.conf");
    fs::write(&file, text).unwrap();
    let mut command = Command::new("/usr/sbin/lighttpd");
    command.args(["-D", "-f"]).arg(file);
    command
}

#[test]
fn an_authorizer_lets_pass_and_keeps_out() {
    world(Launcher::Cellwall, |world| {
        let program = world.script(&world.alice, "app.fcgi", PROGRAM);
        put(world.alice.docroot().join("page.txt"), b"the page", world.alice.id, 0o644);
        world.site("alice", &format!("profile = \"perl\"\n[pool]\ncommand = \"{}\"\n", program.display()));
        world.apply();
        let _daemon = Daemon::start(world);
        let place = Path::new("/tmp/lighttpd");
        fs::create_dir_all(place).unwrap();
        fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
        let host = Host {
            site: "alice".to_owned(),
            name: "alice.test".to_owned(),
            port: 8080,
            docroot: world.alice.docroot(),
            socket: "/run/cellwall/pool/alice.sock".into(),
            ending: ".fcgi",
        };
        let _server = Server::start(lighttpd, place, &[host]);
        let ask = |query: &str| Ask::get("alice.test", &format!("/page.txt?{query}")).send(8080);
        for _ in 0..3 {
            let answer = ask("open");
            assert_eq!(
                (answer.status, &*answer.text()),
                (403, "no, AUTHORIZER"),
                "{}",
                logged(&[""]).join("\n")
            );
            let answer = ask("sesame");
            assert_eq!((answer.status, &*answer.text()), (200, "the page"), "{}", logged(&[""]).join("\n"));
        }
    });
}
