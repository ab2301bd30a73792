//! Path elements from torrents made safe to create (BEP 3).
//!
//! An element of a path is bytes that anyone may have chosen. Whatever leads elsewhere, misleads or
//! cannot be created is replaced, and the caller tells the user what was changed. Characters that
//! scripts need (joiners, marks of direction without an override, soft hyphens) stay; printing them
//! safely is the printer's business. Invariant: an element that leaves here is not empty, `.` or
//! `..`, has at most [`ELEMENT_LEN_MAX`] bytes and contains no separator, no NUL, no control and no
//! character that overrides the direction of text. This module does not know folders, files or the
//! disk; [`super::names`] keeps paths apart.

/// Longest element, bytes: what Linux file systems take. Longer ones are shortened, keeping the
/// extension.
pub const ELEMENT_LEN_MAX: usize = 255;

/// Longest element that nearly every file system takes, bytes: those that encrypt names (eCryptfs)
/// take no more.
pub(super) const PORTABLE_LEN_MAX: usize = 143;

/// Room for the number of [`numbered`], bytes with its dot: any number of 32 bits.
const NUMBER_LEN_MAX: usize = 11;

/// What the name of a parts file ends with, after a dot and the infohash.
pub const PARTS_SUFFIX: &str = ".parts";

/// Longest ending, bytes with its dot, that counts as an extension worth keeping when a name is
/// shortened.
const EXTENSION_LEN_MAX: usize = 32;

/// What stands in the place of characters that are not let through.
const REPLACEMENT: char = '_';

/// Characters that some file systems drop from the end of a name.
pub(super) const DROPPED_ENDS: [char; 2] = ['.', ' '];

/// What a file is called whose path says nothing.
pub(super) const UNNAMED: &str = "_";

/// Returns the element, safe to create; None where it stands for nothing (empty or `.`).
pub(super) fn element(given: &[u8]) -> Option<String> {
    match given {
        b"" | b"." => return None,
        b".." => return Some(UNNAMED.to_owned()),
        _ => {}
    }
    let mut safe = String::with_capacity(given.len());
    for part in given.utf8_chunks() {
        safe.extend(part.valid().chars().map(|char| if is_let_through(char) { char } else { REPLACEMENT }));
        safe.extend(part.invalid().iter().map(|_| REPLACEMENT));
    }
    Some(shortened(safe, ELEMENT_LEN_MAX))
}

/// Returns the torrent's name, safe to create in the download folder; None where it says nothing. A
/// name that some file system takes for that of a parts file, which belongs to another torrent,
/// gets another first character.
pub(super) fn root(given: &[u8]) -> Option<String> {
    let name = element(given).filter(|_| given != b"..")?;
    let mut rest = name.chars();
    rest.next()
        .filter(|_| is_parts_file(&name))
        .map(|_| format!("{REPLACEMENT}{}", rest.as_str()))
        .or(Some(name))
}

