//! `cellwall import`: what an Apache with suEXEC served is served by the files that are made of its configuration.

use std::fs;
use std::process::Command;

use nix::mount::{MsFlags, mount};

use crate::harness::{Apache, Kind, Launcher, World, make_directory, put, run, world};

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
            assert!(Command::new("sh").args(["-c", &next]).status().unwrap().success(), "{next}");
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

/// Directories as ISPConfig, Virtualmin and cPanel lay them out; what PHP is started with stands beside the site.
fn panels(world: &World) {
    let (alice, bob) = (world.alice.id, world.bob.id);
    for path in [
        "/var/www/clients",
        "/var/www/clients/client1",
        "/var/www/php-fcgi-scripts",
        "/var/www/conf",
        "/var/www/conf/web1",
    ] {
        make_directory(path, 0, 0o755);
    }
    for (path, owner) in [
        ("/var/www/clients/client1/web1", 0),
        ("/var/www/clients/client1/web1/web", alice),
        ("/var/www/clients/client1/web1/private", alice),
        ("/var/www/clients/client1/web1/tmp", alice),
        ("/var/www/php-fcgi-scripts/web1", alice),
        ("/var/www/bob/htdocs/addon", bob),
        ("/var/www/bob/cgi-bin", bob),
    ] {
        make_directory(path, owner, 0o755);
    }
    std::os::unix::fs::symlink("/var/www/clients/client1/web1", "/var/www/web1.test").unwrap();
    let ini = "memory_limit = 77M\n;session.save_path = \"/nowhere\"\nsession.save_path = \"/var/www/clients/client1/web1/tmp\"\n";
    put("/var/www/conf/web1/php.ini", ini.as_bytes(), 0, 0o644);
    let starter = "#!/bin/sh\nPHPRC=\"/var/www/conf/web1\"\nexport PHPRC\nexec /usr/bin/php-cgi -d magic_quotes_gpc=off\n";
    put("/var/www/php-fcgi-scripts/web1/.php-fcgi-starter", starter.as_bytes(), alice, 0o755);
    put("/var/www/bob/cgi-bin/php", b"#!/bin/sh\nexec /usr/bin/php-cgi\n", bob, 0o755);
    for (path, owner) in [
        ("/var/www/clients/client1/web1/web", alice),
        ("/var/www/bob/htdocs", bob),
        ("/var/www/bob/htdocs/addon", bob),
    ] {
        put(
            format!("{path}/i.php"),
            b"<?php echo ini_get('memory_limit'), ' ', posix_getuid(), ' ', __DIR__;",
            owner,
            0o644,
        );
    }
    for name in ["alice", "bob", "carol"] {
        fs::remove_file(format!("/etc/cellwall/sites.d/{name}.toml")).unwrap();
    }
}

/// Hosts of panels, without the modules that they are for.
const HOSTS: &str = "LoadModule vhost_alias_module /usr/lib/apache2/modules/mod_vhost_alias.so\n\
    SetEnv EVERYWHERE yes\nRLimitCPU 77\n\
    <VirtualHost 127.0.0.1:8080>\nServerName web1.test\nServerAlias *.web1.test\nDocumentRoot /var/www/web1.test/web\n\
    SuexecUserGroup alice alice\nFcgidIdleTimeout 300\nFcgidInitialEnv WORKERS 3\n\
    <Directory /var/www/web1.test/web>\nAddHandler fcgid-script .php\nOptions +ExecCGI\n\
    FCGIWrapper /var/www/php-fcgi-scripts/web1/.php-fcgi-starter .php\n</Directory>\n</VirtualHost>\n\
    <VirtualHost 127.0.0.1:8080>\nServerName old.test\nDocumentRoot /var/www/bob/htdocs\nSuexecUserGroup bob bob\n\
    ScriptAlias /cgi-bin/ /var/www/bob/cgi-bin/\nScriptAlias /system/ /usr/lib/cgi-bin/\nAddHandler php-wrapped .php\n\
    Action php-wrapped /cgi-bin/php\n</VirtualHost>\n\
    <VirtualHost 127.0.0.1:8080>\nServerName addon.test\nDocumentRoot /var/www/bob/htdocs/addon\nSuexecUserGroup bob bob\n\
    ScriptAlias /cgi-bin/ /var/www/bob/cgi-bin/\nAddHandler php-wrapped .php\nAction php-wrapped /cgi-bin/php\n</VirtualHost>\n\
    <VirtualHost 127.0.0.1:8080>\nServerName many.test\nVirtualDocumentRoot /var/www/carol/%1\n\
    SuexecUserGroup carol carol\n</VirtualHost>\n";

