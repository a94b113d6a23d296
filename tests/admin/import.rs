//! `cellwall import`: what an Apache with suEXEC served is served by the files that are made of its configuration.

use std::fs;

use crate::harness::{Launcher, World, make_directory, put, world};

/// As panels write it: macros, conditions, a host for each port, wrappers for FastCGI, numbers for users.
fn configuration(world: &World) -> String {
    let modules = [
        "mpm_prefork",
        "authz_core",
        "suexec",
        "cgi",
        "alias",
        "macro",
        "actions",
        "env",
        "fcgid",
        "userdir",
    ];
    let modules: String = modules
        .iter()
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .collect();
    let (bob, carol) = (world.bob.id, &world.carol.name);
    format!(
        "ServerName localhost\nErrorLog /dev/null\nListen 127.0.0.1:18080\nDefine WEB /var/www\n{modules}UserDir public_html\n\
         <Macro Site $name $user $port>\n<VirtualHost *:$port>\nServerName $name\nServerAlias www.$name\n\
         DocumentRoot \"${{WEB}}/$user/htdocs/\"\n\
         <IfModule mod_suexec.c>\nSuexecUserGroup $user $user\n</IfModule>\n\
         <IfModule mod_nothing.c>\nSuexecUserGroup nobody nogroup\n</IfModule>\n\
         ScriptAlias \"/cgi-bin\" \"${{WEB}}/$user/cgi bin\"\nRLimitNPROC 20 40\nRLimitCPU max\nRLimitMEM 900000000\n\
         SetEnv APP_MODE \"production mode\"\nPassEnv TZ\n\
         <Directory \"${{WEB}}/$user/htdocs\">\nOptions +ExecCGI\n</Directory>\n</VirtualHost>\n</Macro>\n\
         Use Site Shop.Example.ORG alice 18080\nUse Site shop.example.org alice 18443\n\
         <VirtualHost *:18080>\nServerName http://blog.example.org:80\nDocumentRoot /var/www/bob/htdocs\n\
         SuexecUserGroup \"#{bob}\" \"#{bob}\"\nFcgidWrapper \"/var/www/starter/web1/.php-fcgi-starter\" .php virtual\n\
         Action x /cgi-bin/y\n</VirtualHost>\n\
         <VirtualHost *:18080>\nServerName plain.example.org\nDocumentRoot /var/www/html\n</VirtualHost>\n\
         <VirtualHost *:18080>\nDocumentRoot /var/www/carol/htdocs\nSuexecUserGroup {carol} {carol}\n</VirtualHost>\n"
    )
}

fn prepare(world: &World) {
    fs::write("/etc/imported.conf", configuration(world)).unwrap();
    put(
        "/usr/sbin/apache2ctl",
        b"#!/bin/sh\nexec /usr/sbin/apache2 -f /etc/imported.conf \"$@\"\n",
        0,
        0o755,
    );
    let script = "#!/usr/bin/env perl\nprint \"Content-type: text/plain\\n\\nran $ENV{APP_MODE}\\n\";\n";
    make_directory("/var/www/alice/cgi bin", world.alice.id, 0o755);
    put("/var/www/alice/cgi bin/p.pl", script.as_bytes(), world.alice.id, 0o755);
    make_directory("/var/www/starter", 0, 0o755);
    make_directory("/var/www/starter/web1", world.bob.id, 0o755);
    put("/var/www/starter/web1/.php-fcgi-starter", b"#!/bin/sh\nexec php-cgi\n", world.bob.id, 0o755);
    for name in ["alice", "bob", "carol"] {
        fs::remove_file(format!("/etc/cellwall/sites.d/{name}.toml")).unwrap();
    }
}

#[test]
fn what_apache_served_by_suexec_is_served_by_what_is_imported() {
    world(Launcher::Cellwall, |world| {
        prepare(world);
        let printed = world.cellwall(&["import"]);
        let (out, err) = (String::from_utf8_lossy(&printed.stdout), String::from_utf8_lossy(&printed.stderr));
        assert!(printed.status.success(), "{err}");
        for part in [
            "# /etc/cellwall/sites.d/shop.example.org.toml\n",
            "processes = 40\n",
            "pass = [\"APP_MODE\", \"TZ\"]",
        ] {
            assert!(out.contains(part), "{part} is not in\n{out}");
        }
        for told in
            ["UserDir public_html", "RLimitMEM 900000000", "Action x", "plain.example.org has no user"]
        {
            assert!(err.contains(told), "{told} is not in\n{err}");
        }
        assert!(!err.contains("ServerAlias") && fs::read_dir("/etc/cellwall/sites.d").unwrap().count() == 0);
        // What is said can be pasted, twice as well: a file that is there stays.
        let next = err
            .lines()
            .find_map(|line| line.split_once("; next: "))
            .map(|(_, next)| next.to_owned())
            .unwrap();
        for _ in 0..2 {
            assert!(
                std::process::Command::new("sh").args(["-c", &next]).status().unwrap().success(),
                "{next}"
            );
        }
        world.apply();
        let text = |name: &str| fs::read_to_string(format!("/etc/cellwall/sites.d/{name}.toml")).unwrap();
        assert!(
            text("shop.example.org")
                .contains("docroot = [\"/var/www/alice/htdocs\", \"/var/www/alice/cgi bin\"]\n")
        );
        let blog = text("blog.example.org");
        assert!(blog.contains("user = \"bob\"") && blog.contains("\"/var/www/starter/web1\"]"), "{blog}");
        assert!(blog.contains("profile = [\"php\", \"sh\"]"), "{blog}");
        assert!(text("carol").contains("profile = [\"static\"]"));
        let ran = world
            .call(&world.alice, "p.pl")
            .cwd("/var/www/alice/cgi bin")
            .env("APP_MODE=production mode")
            .run();
        assert!(ran.out_text().ends_with("ran production mode\n"), "{}", ran.story());
        // A dump of another machine's.
        fs::write("/srv/dump", "<VirtualHost *:80>\nServerName x.org\n</VirtualHost>\n").unwrap();
        let said = world.cellwall(&["import", "/srv/dump"]);
        assert_eq!(said.status.code(), Some(1), "{}", String::from_utf8_lossy(&said.stderr));
    });
}
