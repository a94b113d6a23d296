//! Odd URLs, and who asks: a pool's visitors get what they would get without it.

use std::fs;

use crate::harness::{Ask, Launcher, world};
use crate::host::{Daemon, Nginx};

const TOLD: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n\
                    echo \"name=$SCRIPT_NAME info=$PATH_INFO file=$SCRIPT_FILENAME user=$REMOTE_USER\"\n";

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
