//! Which files of a torrent are wanted: numbers, ranges of numbers, paths and patterns; or paths as
//! they are.

use crate::engine::File;

/// One part of `--select`, or one `--select-name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    /// Files by number, from 0, both ends included.
    Numbers(usize, usize),
    /// Files whose path, or a folder above them, fits; `*` is any text, `?` any character.
    Pattern(String),
    /// The file or folder with exactly this path, with or without the torrent's own folder in
    /// front.
    Name(String),
}

/// A path as it is: no number, no pattern, and its commas and spaces are a part of it.
pub(crate) fn parse_name(text: &str) -> Result<Selector, String> {
    let path = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
    if path.is_empty() { Err("it names no file".to_owned()) } else { Ok(Selector::Name(path.to_owned())) }
}

/// `3`, `2-4`, `5-`, or a pattern.
pub(crate) fn parse_selector(text: &str) -> Result<Selector, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it names no file".to_owned());
    }
    let range = match text.split_once('-') {
        Some((first, "")) => first.parse().ok().map(|first| (first, usize::MAX)),
        Some((first, last)) => first.parse().ok().zip(last.parse().ok()),
        None => text.parse().ok().map(|number| (number, number)),
    };
    match range {
        Some((first, last)) if first > last => Err(format!("{first} is after {last}")),
        Some((first, last)) => Ok(Selector::Numbers(first, last)),
        None => Ok(Selector::Pattern(text.trim_end_matches('/').to_owned())),
    }
}

/// For each file whether it is wanted; the first selector that fits nothing is the error.
pub(crate) fn select<'a>(files: &[File], selectors: &'a [Selector]) -> Result<Vec<bool>, &'a Selector> {
    let mut selected = vec![false; files.len()];
    for selector in selectors {
        let mut fits_any = false;
        for (number, file) in files.iter().enumerate() {
            if !file.attributes.pad && selector.fits(number, &file.path) {
                selected[number] = true;
                fits_any = true;
            }
        }
        if !fits_any {
            return Err(selector);
        }
    }
    Ok(selected)
}

impl Selector {
    fn fits(&self, number: usize, path: &[String]) -> bool {
        match self {
            Self::Numbers(first, last) => (*first..=*last).contains(&number),
            Self::Pattern(pattern) => {
                ancestors(path).chain(path.last().cloned()).any(|text| matches(pattern, &text))
            }
            Self::Name(name) => ancestors(path).any(|text| text == *name),
        }
    }
}

/// The path and the folders above it, with and without the torrent's own folder in front.
fn ancestors(path: &[String]) -> impl Iterator<Item = String> {
    let starts = [path, path.get(1..).unwrap_or_default()];
    starts.into_iter().flat_map(|path| (1..=path.len()).map(|end| path[..end].join("/")))
}

/// As it was typed.
impl std::fmt::Display for Selector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Numbers(first, last) if first == last => write!(out, "--select {first}"),
            Self::Numbers(first, usize::MAX) => write!(out, "--select {first}-"),
            Self::Numbers(first, last) => write!(out, "--select {first}-{last}"),
            Self::Pattern(pattern) => write!(out, "--select {pattern}"),
            Self::Name(name) => write!(out, "--select-name {name}"),
        }
    }
}

/// Whether all of `text` fits `pattern`. On a mismatch only the last `*` is tried again one
/// character further, so that the work is at most the product of both lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(&c) if c == '?' || c == text[read] => (at, read) = (at + 1, read + 1),
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    (at, read) = (star_at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Attributes;

    fn files() -> Vec<File> {
        ["set/a.iso", "set/docs/read me.txt", "set/docs/b.iso", "set/c"]
            .iter()
            .map(|path| File {
                path: path.split('/').map(str::to_owned).collect(),
                len: 1,
                offset: 0,
                attributes: Attributes::default(),
            })
            .collect()
    }

    fn chosen(texts: &[&str]) -> Option<Vec<usize>> {
        let selectors: Vec<_> = texts.iter().map(|text| parse_selector(text).unwrap()).collect();
        let selected = select(&files(), &selectors).ok()?;
        Some((0..selected.len()).filter(|&at| selected[at]).collect())
    }

    #[test]
    fn numbers_ranges_paths_and_patterns_choose_files() {
        assert_eq!(chosen(&["0", "2-3"]), Some(vec![0, 2, 3]));
        assert_eq!(chosen(&["2-"]), Some(vec![2, 3]));
        assert_eq!(chosen(&["*.iso"]), Some(vec![0, 2]));
        assert_eq!(chosen(&["docs/"]), Some(vec![1, 2]));
        assert_eq!(chosen(&["set/docs/read me.txt"]), Some(vec![1]));
        assert_eq!(chosen(&["?"]), Some(vec![3]));
        assert_eq!(chosen(&["set"]), Some(vec![0, 1, 2, 3]));
        assert_eq!(chosen(&["0", "*.zip"]), None);
        assert_eq!(chosen(&["4"]), None);
        assert!(parse_selector("4-2").is_err() && parse_selector("  ").is_err());
    }

    #[test]
    fn a_name_is_taken_as_it_is() {
        let paths = ["set/2020", "set/2020-2021", "set/b, c.txt", "set/d/*.txt", "set/d/a.txt", "set/d/2020"];
        let files: Vec<File> = paths
            .iter()
            .map(|path| File { path: path.split('/').map(str::to_owned).collect(), ..files()[0].clone() })
            .collect();
        let chosen = |selector| {
            let selected = select(&files, &[selector]).ok().map(|flags: Vec<bool>| flags)?;
            Some((0..selected.len()).filter(|&at| selected[at]).collect::<Vec<_>>())
        };
        let named = |name: &str| chosen(parse_name(name).unwrap());
        assert_eq!(named("2020"), Some(vec![0]));
        assert_eq!(named("set/2020-2021"), Some(vec![1]));
        assert_eq!(named("b, c.txt"), Some(vec![2]));
        assert_eq!(named("d/*.txt"), Some(vec![3]));
        assert_eq!(named("./d/"), Some(vec![3, 4, 5]));
        assert_eq!((named("b"), named(" 2020"), named("3")), (None, None, None));
        // Numbers stay numbers.
        assert_eq!(chosen(parse_selector("2020").unwrap()), None);
        assert!(parse_name("").is_err() && parse_name("./").is_err());
    }

    #[test]
    fn a_hostile_name_costs_no_more_than_the_product_of_lengths() {
        assert!(!matches(&"*a".repeat(50), &format!("{}b", "a".repeat(2_000))));
        assert!(matches("a*b*c", "a-bb-b-c") && !matches("a*b*c", "a-c-b"));
    }
}
