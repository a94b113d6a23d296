//! What `nginx -T` prints: which docroots nginx sends to which FastCGI socket, and with which variables of its own.
//!
//! It prints each file by itself, so includes are followed here. Variables are not filled in but `$document_root`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::ground::matches;

use super::web::Served;

/// A directive, with its block.
#[derive(Debug, Clone, Default)]
struct Line {
    words: Vec<String>,
    place: (String, usize),
    block: Vec<Line>,
}

/// What a block has of those around it.
#[derive(Debug, Clone, Default)]
struct Around {
    names: Vec<String>,
    root: Option<String>,
    /// The first words of `fastcgi_param SCRIPT_FILENAME`, and all other variables with their places.
    variables: Vec<(String, String, String)>,
}

/// Pure: every `fastcgi_pass` of a configuration.
pub(super) fn served(printed: &str) -> Vec<Served> {
    let (files, main) = files(printed);
    let mut all = whole(files.get(&main).cloned().unwrap_or_default(), &files, &main, DEEPEST);
    // Named groups of servers stand beside the hosts, before or after them.
    let mut groups = BTreeMap::new();
    each(&all, &mut |line| {
        if let [kind, name] = line.words.as_slice()
            && kind == "upstream"
        {
            let servers = line
                .block
                .iter()
                .filter(|one| word(one, 0) == "server")
                .map(|one| (word(one, 1).to_owned(), one.place.0.clone()));
            groups.insert(name.clone(), servers.collect::<Vec<_>>());
        }
    });
    let mut found = Vec::new();
    all.iter_mut().for_each(|line| walk(&line.block, &Around::default(), &groups, &mut found));
    found
}

fn walk(
    block: &[Line],
    around: &Around,
    groups: &BTreeMap<String, Vec<(String, String)>>,
    found: &mut Vec<Served>,
) {
    let mut here = around.clone();
    let mut own = Vec::new();
    for line in block {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["root" | "alias", path] => here.root = Some((*path).to_owned()),
            ["server_name", names @ ..] => here.names = names.iter().map(|name| (*name).to_owned()).collect(),
            ["fastcgi_param", name, value, ..] => {
                own.push(((*name).to_owned(), (*value).to_owned(), place(line)));
            }
            _ => {}
        }
    }
    // A block that has some of its own has none of those around it.
    if !own.is_empty() {
        here.variables = own;
    }
    for line in block {
        if word(line, 0) == "fastcgi_pass" {
            let target = word(line, 1);
            let direct = vec![(target.to_owned(), line.place.0.clone())];
            for (socket, file) in groups.get(target).unwrap_or(&direct) {
                found.push(here.served(socket, file, place(line)));
            }
        }
        walk(&line.block, &here, groups, found);
    }
}

impl Around {
    fn served(&self, socket: &str, file: &str, place: String) -> Served {
        let script =
            self.variables.iter().find(|(name, ..)| name == "SCRIPT_FILENAME").map(|(_, value, _)| value);
        let rest = script.and_then(|text| {
            text.strip_suffix("$fastcgi_script_name").or_else(|| text.strip_suffix("${fastcgi_script_name}"))
        });
        let written = match rest {
            Some("$document_root" | "${document_root}" | "$realpath_root" | "$request_filename") | None => {
                self.root.clone()
            }
            Some(other) => Some(other.to_owned()),
        };
        let root = written.as_ref().filter(|root| root.starts_with('/') && !root.contains('$')).cloned();
        let filled = |value: &str| {
            let root = root.as_deref().unwrap_or("$document_root");
            value
                .replace("${document_root}", root)
                .replace("$document_root", root)
                .replace("$realpath_root", root)
        };
        Served {
            socket: socket.to_owned(),
            variables: self
                .variables
                .iter()
                .filter(|(name, ..)| name != "SCRIPT_FILENAME")
                .map(|(name, value, place)| (name.clone(), filled(value), place.clone()))
                .collect(),
            names: self.names.clone(),
            unknown: written.filter(|_| root.is_none()),
            root,
            file: file.to_owned(),
            place,
            nginx: true,
        }
    }
}

fn word(line: &Line, number: usize) -> &str {
    line.words.get(number).map_or("", String::as_str)
}

fn place(line: &Line) -> String {
    format!("{}:{}", line.place.0, line.place.1)
}

fn each(lines: &[Line], look: &mut impl FnMut(&Line)) {
    for line in lines {
        look(line);
        each(&line.block, look);
    }
}

/// The files by their names, and the name of the first.
fn files(printed: &str) -> (BTreeMap<String, Vec<Line>>, String) {
    let (mut files, mut main) = (BTreeMap::new(), String::new());
    for part in printed.split("# configuration file ").skip(1) {
        let (name, text) = part.split_once(":\n").unwrap_or((part, ""));
        if main.is_empty() {
            name.clone_into(&mut main);
        }
        let mut letters = Letters { text: text.chars().peekable(), line: 1 };
        files.entry(name.to_owned()).or_insert_with(|| letters.block(name, DEEPEST));
    }
    (files, main)
}