/// Whether some file system takes the name for `.<infohash>.parts`: case, ends that are dropped and
/// characters that are ignored make no difference.
fn is_parts_file(name: &str) -> bool {
    let folded = folded(name);
    let folded = folded.trim_end_matches(DROPPED_ENDS);
    let infohash = folded.strip_prefix('.').and_then(|name| name.strip_suffix(PARTS_SUFFIX));
    infohash.is_some_and(|hex| hex.len() == 40 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Returns the text as file systems compare it that fold case and ignore invisible characters.
pub(super) fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let seen = text.chars().filter(|&char| !is_ignorable(char));
    seen.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Returns the element as it was called before characters that scripts need were kept; None: the
/// same.
pub(super) fn former(element: &str) -> Option<String> {
    let former = |char| if was_replaced(char) { REPLACEMENT } else { char };
    element.contains(was_replaced).then(|| element.chars().map(former).collect())
}

/// Returns the element as nearly every file system takes it: without the characters, endings and
/// device names that Windows reserves, and at most [`PORTABLE_LEN_MAX`] bytes long.
pub(super) fn portable(element: &str) -> String {
    let mut safe: String = element
        .chars()
        .map(|char| if matches!(char, '<' | '>' | ':' | '"' | '|' | '?' | '*') { REPLACEMENT } else { char })
        .collect();
    if is_reserved(&safe) {
        safe.insert(0, REPLACEMENT);
    }
    let mut safe = shortened(safe, PORTABLE_LEN_MAX);
    if safe.ends_with(DROPPED_ENDS) {
        safe.pop();
        safe.push(REPLACEMENT);
    }
    safe
}

/// Returns the portable element without characters beyond ASCII.
pub(super) fn ascii(element: &str) -> String {
    let ascii: String =
        element.chars().map(|char| if char.is_ascii() { char } else { REPLACEMENT }).collect();
    portable(&ascii)
}

/// Returns the element with a number before its extension, at most `len_max` bytes long. The room
/// for the number does not depend on it, so that of two names that differ only in the number the
/// rest is the same.
pub(super) fn numbered(element: &str, number: usize, len_max: usize) -> String {
    let (stem, extension) = element.split_at(extension_at(element));
    let stem = &stem[..stem.floor_char_boundary(len_max - NUMBER_LEN_MAX - extension.len())];
    format!("{stem}.{number}{extension}")
}

/// A name or path as given for an error's one line: nothing that a terminal would obey, and not
/// endless.
pub(super) fn printable(given: &str) -> String {
    let shown =
        |char: char| if char == '/' || char == '\\' || is_let_through(char) { char } else { REPLACEMENT };
    given.chars().take(ELEMENT_LEN_MAX).map(shown).collect()
}

/// Whether a character may stay: no separator, no control, no line separator, and none that
/// overrides the direction of text, as with these `exe.txt` can end in `.exe`.
fn is_let_through(char: char) -> bool {
    let misleads = matches!(char,
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}');
    !(matches!(char, '/' | '\\') || char.is_control() || misleads)
}

/// Whether earlier versions replaced a character that is let through now: they let no invisible one
/// through.
fn was_replaced(char: char) -> bool {
    matches!(char,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2065}'
        | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether some file systems ignore the character where they compare names.
fn is_ignorable(char: char) -> bool {
    was_replaced(char) || matches!(char, '\u{fe00}'..='\u{fe0f}' | '\u{34f}')
}

/// At most `len_max` bytes, cut before the extension and between characters.
fn shortened(mut name: String, len_max: usize) -> String {
    if name.len() <= len_max {
        return name;
    }
    let extension = name.split_off(extension_at(&name));
    name.truncate(name.floor_char_boundary(len_max - extension.len()));
    name + &extension
}

/// Where the extension begins, its dot included; the end if there is none worth keeping.
fn extension_at(name: &str) -> usize {
    name.rfind('.').filter(|&dot| name.len() - dot <= EXTENSION_LEN_MAX).unwrap_or(name.len())
}

/// Whether Windows takes the name for a device, whatever its extension.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let is_port = |device: &str| {
        stem.strip_prefix(device).is_some_and(|number| matches!(number.as_bytes(), [b'1'..=b'9']))
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || is_port("COM") || is_port("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe(given: &[u8]) -> String {
        element(given).unwrap()
    }

    #[test]
    fn elements_that_lead_elsewhere_lead_nowhere() {
        for (given, used) in [
            (&b".."[..], "_"),
            (b"/etc/passwd", "_etc_passwd"),
            (b"//foo", "__foo"),
            (b"\\/\\/bar", "____bar"),
            (b"\\\\server\\share", "__server_share"),
            (b"C:\\Windows", "C:_Windows"),
            (b"/", "_"),
        ] {
            assert_eq!(safe(given), used);
        }
    }

    #[test]
    fn what_stands_for_nothing_is_dropped() {
        assert_eq!((element(b""), element(b".")), (None, None));
        assert_eq!((root(b""), root(b"."), root(b"..")), (None, None, None));
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["a.txt", "...", ".hidden", "C:", "日本語", "naïve (1) [x].mkv", "aux", " x "] {
            assert_eq!(safe(name.as_bytes()), name);
        }
    }

    #[test]
    fn characters_that_scripts_need_stay() {
        for name in [
            "👩\u{200d}👧.png",
            "می\u{200c}خواهم",
            "co\u{ad}operate",
            "\u{feff}bom",
            "a\u{200e}b\u{200f}c\u{61c}",
            "ไทย\u{200b}",
            "ᠮᠣᠩᠭᠣᠯ\u{180e}ᠠ",
            "🏴\u{e0067}\u{e007f}",
            "x\u{2060}\u{2062}y\u{fe0f}",
        ] {
            assert_eq!(safe(name.as_bytes()), name);
        }
        assert_eq!(former("می\u{200c}خواهم").as_deref(), Some("می_خواهم"));
        assert_eq!(former("a\u{fe0f}b"), None);
    }

    #[test]
    fn characters_that_mislead_are_replaced() {
        assert_eq!(safe(b"a/../b\\c\0d\ne"), "a_.._b_c_d_e");
        assert_eq!(safe("photo\u{202e}gpj.exe".as_bytes()), "photo_gpj.exe");
        assert_eq!(safe("a\u{9b}b\u{2028}c\u{2066}d\u{7f}".as_bytes()), "a_b_c_d_");
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
    fn a_number_stands_before_the_extension_and_takes_its_room_from_the_rest() {
        let numbered = |name: &str| numbered(name, 12, ELEMENT_LEN_MAX);
        for (name, expected) in
            [("a.txt", "a.12.txt"), ("a", "a.12"), (".hidden", ".12.hidden"), ("a.", "a.12.")]
        {
            assert_eq!(numbered(name), expected);
        }
        let long = numbered(&format!("{}.tar", "ä".repeat(125)));
        assert!(long.len() <= 255 && long.ends_with("ä.12.tar"), "{long}");
    }

    #[test]
    fn another_torrents_parts_file_is_no_name() {
        let parts = format!(".{}.parts", "ab".repeat(20));
        let same = [
            parts.clone(),
            parts.to_uppercase(),
            format!("{parts}."),
            format!("{parts} . "),
            parts.clone() + &".".repeat(ELEMENT_LEN_MAX - parts.len()),
            parts.replace("parts", "part\u{17f}"),
            parts.replace("parts", "par\u{200d}ts\u{feff}"),
        ];
        for name in same {
            assert_eq!(root(name.as_bytes()), Some(format!("_{}", &name[1..])));
        }
        for name in [".parts", ".x.parts", &parts[1..], &format!("{parts}.x")] {
            assert_eq!(root(name.as_bytes()).as_deref(), Some(name));
        }
    }

    #[test]
    fn portable_names_avoid_what_file_systems_refuse() {
        for (name, expected) in [
            ("aux", "_aux"),
            ("NUL.txt", "_NUL.txt"),
            ("com7", "_com7"),
            ("com", "com"),
            ("a:b?. ", "a_b_._"),
            ("...", ".._"),
            ("日本: 1", "日本_ 1"),
        ] {
            assert_eq!(portable(name), expected);
        }
        let long = portable(&format!("{}.mkv", "a. ".repeat(80)));
        assert!(long.len() == PORTABLE_LEN_MAX && long.ends_with(".mkv"), "{long}");
        assert!(portable(&"a. ".repeat(80)).ends_with('_'));
        assert_eq!(ascii("日本:.txt"), "___.txt");
    }
}
