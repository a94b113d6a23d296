//! Reads what the probe printed.

/// The facts of one run of the probe.
#[derive(Debug)]
pub(crate) struct Report {
    lines: Vec<(String, String)>,
    text: String,
}

impl Report {
    pub(crate) fn parse(out: &[u8]) -> Self {
        let text = String::from_utf8_lossy(out).into_owned();
        let lines = text
            .lines()
            .map(|line| line.split_once(' ').unwrap_or((line, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { lines, text }
    }

    /// A fact that must be there.
    pub(crate) fn fact(&self, name: &str) -> &str {
        let found = self.lines.iter().find(|(own, _)| own == name);
        &found.unwrap_or_else(|| panic!("the probe did not tell {name}:\n{}", self.text)).1
    }

    /// All lines of one name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.lines.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a variable of the environment, if it is there.
    pub(crate) fn env(&self, name: &str) -> Option<&str> {
        self.all("env").into_iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }

    /// How an attempt went: `done` or the error's name.
    pub(crate) fn attempt(&self, name: &str) -> &str {
        let tries = self.all("try");
        let found = tries.into_iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("the probe did not try {name}:\n{}", self.text))
    }

    /// All of it, for a failed assertion.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}
