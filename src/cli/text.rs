//! Text from outside on its way to a terminal: names and messages of others may carry control characters
//! that would move the cursor, change colours or turn the direction of writing.

/// The text with every character that a terminal would act upon replaced by `?`, and cut to `SHOWN_MAX`.
pub(crate) fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).map(|c| if acts(c) { '?' } else { c }).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Longest text of others that is shown, in characters: longer than any path; the rest is cut off.
const SHOWN_MAX: usize = 4_096;

/// Controls (C0, DEL, C1), marks and overrides of direction, line and paragraph separators.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// An error's words without the system's number of it, which tells people nothing.
pub(crate) fn without_number(text: &str) -> String {
    let start = text.find(" (os error ");
    let mut words = start.map_or(text, |start| &text[..start]).to_owned();
    let hints = [
        ("Too many open files", "; allow more with `ulimit -n`"),
        ("File too large", "; more than `ulimit -f` or the file system allows"),
    ];
    let hint = hints.iter().find(|(end, _)| words.ends_with(end));
    words.push_str(hint.map_or("", |(_, hint)| hint));
    words
}

/// `1 peer`, `2 peers`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_upon_gets_through() {
        assert_eq!(printable("a\x1b[31mb\n\u{202e}c\u{9b}"), "a?[31mb??c?");
        assert_eq!(printable("Grüße 漢字 🐟"), "Grüße 漢字 🐟");
        assert_eq!(without_number("Connection refused (os error 111)"), "Connection refused");
        assert_eq!(printable(&"x".repeat(10_000)).len(), SHOWN_MAX + 3);
    }
}
