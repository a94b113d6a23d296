//! Lines of the log in both formats: one for each decision, and what is read back is what was written.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use cellwall::admin::journal::Entry;
use cellwall::policy::{Format, LogRules, Sink};
use cellwall::record::Log;
use cellwall::refusal::{Card, Refusal};

static CARD: Card = Card { code: "V118", status: 118, remedy: "chmod go-w {}" };

/// A refusal about any path, asked for in any words. The first byte chooses the format; zero bytes part the path and the
/// words. Root, because a log is root's.
pub(crate) fn lines(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let format = if choice % 2 == 0 { Format::Keys } else { Format::Suexec };
    let mut pieces = rest.split(|byte| *byte == 0);
    let path = pieces.next().unwrap_or_default();
    let words: Vec<&OsStr> = pieces.map(OsStr::from_bytes).collect();
    FILE.with(|file| {
        let file = &file.get_or_init(LogFile::new).0;
        fs::write(file, "").unwrap();
        let rules = LogRules { sink: Sink::File, file: file.as_bytes(), strict: true, format };
        let mut log = Log::open(Some(&rules));
        log.asked(33, &words);
        let refusal = Refusal::about(&CARD, path, "is writable by others (0777)");
        assert!(log.refused(&refusal), "the log of these tests is root's");
        let text = String::from_utf8(fs::read(file).unwrap()).unwrap();
        assert!(
            text.ends_with('\n') && text.bytes().all(|byte| matches!(byte, b'\n' | b' '..=b'~')),
            "{text:?}"
        );
        match format {
            Format::Keys => keys(&text, &log, &refusal),
            Format::Suexec => suexec(&text, &log),
        }
    });
}

thread_local! {
    static FILE: OnceCell<LogFile> = const { OnceCell::new() };
}

/// The log of one thread, which goes with it.
struct LogFile(String);

impl LogFile {
    fn new() -> Self {
        let place = std::env::temp_dir();
        let (process, thread) = (std::process::id(), std::thread::current().id());
        let name: String = format!("{thread:?}").chars().filter(char::is_ascii_digit).collect();
        Self(format!("{}/cellwall-fuzz-{process}-{name}.log", place.display()))
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn keys(text: &str, log: &Log<'_>, refusal: &Refusal) {
    let line = text.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "two lines: {text:?}");
    let entry = Entry::parse(line).unwrap();
    assert!(entry.refused);
    assert_eq!(entry.field("ref"), Some(log.reference()), "{line}");
    assert_eq!((entry.field("code"), entry.field("status")), (Some("V118"), Some("118")), "{line}");
    assert_eq!(line.matches('"').count() % 2, 0, "an open quote: {line}");
    let why = entry.field("why").unwrap();
    assert!(why.starts_with(&refusal.why[..refusal.why.len().min(60)]), "{line}");
    let fix = entry.field("fix").unwrap();
    assert!(fix == refusal.fix || fix == "cellwall explain V118", "half a remedy: {line}");
}

/// `[YYYY-MM-DD HH:MM:SS]: uid: (…) gid: (…) cmd: …`, then the reason with the reference.
fn suexec(text: &str, log: &Log<'_>) {
    let lines: Vec<&str> = text.lines().collect();
    let [asked, why] = lines.as_slice() else { panic!("{} lines: {text:?}", lines.len()) };
    for line in [asked, why] {
        let stamp = line.get(..23).unwrap_or_default();
        assert!(stamp.starts_with("[20") && stamp.ends_with("]: "), "{line}");
    }
    let asked = asked.get(23..).unwrap_or_default();
    assert!(
        asked.starts_with("uid: (") && asked.contains(") gid: (") && asked.contains(") cmd: "),
        "{asked}"
    );
    assert!(why.contains(log.reference()), "{why}");
}