#[test]
fn what_panels_write_becomes_a_site_that_serves_or_a_line_that_says_why_not() {
    world(Launcher::Cellwall, |world| {
        panels(world);
        let apache = Apache::start(world, Kind::Prefork, HOSTS);
        // What the harness has beside it is not asked about.
        let text = fs::read_to_string("/tmp/apache/apache.conf").unwrap();
        let (own, hosts) = (text.find("<VirtualHost").unwrap(), text.find(HOSTS).unwrap());
        fs::write("/etc/imported.conf", format!("{}{}", &text[..own], &text[hosts..])).unwrap();
        put(
            "/usr/sbin/apache2ctl",
            b"#!/bin/sh\nexec /usr/sbin/apache2 -f /etc/imported.conf \"$@\"\n",
            0,
            0o755,
        );
        let said = world.cellwall(&["import", "--to", "/etc/cellwall/sites.d"]);
        let told = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success(), "{told}");
        for part in [
            "FcgidIdleTimeout 300: ",
            "ScriptAlias /system/ /usr/lib/cgi-bin/: ",
            "Action php-wrapped /cgi-bin/php: ",
            "VirtualDocumentRoot /var/www/carol/%1: ",
            "many.test has no DocumentRoot",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
        let file = fs::read_to_string("/etc/cellwall/sites.d/web1.test.toml").unwrap();
        for part in [
            "write = [\"/var/www/clients/client1/web1/tmp\"]",
            "pass = [\"EVERYWHERE\", \"WORKERS\"]",
            "cpu = 77",
        ] {
            assert!(file.contains(part), "{part} is not in\n{file}");
        }
        world.apply();
        for (host, limit, user, place) in [
            ("web1.test", "77M", world.alice.id, "/var/www/clients/client1/web1/web"),
            ("old.test", "128M", world.bob.id, "/var/www/bob/htdocs"),
            ("addon.test", "128M", world.bob.id, "/var/www/bob/htdocs/addon"),
        ] {
            assert_eq!(
                apache.get(host, "/i.php").text(),
                format!("{limit} {user} {place}"),
                "{host}\n{}",
                apache.log()
            );
        }
    });
}

