//! Mojolicious: routes, a form, a session, and what its package hands to browsers.

use std::fs;

use crate::harness::{User, World, mode};
use crate::{Visitor, both_ways};

const SITE: &str = include_str!("../../packaging/sites/mojolicious.toml");

const APPLICATION: &str = r#"#!/usr/bin/perl
use Mojolicious::Lite -signatures;
app->secrets(['not one']);
get '/' => sub ($c) { $c->render(text => 'visit ' . ++$c->session->{visits}) };
get '/of/:name' => sub ($c) { $c->render(text => 'cells of ' . $c->param('name')) };
post '/' => sub ($c) { $c->session(name => $c->param('name')); $c->redirect_to('/of/' . $c->param('name')) };
app->start;
"#;

fn furnish(_: &World, user: &User) {
    let program = user.docroot().join("app.pl");
    fs::write(&program, APPLICATION).unwrap();
    mode(program, 0o755);
}

fn used(visitor: &mut Visitor<'_>) {
    assert_eq!(visitor.page("/app.pl"), "visit 1");
    assert_eq!(visitor.page("/app.pl/"), "visit 2");
    assert_eq!(visitor.page("/app.pl/of/two%20kinds"), "cells of two kinds");
    let answer = visitor.form("/app.pl/", &[("name", "cork")]);
    assert_eq!((answer.status, answer.header("Location")), (302, Some("/app.pl/of/cork")), "{}", answer.head);
    // A link into Debian's packages of JavaScript.
    let script = visitor.page("/app.pl/mojo/bootstrap/bootstrap.js");
    assert!(script.contains("Bootstrap"), "{} bytes", script.len());
}

#[test]
fn mojolicious_is_used_as_cgi_and_behind_nginx() {
    both_ways(SITE, furnish, used);
}
