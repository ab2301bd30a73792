//! Sizes: lines of functions and files, fields of structs; their limits, and the table of what is.

use crate::source::{Source, body_end, line_of, places};

/// Most lines of a file without its test module, and with an entry in the list of exceptions.
pub(crate) const FILE_LEN_MAX: usize = 500;
const FILE_LEN_HARD_MAX: usize = 800;
/// Most lines of a function's body: more does not fit a screen.
const FUNCTION_LEN_MAX: usize = 70;
/// Most lines of nine functions in ten.
const FUNCTION_LEN_P90_MAX: usize = 30;
/// Most fields of a struct: more is more than one thing.
const FIELD_MAX: usize = 15;

/// A thing measured.
pub(crate) struct Figure {
    /// What and where.
    name: String,
    value: usize,
}

/// All things measured.
pub(crate) struct Figures {
    /// Lines of each function outside the tests.
    functions: Vec<Figure>,
    /// Lines of each function of the tests.
    test_functions: Vec<Figure>,
    /// Lines of each file without its test module.
    files: Vec<Figure>,
    /// Fields of each struct.
    structs: Vec<Figure>,
}

/// Measures everything; each list ascending.
pub(crate) fn figures(sources: &[Source]) -> Figures {
    let each = |measure: fn(&Source) -> Vec<Figure>| {
        let mut figures: Vec<Figure> = sources.iter().flat_map(measure).collect();
        figures.sort_by_key(|figure| figure.value);
        figures
    };
    Figures {
        functions: each(|source| functions(source, &source.production)),
        test_functions: each(|source| functions(source, &source.tests())),
        files: each(|source| vec![Figure { name: source.path.clone(), value: source.len }]),
        structs: each(structs),
    }
}

/// The `percent`-th percentile of an ascending list.
fn percentile(figures: &[Figure], percent: usize) -> usize {
    figures
        .get((figures.len() * percent / 100).min(figures.len().saturating_sub(1)))
        .map_or(0, |figure| figure.value)
}

/// What is, in a table.
pub(crate) fn table(figures: &Figures) -> String {
    let row = |what: &str, list: &[Figure]| {
        let longest = list.last().map_or("", |figure| figure.name.as_str());
        let [median, p90, max] = [50, 90, 100].map(|percent| percentile(list, percent));
        format!("{what:<26} {:>6} {median:>6} {p90:>6} {max:>6}  {longest}\n", list.len())
    };
    let head = format!(
        "{:<26} {:>6} {:>6} {:>6} {:>6}  the largest\n",
        "house rules, as measured", "count", "median", "p90", "max"
    );
    [
        head,
        row("lines of a function", &figures.functions),
        row("lines of a test function", &figures.test_functions),
        row("lines of a file", &figures.files),
        row("fields of a struct", &figures.structs),
    ]
    .concat()
}

/// What is larger than it may be.
pub(crate) fn broken(figures: &Figures, long_files: &[(&str, usize)]) -> Vec<String> {
    let over = |list: &[Figure], max: usize, unit: &str| -> Vec<String> {
        let over = list.iter().filter(|figure| figure.value > max);
        over.map(|figure| format!("{}: {} {unit}, at most {max}", figure.name, figure.value)).collect()
    };
    let mut broken = over(&figures.functions, FUNCTION_LEN_MAX, "lines");
    broken.extend(over(&figures.test_functions, FUNCTION_LEN_MAX, "lines"));
    broken.extend(over(&figures.structs, FIELD_MAX, "fields"));
    broken.extend(over(&figures.files, FILE_LEN_HARD_MAX, "lines"));
    let p90 = percentile(&figures.functions, 90);
    if p90 > FUNCTION_LEN_P90_MAX {
        broken.push(format!("one function in ten has {p90} lines or more, at most {FUNCTION_LEN_P90_MAX}"));
    }
    for file in figures.files.iter().filter(|file| file.value > FILE_LEN_MAX) {
        if !long_files.iter().any(|(name, _)| *name == file.name) {
            broken.push(format!("{}: {} lines, at most {FILE_LEN_MAX}", file.name, file.value));
        }
    }
    for (name, listed) in long_files {
        let real = figures.files.iter().find(|file| file.name == *name).map_or(0, |file| file.value);
        if real != *listed || real <= FILE_LEN_MAX {
            broken.push(format!(
                "{name}: listed with {listed} lines, has {real}: correct the list, or leave it"
            ));
        }
    }
    broken
}

