//! Names from strangers made safe to create (BEP 3).
//!
//! An element of a path is bytes that anyone may have chosen. What points elsewhere is refused; what only
//! misleads or cannot be created is replaced, and the caller tells the user what was changed. Invariant: an
//! element that leaves here is not empty, `.` or `..`, has at most [`ELEMENT_LEN_MAX`] bytes and contains no
//! separator, no NUL and no invisible character. This module does not know folders, files or the disk.

/// Longest element, bytes: what Linux file systems take. Longer ones are shortened, keeping the extension.
pub const ELEMENT_LEN_MAX: usize = 255;

/// Longest ending, bytes with its dot, that counts as an extension worth keeping when a name is shortened.
const EXTENSION_LEN_MAX: usize = 32;

/// What stands in the place of characters that are not let through.
const REPLACEMENT: char = '_';

/// Why an element is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsafe {
    /// `..`
    Parent,
    /// It starts at a root: `/etc`, `\\server`, `C:\`.
    Absolute,
}

/// The element, safe to create; None where it stands for nothing (empty or `.`). `first` is whether the path
/// begins here, where an absolute path would show.
pub(super) fn element(given: &[u8], first: bool) -> Result<Option<String>, Unsafe> {
    match given {
        b"" | b"." => return Ok(None),
        b".." => return Err(Unsafe::Parent),
        _ if first && is_absolute(given) => return Err(Unsafe::Absolute),
        _ => {}
    }
    let mut safe = String::with_capacity(given.len());
    for part in given.utf8_chunks() {
        safe.extend(part.valid().chars().map(|char| if is_let_through(char) { char } else { REPLACEMENT }));
        safe.extend(part.invalid().iter().map(|_| REPLACEMENT));
    }
    if cfg!(windows) {
        safe = creatable_on_windows(&safe);
    }
    Ok(Some(shortened(safe)))
}

/// A name or path as given for an error's one line: nothing that a terminal would obey, and not endless.
pub(super) fn printable(given: &str) -> String {
    let shown =
        |char: char| if char == '/' || char == '\\' || is_let_through(char) { char } else { REPLACEMENT };
    given.chars().take(ELEMENT_LEN_MAX).map(shown).collect()
}

fn is_absolute(given: &[u8]) -> bool {
    let is_separator = |byte: u8| byte == b'/' || byte == b'\\';
    match given {
        [first, ..] if is_separator(*first) => true,
        [drive, b':', third, ..] => drive.is_ascii_alphabetic() && is_separator(*third),
        _ => false,
    }
}

/// Whether a character may stay: no separator, no control, none that turns the direction of the text or is not
/// seen at all, as with these `exe.txt` can end in `.exe`.
fn is_let_through(char: char) -> bool {
    let unseen = matches!(char,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !(matches!(char, '/' | '\\') || char.is_control() || unseen)
}

/// At most [`ELEMENT_LEN_MAX`] bytes, cut before the extension and between characters.
fn shortened(mut name: String) -> String {
    if name.len() <= ELEMENT_LEN_MAX {
        return name;
    }
    let extension_at =
        name.rfind('.').filter(|&dot| name.len() - dot <= EXTENSION_LEN_MAX).unwrap_or(name.len());
    let extension = name.split_off(extension_at);
    name.truncate(name.floor_char_boundary(ELEMENT_LEN_MAX - extension.len()));
    name + &extension
}

/// The name as Windows would keep it apart from devices and streams, and without the ends that it drops.
fn creatable_on_windows(name: &str) -> String {
    let mut safe: String = name
        .chars()
        .map(|char| if matches!(char, '<' | '>' | ':' | '"' | '|' | '?' | '*') { REPLACEMENT } else { char })
        .collect();
    if safe.ends_with([' ', '.']) {
        safe.pop();
        safe.push(REPLACEMENT);
    }
    let stem = safe.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |device: &str| {
        stem.strip_prefix(device).is_some_and(|number| matches!(number.as_bytes(), [b'1'..=b'9']))
    };
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT") {
        safe.insert(0, REPLACEMENT);
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe(given: &[u8]) -> String {
        element(given, true).unwrap().unwrap()
    }

    #[test]
    fn what_points_elsewhere_is_refused() {
        assert_eq!(element(b"..", false), Err(Unsafe::Parent));
        for absolute in [&b"/etc/passwd"[..], b"\\\\server\\share", b"C:\\Windows", b"c:/x", b"/"] {
            assert_eq!(element(absolute, true), Err(Unsafe::Absolute), "{absolute:?}");
        }
        assert_eq!(element(b"/etc", false), Ok(Some("_etc".into())));
    }

    #[test]
    fn what_stands_for_nothing_is_dropped() {
        assert_eq!((element(b"", true), element(b".", true)), (Ok(None), Ok(None)));
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["a.txt", "...", ".hidden", "C:", "日本語", "naïve (1) [x].mkv", "aux", " x "] {
            assert_eq!(safe(name.as_bytes()), name);
        }
    }

    #[test]
    fn characters_that_mislead_are_replaced() {
        assert_eq!(safe(b"a/../b\\c\0d\ne"), "a_.._b_c_d_e");
        assert_eq!(safe("photo\u{202e}gpj.exe".as_bytes()), "photo_gpj.exe");
        assert_eq!(safe(".\u{200b}.".as_bytes()), "._.");
        assert_eq!(safe(b"caf\xe9 \xff\xfe.txt"), "caf_ __.txt");
    }

    #[test]
    fn long_names_keep_their_extension() {
        let long = safe(format!("{}.tar", "ä".repeat(200)).as_bytes());
        assert_eq!((long.len(), long.ends_with("ä.tar")), (254, true));
        assert_eq!(safe("x".repeat(300).as_bytes()), "x".repeat(255));
        assert_eq!(safe(format!(".{}", "x".repeat(300)).as_bytes()).len(), 255);
        assert_eq!(safe("x".repeat(255).as_bytes()).len(), 255);
    }

    #[test]
    fn windows_devices_get_another_name() {
        assert_eq!(creatable_on_windows("aux"), "_aux");
        assert_eq!(creatable_on_windows("NUL.txt"), "_NUL.txt");
        assert_eq!(creatable_on_windows("com7"), "_com7");
        assert_eq!(creatable_on_windows("com"), "com");
        assert_eq!(creatable_on_windows("a:b?. "), "a_b_._");
    }
}