#[test]
fn what_mod_php_was_told_of_a_host_is_carried_over() {
    world(Launcher::Cellwall, |world| {
        panels(world);
        let place = "/var/www/clients/client1/web1";
        let dump = format!(
            "# In file: /etc/apache2/a.conf\n#   1:\n<VirtualHost *:80>\n#   2:\nServerName *.itk.test\n#   3:\nDocumentRoot /var/www/web1.test/web\n\
             #   4:\nAssignUserID alice alice\n#   5:\nphp_admin_value open_basedir {place}/web:{place}/private:/tmp:/usr/share/php\n\
             #   6:\nphp_admin_flag display_errors Off\n#   7:\nphp_value upload_max_filesize \"20M\"\n\
             #   8:\nphp_admin_value sendmail_path \"/usr/sbin/sendmail -t -f 'a;b'@x\"\n</VirtualHost>\n\
             # In file: /etc/apache2/b.conf\n#   1:\n<VirtualHost *:80>\n#   2:\nServerName s.test\n#   3:\nDocumentRoot /var/www/bob/htdocs\n\
             #   4:\nsuPHP_UserGroup bob bob\n#   5:\nsuPHP_ConfigPath /etc\n</VirtualHost>\n"
        );
        fs::write("/srv/dump", dump).unwrap();
        let said = world.cellwall(&["import", "--to", "/etc/cellwall/sites.d", "/srv/dump"]);
        let told = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success(), "{told}");
        for part in [
            "a.conf:4: AssignUserID alice alice: ",
            "b.conf:4: suPHP_UserGroup bob bob: ",
            "b.conf:5: suPHP_ConfigPath /etc: ",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
        // The docroot by its real name is the docroot: to write there is to write programs.
        let files = fs::read_dir("/etc/cellwall/sites.d").unwrap().flatten();
        let written: String = files.map(|file| fs::read_to_string(file.path()).unwrap()).collect();
        assert!(written.contains(&format!("write = [\"{place}/private\"]")), "{written}");
        world.apply();
        let page = "<?php foreach (['open_basedir', 'display_errors', 'upload_max_filesize', 'sendmail_path'] as $name) {\n\
                    @ini_set($name, '1'); echo $name, '=', ini_get($name), \"\\n\"; }\n\
                    echo (int) is_writable(dirname(__DIR__) . '/private');";
        put(format!("{place}/web/v.php"), page.as_bytes(), world.alice.id, 0o644);
        let ran = world.call(&world.alice, "v.php").cwd(format!("{place}/web")).env("QUERY_STRING=-a").run();
        let expected = format!(
            "open_basedir={place}/web:{place}/private:/tmp:/usr/share/php\ndisplay_errors=0\nupload_max_filesize=20M\n\
             sendmail_path=/usr/sbin/sendmail -t -f 'a;b'@x\n1"
        );
        assert!(ran.out_text().ends_with(&expected), "{}", ran.story());
    });
}

/// PHP says nothing of a directory of values that it may not read: what they forbid would be permitted.
#[test]
fn values_hold_whatever_umask_root_imported_them_with() {
    world(Launcher::Cellwall, |world| {
        fs::remove_file("/etc/cellwall/sites.d/alice.toml").unwrap();
        let dump = "# In file: /etc/apache2/a.conf\n#   1:\n<VirtualHost *:80>\n#   2:\nServerName a.test\n\
                    #   3:\nDocumentRoot /var/www/alice/htdocs\n#   4:\nAssignUserID alice alice\n\
                    #   5:\nphp_admin_value disable_functions exec\n</VirtualHost>\n";
        fs::write("/srv/dump", dump).unwrap();
        let script = "umask 077 && exec /usr/bin/cellwall import --to /etc/cellwall/sites.d /srv/dump";
        let said = run(Command::new("sh").args(["-c", script]));
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        world.apply();
        let page = b"<?php echo 'exec ', (int) function_exists('exec');";
        put(world.alice.docroot().join("v.php"), page, world.alice.id, 0o644);
        let ran = world.call(&world.alice, "v.php").run();
        assert!(ran.out_text().ends_with("exec 0"), "{}", ran.story());
    });
}

