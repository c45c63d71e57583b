//! Cuts what a run prints into lines, for whoever shows them.

/// A line without end is given in parts.
const LONGEST: usize = 16 * 1024;

/// What was printed behind the last line end of one stream.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes what the stream gave next; gives each line that it ends, without LF or CRLF.
    pub fn take(&mut self, mut data: &[u8], mut give: impl FnMut(&[u8])) {
        while !data.is_empty() {
            let room = LONGEST - self.partial.len();
            let window = &data[..data.len().min(room)];
            let end = window.iter().position(|&byte| byte == b'\n');
            self.partial.extend(&window[..end.unwrap_or(window.len())]);
            data = &data[end.map_or(window.len(), |end| end + 1)..];
            if end.is_some() || self.partial.len() == LONGEST {
                self.give(&mut give);
            }
        }
    }

    /// Gives what is left without a line end.
    pub fn finish(&mut self, mut give: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            self.give(&mut give);
        }
    }

    fn give(&mut self, give: &mut impl FnMut(&[u8])) {
        give(self.partial.strip_suffix(b"\r").unwrap_or(&self.partial));
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&str]) -> Vec<String> {
        let (mut lines, mut given) = (Lines::default(), Vec::new());
        let mut give = |line: &[u8]| given.push(String::from_utf8(line.to_vec()).unwrap());
        for part in parts {
            lines.take(part.as_bytes(), &mut give);
        }
        lines.finish(&mut give);
        given
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(cut(&["a\nb", "c\r", "\n\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(cut(&["10 %\r20 %\r\n"]), ["10 %\r20 %"]);
        assert_eq!(cut(&["", "\n"]), [""]);
    }

    #[test]
    fn a_line_without_end_comes_in_parts() {
        let long = "x".repeat(2 * LONGEST + 1);
        let given = cut(&[&long]);
        assert_eq!(
            given.iter().map(String::len).collect::<Vec<_>>(),
            [LONGEST, LONGEST, 1]
        );
    }
}
