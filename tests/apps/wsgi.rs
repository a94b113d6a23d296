//! A Python WSGI application by the standard library's CGI handler, and its little database.

use std::fs;

use crate::harness::{User, World, mode};
use crate::{Visitor, both_ways};

const SITE: &str = include_str!("../../packaging/sites/wsgi.toml");

const APPLICATION: &str = r#"#!/usr/bin/python3
import html, sqlite3, urllib.parse
from wsgiref.handlers import CGIHandler

def application(environ, start_response):
    base = sqlite3.connect('/var/www/alice/data/guests.db')
    base.execute('create table if not exists guests (name text)')
    if environ['REQUEST_METHOD'] == 'POST':
        body = environ['wsgi.input'].read(int(environ.get('CONTENT_LENGTH') or 0)).decode()
        base.execute('insert into guests values (?)', (urllib.parse.parse_qs(body)['name'][0],))
        base.commit()
        start_response('303 See Other', [('Location', '/app.py')])
        return [b'']
    names = [html.escape(row[0]) for row in base.execute('select name from guests order by rowid')]
    start_response('200 OK', [('Content-Type', 'text/html; charset=utf-8')])
    return ['<ul>{}</ul>'.format(''.join('<li>' + name + '</li>' for name in names)).encode()]

CGIHandler().run(application)
"#;

fn furnish(_: &World, user: &User) {
    let program = user.docroot().join("app.py");
    fs::write(&program, APPLICATION).unwrap();
    mode(program, 0o755);
    fs::create_dir_all("/var/www/alice/data").unwrap();
}

fn used(visitor: &mut Visitor<'_>) {
    assert_eq!(visitor.page("/app.py"), "<ul></ul>");
    for name in ["Schleiden", "Schwann & Söhne"] {
        assert_eq!(visitor.form("/app.py", &[("name", name)]).status, 303);
    }
    assert_eq!(visitor.page("/app.py"), "<ul><li>Schleiden</li><li>Schwann &amp; Söhne</li></ul>");
}

#[test]
fn a_wsgi_application_is_used_as_cgi_and_behind_nginx() {
    both_ways(SITE, furnish, used);
}