/// The owner of a starter may put there what never ends.
#[test]
fn a_starter_that_is_no_file_is_not_waited_for() {
    world(Launcher::Cellwall, |world| {
        let starter = world.alice.docroot().join("starter");
        nix::unistd::mkfifo(&starter, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::chown(&starter, Some(world.alice.id), None).unwrap();
        let host = format!(
            "<VirtualHost *:80>\nServerName alice.test\nDocumentRoot /var/www/alice/htdocs\nSuexecUserGroup alice alice\n\
             FcgidWrapper {} .php\n</VirtualHost>\n",
            starter.display()
        );
        fs::write("/tmp/host.conf", host).unwrap();
        let said = run(Command::new("timeout").args(["60", "cellwall", "import", "/tmp/host.conf"]));
        assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
    });
}

/// Whoever imports again keeps what is there, so a part of a file would stay, and be applied.
#[test]
fn a_full_disk_leaves_no_part_of_a_file_behind() {
    world(Launcher::Cellwall, |world| {
        let host = |name: &str| {
            format!(
                "<VirtualHost *:80>\n  ServerName {name}.example\n  DocumentRoot /var/www/{name}/htdocs\n  \
                 SuexecUserGroup {name} {name}\n</VirtualHost>\n"
            )
        };
        put("/tmp/dump", (host("alice") + &host("bob")).as_bytes(), 0, 0o644);
        make_directory("/srv/sites", 0, 0o755);
        // One page: the first file has it.
        let full = Some("size=4k,mode=755");
        mount(Some("tmpfs"), "/srv/sites", Some("tmpfs"), MsFlags::empty(), full).unwrap();
        let import = || {
            let said = world.cellwall(&["import", "--to", "/srv/sites", "/tmp/dump"]);
            (said.status.code(), String::from_utf8(said.stderr).unwrap())
        };
        let there = || {
            let entries = fs::read_dir("/srv/sites").unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let (status, said) = import();
        assert_eq!(status, Some(3), "{said}");
        assert!(said.contains("bob.example.toml: No space left on device"), "{said}");
        assert_eq!(there(), ["alice.example.toml"]);
        // A file that is changed, on a disk without room for the new one.
        put("/srv/sites/alice.toml", b"", 0, 0o644);
        mount(Some("/srv/sites"), "/etc/cellwall/sites.d", None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .unwrap();
        let said = world.cellwall(&["set", "alice", "user", "alice"]);
        assert_eq!(said.status.code(), Some(3), "{}", String::from_utf8_lossy(&said.stderr));
        assert!(!there().contains(&"alice.toml.new".to_owned()), "{:?}", there());
        let more = MsFlags::MS_REMOUNT;
        mount(Some("tmpfs"), "/srv/sites", Some("tmpfs"), more, Some("size=1m")).unwrap();
        assert_eq!(import().0, Some(0));
        assert!(fs::read_to_string("/srv/sites/bob.example.toml").unwrap().contains("user = \"bob\""));
    });
}

/// Files of sites that are there already may have any name: what would be a second one of a docroot is not written.
#[test]
fn a_second_import_adds_what_is_new_and_leaves_each_docroot_its_file() {
    world(Launcher::Cellwall, |world| {
        prepare(world);
        world.site("shop", "profile = \"sh\"\n");
        let text = fs::read_to_string("/etc/cellwall/sites.d/shop.toml").unwrap();
        fs::write(
            "/etc/cellwall/sites.d/shop.toml",
            text.replace("\"shop\"", "\"alice\"").replace("/shop/", "/alice/"),
        )
        .unwrap();
        for _ in 0..2 {
            let said = world.cellwall(&["import", "--to", "/etc/cellwall/sites.d"]);
            let told = String::from_utf8(said.stderr).unwrap();
            assert!(said.status.success(), "{told}");
            let left = "shop.example.org.toml: /etc/cellwall/sites.d/shop.toml has docroot /var/www/alice/htdocs already";
            assert!(told.contains(left), "{told}");
        }
        assert!(!fs::exists("/etc/cellwall/sites.d/shop.example.org.toml").unwrap());
        assert!(fs::exists("/etc/cellwall/sites.d/blog.example.org.toml").unwrap());
        world.apply();
    });
}

/// Debian's suEXEC that reads its docroot and the suffix of homes from a file.
#[test]
fn what_suexec_custom_was_told_is_left_out_with_its_like() {
    world(Launcher::Cellwall, |world| {
        prepare(world);
        fs::create_dir_all("/etc/apache2/suexec").unwrap();
        put("/etc/apache2/suexec/www-data", b"/var/www\npublic_html/cgi-bin\n# more\n", 0, 0o644);
        let told = String::from_utf8(world.cellwall(&["import"]).stderr).unwrap();
        for part in [
            "left out: /etc/apache2/suexec/www-data:1: /var/www: docroot = \"/var/www\" of cellwall.toml",
            "left out: /etc/apache2/suexec/www-data:2: public_html/cgi-bin: suffix = \"public_html/cgi-bin\"",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
    });
}
