//! What kept a command from its work, as one object of JSON: a panel that asked for `--json` reads no prose.
//!
//! Pure.

use super::json::Json;
use super::mend;

/// The object: `notes` are what people are told, in order; `words` are the command line.
#[must_use]
pub(super) fn object(status: u8, notes: &[String], words: &[String]) -> Json {
    let mut message = None;
    let (mut evidence, mut remedies) = (Vec::new(), Vec::new());
    for line in notes.iter().flat_map(|note| note.lines()).map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(text) = after(line, &["error: "]).filter(|_| message.is_none()) {
            message = Some(text.to_owned());
        } else if let Some(text) = after(line, &["help: ", "repair: "]) {
            remedies.push(remedy(text, line.starts_with("repair"), words));
        } else {
            evidence.push(after(line, &["error: ", "found: ", "note: "]).unwrap_or(line).to_owned());
        }
    }
    let message =
        message.unwrap_or_else(|| if evidence.is_empty() { String::new() } else { evidence.remove(0) });
    let code = code(&message).unwrap_or(match status {
        1 => "asked",
        2 => "usage",
        _ => "failed",
    });
    Json::object([
        ("ok", Json::Bool(false)),
        ("code", Json::text(code)),
        ("message", Json::text(&message)),
        ("evidence", Json::texts(evidence)),
        ("remedy", if remedies.is_empty() { Json::Null } else { Json::text(remedies.join("\n")) }),
    ])
}

fn after<'t>(line: &'t str, labels: &[&str]) -> Option<&'t str> {
    labels.iter().find_map(|label| line.strip_prefix(label))
}

/// What can be pasted: a command; what only a person can do is a comment.
fn remedy(text: &str, is_command: bool, words: &[String]) -> String {
    if text == SUDO {
        let words: Vec<_> = words.iter().map(mend::word).collect();
        return format!("sudo {}", words.join(" "));
    }
    match text.strip_prefix("run: ") {
        Some(command) => command.to_owned(),
        None if is_command || text.starts_with("# ") => text.to_owned(),
        None => format!("# {text}"),
    }
}

/// What every command says to whoever is not root.
const SUDO: &str = "run it again with sudo";

/// The code of a refusal, which stands in brackets behind its sentence.
fn code(message: &str) -> Option<&str> {
    let code = message.strip_suffix(')')?.rsplit_once('(')?.1;
    let mut letters = code.chars();
    let shaped = letters.next()?.is_ascii_uppercase() && letters.all(|digit| digit.is_ascii_digit());
    (shaped && (3..=4).contains(&code.len())).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u8, notes: &[&str]) -> String {
        let notes: Vec<_> = notes.iter().map(|note| (*note).to_owned()).collect();
        object(status, &notes, &["cellwall".to_owned(), "why".to_owned(), "a b".to_owned()]).to_string()
    }

    #[test]
    fn a_panel_gets_the_message_the_evidence_and_a_remedy_that_can_be_pasted() {
        assert_eq!(
            told(3, &["error: only root can read the records\n  help: run it again with sudo"]),
            r#"{"ok":false,"code":"failed","message":"only root can read the records","evidence":[],"remedy":"sudo cellwall why 'a b'"}"#
        );
        assert_eq!(
            told(
                1,
                &[
                    "error: nothing\n  note: looked at x",
                    "  found: /a is gone\n  repair: mkdir /a",
                    "  help: run: b"
                ]
            ),
            r#"{"ok":false,"code":"asked","message":"nothing","evidence":["looked at x","/a is gone"],"remedy":"mkdir /a\nb"}"#
        );
    }

    #[test]
    fn what_only_a_person_can_do_is_a_comment_and_a_refusals_code_stays() {
        let text = told(1, &["error: no such place (V117)\n  help: did you mean `rose`?"]);
        assert_eq!(
            text,
            r##"{"ok":false,"code":"V117","message":"no such place (V117)","evidence":[],"remedy":"# did you mean `rose`?"}"##
        );
        let plain = told(2, &["error: odd (its file)"]);
        assert!(plain.contains(r#""code":"usage""#) && plain.contains(r#""remedy":null"#), "{plain}");
    }
}