/// Lines of each function's body that hold code, counted as clippy's `too_many_lines` does.
fn functions(source: &Source, code: &str) -> Vec<Figure> {
    let body_len = |at: usize| {
        let name = name_after(&code[at + 2..])?;
        let open = at + body_open(&code[at..])?;
        let body = &code[open + 1..body_end(code, open) - 1];
        let value = body.lines().filter(|line| !line.trim().is_empty()).count();
        Some(Figure { name: format!("{}:{} {name}", source.path, line_of(code, at)), value })
    };
    places(code, "fn").filter_map(body_len).collect()
}

/// The name that follows a keyword; None: no item begins here.
fn name_after(rest: &str) -> Option<&str> {
    let name = rest.trim_start();
    let len = name.find(|c: char| !crate::source::is_word(c)).unwrap_or(name.len());
    (len > 0).then(|| &name[..len])
}

/// Where a function's body opens; None: it is only declared.
fn body_open(code: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Fields of each struct.
fn structs(source: &Source) -> Vec<Figure> {
    let code = &source.code;
    let field_count = |at: usize| {
        let rest = &code[at + "struct".len()..];
        let name = name_after(rest)?;
        let value = fields(rest);
        Some(Figure { name: format!("{}:{} {name}", source.path, line_of(code, at)), value })
    };
    places(code, "struct").filter_map(field_count).collect()
}

/// Fields of the struct whose name and what follows it are `rest`.
fn fields(rest: &str) -> usize {
    let (mut angles, mut depth, mut count, mut pending) = (0_i32, 0_i32, 0, false);
    let mut before = ' ';
    for character in rest.chars() {
        match character {
            '<' => angles += 1,
            '>' if before != '-' => angles -= 1,
            '{' | '(' | '[' if angles == 0 => depth += 1,
            '}' | ')' | ']' if angles == 0 => depth -= 1,
            ';' if depth == 0 => return 0,
            ',' if depth == 1 && angles == 0 => {
                count += usize::from(pending);
                pending = false;
            }
            _ if depth == 1 && crate::source::is_word(character) => pending = true,
            _ => {}
        }
        before = character;
        if depth == 0 && "})".contains(character) && angles == 0 {
            break;
        }
    }
    count + usize::from(pending)
}

#[test]
fn counts_the_lines_of_a_body_that_hold_code() {
    let text = "fn a(f: fn(u8) -> [u8; 2]) -> Option<u8>\nwhere\n    A: B,\n{\n    one();\n\n    // two\n    if x { \"}\" }\n}\ntrait T { fn b(&self); fn c(&self) {} }\n";
    let source = crate::sample("src/a.rs", text);
    let found = functions(&source, &source.production);
    let found: Vec<_> = found.iter().map(|figure| (figure.name.as_str(), figure.value)).collect();
    assert_eq!(found, [("src/a.rs:1 a", 2), ("src/a.rs:10 c", 0)]);
}

#[test]
fn counts_fields() {
    for (text, count) in [
        ("struct A;", 0),
        ("struct A {}", 0),
        ("struct A(u8, BTreeMap<u8, (u8, u8)>);", 2),
        ("struct A<T: Fn(u8) -> u8> { #[serde(skip, x)] a: T, b: Box<dyn Fn(u8, u8) -> [u8; 3]>, }", 2),
        ("struct A { a: u8, b: u8, c: u8 }\nstruct B { a: u8 }", 3),
    ] {
        assert_eq!(structs(&crate::sample("src/a.rs", text))[0].value, count, "{text}");
    }
}

#[test]
fn too_large_is_told_and_the_list_of_exceptions_only_shrinks() {
    let long = crate::sample("src/long.rs", &"// x\n".repeat(501));
    let body = |lines| format!("fn a() {{\n{}}}\n", "    a();\n".repeat(lines));
    let wide = format!("struct A {{ {} }}", "a: u8, ".repeat(16));
    let told = |source: Source, long_files: &[(&str, usize)]| broken(&figures(&[source]), long_files).len();
    assert_eq!(told(crate::sample("tests/a.rs", &body(70)), &[]), 0);
    assert_eq!(told(crate::sample("tests/a.rs", &body(71)), &[]), 1);
    assert_eq!(told(crate::sample("src/a.rs", &body(31)), &[]), 1);
    assert_eq!(told(crate::sample("src/a.rs", &wide), &[]), 1);
    assert_eq!(told(long, &[]), 1);
    for (listed, wrong) in [(501, 0), (502, 1), (500, 1)] {
        let long = crate::sample("src/long.rs", &"// x\n".repeat(501));
        assert_eq!(told(long, &[("src/long.rs", listed)]), wrong, "{listed}");
    }
    assert_eq!(told(crate::sample("src/a.rs", ""), &[("src/a.rs", 0)]), 1);
}
