//! Text from outside on its way to a terminal or into JSON: names and messages of others may carry
//! characters that move the cursor, change colours, turn the direction of writing, or are not seen
//! at all. They are shown as `\u{..}`.
//!
//! The one place where text is made harmless: [`printable`] for each name and message, on one line;
//! [`harmless`] for all that `report` prints, whatever it is made of; [`json`] for objects.

use std::borrow::Cow;

use serde_json::Value;

/// The text on one line, cut to `SHOWN_MAX`, with every character escaped that a terminal acts upon
/// or that is not visible.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = escaped(text, acts).into_owned();
    if shown.len() > SHOWN_MAX {
        shown.truncate(shown.floor_char_boundary(SHOWN_MAX));
        shown.push_str("...");
    }
    shown
}

/// The text with the same characters escaped, but for the ends of its lines and tabulators.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    escaped(text, |char| !matches!(char, '\n' | '\t') && acts(char))
}

/// The value as one line of JSON, with the same characters escaped as JSON does it.
pub(crate) fn json(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(acts) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if acts(char) {
            // Such a character occurs only within strings, where `\u` escapes it; serde_json leaves
            // it unescaped, so no backslash comes before it.
            for unit in char.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            escaped.push(char);
        }
    }
    escaped
}

/// Longest text of others that is shown, in bytes: as long as any path; the rest is cut off.
const SHOWN_MAX: usize = 4_096;

fn escaped(text: &str, acts: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if acts(char) {
            shown.extend(char.escape_unicode());
        } else {
            shown.push(char);
        }
    }
    Cow::Owned(shown)
}

/// Controls (C0, DEL, C1), marks and overrides of direction, separators of lines, and what has no
/// width.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// The first `shown_max` of a list in words, separated by commas; further ones are counted.
pub(crate) fn listed<T>(items: &[T], shown_max: usize, word: impl Fn(&T) -> String) -> String {
    let words: Vec<String> = items.iter().take(shown_max).map(word).collect();
    match items.len() - words.len() {
        0 => words.join(", "),
        more => format!("{} and {more} more", words.join(", ")),
    }
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
        assert_eq!(printable("a\x1b[31mb\n\u{202e}c\u{9b}"), "a\\u{1b}[31mb\\u{a}\\u{202e}c\\u{9b}");
        assert_eq!(printable("\u{61c}\u{200b}\u{200d}\u{ad}\u{7f}\u{e0067}").matches("\\u{").count(), 6);
        assert_eq!(printable("Grüße 漢字 🐟 ❤\u{fe0f} e\u{301}"), "Grüße 漢字 🐟 ❤\u{fe0f} e\u{301}");
        assert_eq!(without_number("Connection refused (os error 111)"), "Connection refused");
        assert_eq!(printable(&"x".repeat(10_000)).len(), SHOWN_MAX + 3);
        assert_eq!(harmless("two\nli\tnes\u{9b}\r"), "two\nli\tnes\\u{9b}\\u{d}");
    }

    #[test]
    fn a_list_names_the_first_and_counts_the_rest() {
        let list = |items: &[u32]| listed(items, 2, u32::to_string);
        assert_eq!(
            (list(&[]), list(&[1]), list(&[1, 2])),
            (String::new(), "1".to_owned(), "1, 2".to_owned())
        );
        assert_eq!(list(&[1, 2, 3, 4]), "1, 2 and 2 more");
    }

    #[test]
    fn json_carries_everything_and_shows_nothing_raw() {
        let text = "\u{7f}\u{9b}\u{61c}\u{200d}\u{e0067}\u{202e}\n\"\\é";
        let printed = json(&serde_json::json!({ text: text }));
        assert!(!printed.contains(acts), "{printed}");
        assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), serde_json::json!({ text: text }));
    }
}