/// With the lines of included files in their places.
fn whole(lines: Vec<Line>, files: &BTreeMap<String, Vec<Line>>, main: &str, deep: u32) -> Vec<Line> {
    let Some(deep) = deep.checked_sub(1) else { return Vec::new() };
    let mut out = Vec::new();
    for mut line in lines {
        if word(&line, 0) == "include" {
            let above = Path::new(main).parent().unwrap_or(Path::new("/"));
            let pattern = above.join(word(&line, 1)).to_string_lossy().into_owned();
            let named = files.iter().filter(|(name, _)| alike(&pattern, name));
            out.extend(named.flat_map(|(_, lines)| whole(lines.clone(), files, main, deep)));
            continue;
        }
        line.block = whole(line.block, files, main, deep);
        out.push(line);
    }
    out
}

/// By components: `*` stands for no slash.
fn alike(pattern: &str, name: &str) -> bool {
    pattern.split('/').count() == name.split('/').count()
        && pattern.split('/').zip(name.split('/')).all(|(pattern, name)| matches(pattern, name))
}

/// A file that is read.
struct Letters<'t> {
    text: std::iter::Peekable<std::str::Chars<'t>>,
    line: usize,
}

impl Letters<'_> {
    fn next(&mut self) -> Option<char> {
        let letter = self.text.next();
        self.line += usize::from(letter == Some('\n'));
        letter
    }

    /// Until its `}`, or the end.
    fn block(&mut self, file: &str, deep: u32) -> Vec<Line> {
        let mut all = Vec::new();
        let mut line = Line::default();
        let Some(deep) = deep.checked_sub(1) else { return all };
        while let Some(letter) = self.next() {
            match letter {
                '#' => while self.text.next_if(|letter| *letter != '\n').is_some() {},
                ';' => all.push(std::mem::take(&mut line)),
                '{' => {
                    line.block = self.block(file, deep);
                    all.push(std::mem::take(&mut line));
                }
                '}' => return all,
                letter if letter.is_whitespace() => {}
                first => {
                    if line.words.is_empty() {
                        line.place = (file.to_owned(), self.line);
                    }
                    let word = self.word(first);
                    line.words.push(word);
                }
            }
        }
        all
    }

    fn word(&mut self, first: char) -> String {
        let quote = Some(first).filter(|first| matches!(first, '"' | '\''));
        let mut word = if quote.is_some() { String::new() } else { first.to_string() };
        let ends = |letter: char, word: &str| match quote {
            Some(_) => false,
            None => letter.is_whitespace() || letter == ';' || letter == '{' && !word.ends_with('$'),
        };
        while let Some(letter) = self.text.peek().copied() {
            if ends(letter, &word) {
                break;
            }
            self.next();
            match (letter, self.text.peek().copied()) {
                (letter, _) if Some(letter) == quote => break,
                ('\\', Some('n')) => {
                    self.next();
                    word.push('\n');
                }
                ('\\', Some(next @ ('"' | '\'' | '\\'))) => {
                    self.next();
                    word.push(next);
                }
                _ => word.push(letter),
            }
        }
        word
    }
}

/// Blocks in one another, and files that include one another.
const DEEPEST: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_socket_has_its_docroot_whatever_stands_in_which_file() {
        let printed = "nginx: ok\n# configuration file /etc/nginx/nginx.conf:\nhttp {\n  upstream shops { server unix:/run/php/b.sock; }\n\
            include sites-enabled/*;\n}\n\n# configuration file /etc/nginx/sites-enabled/a:\nserver { # }\n\
            server_name a.test \"b c\"; root /srv/a;\n location ~ \\.php$ { include snippets/f.conf; fastcgi_pass unix:/run/php/a.sock; }\n\
            location /x { root /srv/x; location ~ \"\\.php{1}\" { fastcgi_pass shops; } } }\n\
            server { root /srv/$host; fastcgi_pass 127.0.0.1:9000; }\n\
            # configuration file /etc/nginx/snippets/f.conf:\nfastcgi_param SCRIPT_FILENAME /srv/c/public$fastcgi_script_name;\n\
            fastcgi_param PHP_VALUE \"a=1\\nb=$document_root\";\n";
        let all = served(printed);
        let short: Vec<(&str, Option<&str>, &str)> =
            all.iter().map(|one| (one.socket.as_str(), one.root.as_deref(), one.place.as_str())).collect();
        assert_eq!(
            short,
            [
                ("unix:/run/php/a.sock", Some("/srv/c/public"), "/etc/nginx/sites-enabled/a:3"),
                ("unix:/run/php/b.sock", Some("/srv/x"), "/etc/nginx/sites-enabled/a:4"),
                ("127.0.0.1:9000", None, "/etc/nginx/sites-enabled/a:5"),
            ]
        );
        assert_eq!(all[0].names, ["a.test", "b c"]);
        assert_eq!(all[0].variables[0].1, "a=1\nb=/srv/c/public");
        assert_eq!(
            (all[1].file.as_str(), all[2].unknown.as_deref()),
            ("/etc/nginx/nginx.conf", Some("/srv/$host"))
        );
    }
}
