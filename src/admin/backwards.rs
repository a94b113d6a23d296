//! Lines of a text from its end, a block at a time: a log may be larger than the memory, and what is asked for is young.

use std::io::{self, Read, Seek, SeekFrom};

/// The lines of a file or a text, the last one first. What cannot be read ends them.
#[derive(Debug)]
pub(super) struct Backwards<R> {
    from: R,
    /// What lies before this place was not read yet.
    left: u64,
    /// From there on, up to the line that was given last, without its line end.
    held: Vec<u8>,
}

/// What is read at once.
const BLOCK: u64 = 1 << 16;

/// No line of ours is longer; of one that is, the beginning is kept.
const LONGEST: usize = 1 << 20;

impl<R: Read + Seek> Backwards<R> {
    /// From the end that it has now.
    ///
    /// # Errors
    /// It has no end that can be sought.
    pub(super) fn new(mut from: R) -> io::Result<Self> {
        let left = from.seek(SeekFrom::End(0))?;
        let mut lines = Self { from, left, held: Vec::new() };
        lines.more()?;
        if lines.held.last() == Some(&b'\n') {
            lines.held.pop();
        }
        Ok(lines)
    }

    /// Reads the block before what is held, and tells its size.
    fn more(&mut self) -> io::Result<usize> {
        let size = self.left.min(BLOCK);
        self.left = self.left.saturating_sub(size);
        self.from.seek(SeekFrom::Start(self.left))?;
        let mut block = Vec::new();
        self.from.by_ref().take(size).read_to_end(&mut block)?;
        let fresh = block.len();
        self.held.truncate(LONGEST);
        block.append(&mut self.held);
        self.held = block;
        Ok(fresh)
    }
}

impl<R: Read + Seek> Iterator for Backwards<R> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut fresh = self.held.len();
        loop {
            let new = self.held.get(..fresh).unwrap_or_default();
            if let Some(end) = new.iter().rposition(|byte| *byte == b'\n') {
                let line = self.held.split_off(end.saturating_add(1));
                self.held.pop();
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            if self.left == 0 {
                let line = std::mem::take(&mut self.held);
                return (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned());
            }
            fresh = self.more().ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn lines(text: &str) -> Vec<String> {
        Backwards::new(Cursor::new(text)).unwrap().collect()
    }

    fn edge() -> usize {
        usize::try_from(BLOCK).unwrap()
    }

    #[test]
    fn lines_come_from_the_end_whole_and_each_once() {
        for text in ["", "a", "a\n", "a\nb", "a\n\nb\n", "first line\nä\n"] {
            let forwards: Vec<&str> = text.lines().rev().collect();
            assert_eq!(lines(text), forwards, "{text:?}");
        }
        // Across blocks, and of every length beside their edges.
        let long: String = (0..3000_u32)
            .map(|number| "x".repeat(usize::try_from(1 + number % 97).unwrap()) + "\n")
            .collect();
        assert_eq!(lines(&long), long.lines().rev().collect::<Vec<_>>());
        for length in edge() - 2..edge() + 3 {
            let text = format!("before\n{}\nafter", "y".repeat(length));
            assert_eq!(lines(&text), text.lines().rev().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_text_without_lines_fills_no_memory() {
        let endless = "z".repeat(8 << 20);
        let [line] = &lines(&endless)[..] else { panic!("one line") };
        assert!(line.len() <= LONGEST + edge(), "{}", line.len());
    }
}
