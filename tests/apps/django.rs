//! Django: a deploy by `cellwall run`, and the pages for administrators, whose URLs all end in a slash.

use std::fs;
use std::process::Command;

use crate::harness::{User, World, mode};
use crate::{Visitor, both_ways, field, run};

const SITE: &str = include_str!("../../packaging/sites/django.toml");

const PROJECT: &str = "/var/www/alice/shop";

const SETTINGS: &str = r#"
SECRET_KEY = 'not one'; ALLOWED_HOSTS = ['alice.test']; ROOT_URLCONF = 'urls'; USE_TZ = True
APPS = ['admin', 'auth', 'contenttypes', 'sessions', 'messages', 'staticfiles']
INSTALLED_APPS = ['django.contrib.' + name for name in APPS]
MIDDLEWARE = ['django.contrib.sessions.middleware.SessionMiddleware', 'django.middleware.csrf.CsrfViewMiddleware',
    'django.contrib.auth.middleware.AuthenticationMiddleware', 'django.contrib.messages.middleware.MessageMiddleware']
DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': '/var/www/alice/data/base'}}
TEMPLATES = [{'BACKEND': 'django.template.backends.django.DjangoTemplates', 'APP_DIRS': True, 'OPTIONS': {'context_processors': [
    'django.template.context_processors.request', 'django.contrib.auth.context_processors.auth',
    'django.contrib.messages.context_processors.messages']}}]
STATIC_URL = '/static/'; STATIC_ROOT = '/var/www/alice/static'; DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'
"#;

const URLS: &str = "from django.contrib import admin\nfrom django.urls import path\nurlpatterns = [path('admin/', admin.site.urls)]\n";

const SCRIPT: &str = "#!/usr/bin/python3\nimport os, sys\nfrom wsgiref.handlers import CGIHandler\n\
                      sys.path.insert(0, '/var/www/alice/shop'); os.environ['DJANGO_SETTINGS_MODULE'] = 'settings'\n\
                      from django.core.wsgi import get_wsgi_application\nCGIHandler().run(get_wsgi_application())\n";

fn furnish(_: &World, user: &User) {
    let program = user.docroot().join("app.cgi");
    fs::write(&program, SCRIPT).unwrap();
    mode(program, 0o755);
    for place in [PROJECT, "/var/www/alice/data", "/var/www/alice/static"] {
        fs::create_dir_all(place).unwrap();
    }
    let manage = "import os\nos.environ['DJANGO_SETTINGS_MODULE'] = 'settings'\n\
                  from django.core.management import execute_from_command_line as run\nimport sys\nrun(sys.argv)\n";
    for (name, text) in [("settings.py", SETTINGS), ("urls.py", URLS), ("manage.py", manage)] {
        fs::write(format!("{PROJECT}/{name}"), text).unwrap();
    }
}

/// A command of a deploy, in the site's cell.
fn manage(words: &[&str]) {
    let mut command = Command::new("/usr/bin/cellwall");
    command.args(["run", "alice", "--", "python3", "/var/www/alice/shop/manage.py"]).args(words);
    run(&mut command);
}

fn used(visitor: &mut Visitor<'_>) {
    manage(&["migrate", "--verbosity", "0"]);
    // What Debian's Django has for browsers are links into the packages of JavaScript.
    manage(&["collectstatic", "--no-input", "--verbosity", "0"]);
    let copied = fs::read_to_string("/var/www/alice/static/admin/js/vendor/jquery/jquery.js").unwrap();
    assert!(copied.contains("jQuery"), "{} bytes", copied.len());
    let person = "from django.contrib.auth.models import User; User.objects.create_superuser('virchow', 'v@example.net', 'e cellula')";
    manage(&["shell", "-c", person]);

    let form = visitor.page("/app.cgi/admin/login/?next=/app.cgi/admin/");
    let token = field(&form, "csrfmiddlewaretoken");
    let login = [
        ("csrfmiddlewaretoken", token.as_str()),
        ("username", "virchow"),
        ("password", "e cellula"),
        ("next", "/app.cgi/admin/"),
    ];
    let answer = visitor.form("/app.cgi/admin/login/", &login);
    assert_eq!(
        (answer.status, answer.header("Location")),
        (302, Some("/app.cgi/admin/")),
        "{}",
        answer.text()
    );
    let desk = visitor.page("/app.cgi/admin/");
    assert!(desk.contains("Site administration") && desk.contains("virchow"), "{desk}");
    let people = visitor.page("/app.cgi/admin/auth/user/");
    assert!(people.contains("v@example.net"), "{people}");
}

#[test]
fn django_is_deployed_and_used_as_cgi_and_behind_nginx() {
    both_ways(SITE, furnish, used);
}
