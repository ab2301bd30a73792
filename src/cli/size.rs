//! Quantities as people type and read them: bytes, rates, durations.
//!
//! Decimal units (`KB`, `MB`) are powers of 1000, binary ones (`KiB`, `K`) powers of 1024, and
//! `kbit`, `mbit` count bits. Shown are binary units, with one digit after the point.

use std::time::Duration;

/// Smallest piece that may be asked for: one block.
const PIECE_LEN_MIN: u64 = 16 << 10;
/// Longest piece that readers accept.
const PIECE_LEN_MAX: u64 = 1 << 30;

/// A limit in bytes per second; None: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) Option<u64>);

/// Bytes a piece; 0: fitted to the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PieceLen(pub(crate) u32);

/// Bytes as typed: `64MiB`, `500KB`, `1048576`.
pub(crate) fn parse_len(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let factor = byte_factor(unit)
        .ok_or_else(|| format!("unknown unit `{unit}`: sizes look like 65536, 64KiB, 500KB or 1.5GiB"))?;
    scaled(number, factor)
}

/// A rate as typed: `8mbit`, `1MiB`, `500KB/s`, `100000`; 0 means no limit.
pub(crate) fn parse_rate(text: &str) -> Result<Rate, String> {
    let (number, unit) = split(text.strip_suffix("/s").unwrap_or(text))?;
    let bit_factor = match unit.to_ascii_lowercase().as_str() {
        "bit" => Some(0.125),
        "kbit" => Some(125.0),
        "mbit" => Some(125_000.0),
        "gbit" => Some(125_000_000.0),
        _ => None,
    };
    let factor = bit_factor.or_else(|| byte_factor(unit)).ok_or_else(|| {
        format!("unknown unit `{unit}`: rates look like 8mbit, 1MiB, 500KB or plain bytes a second")
    })?;
    let rate = scaled(number, factor)?;
    if rate == 0 && number > 0.0 {
        return Err("less than a byte a second".to_owned());
    }
    Ok(Rate((rate > 0).then_some(rate)))
}

/// A piece length as typed: `auto`, or a power of two of at least 16 KiB.
pub(crate) fn parse_piece_len(text: &str) -> Result<PieceLen, String> {
    if text == "auto" {
        return Ok(PieceLen(0));
    }
    let len = parse_len(text)?;
    if !len.is_power_of_two() || !(PIECE_LEN_MIN..=PIECE_LEN_MAX).contains(&len) {
        return Err("a piece is a power of two from 16KiB to 1GiB, or auto".to_owned());
    }
    Ok(PieceLen(len as u32))
}

/// A duration as typed: `30s`, `10m`, `2h`, `1d`, `500ms`, or plain seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(format!("unknown unit `{unit}`: durations look like 30s, 10m, 2h or 1d")),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| "too long".to_owned())
}

/// The number in front and the unit behind.
fn split(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number = number.parse().map_err(|_| "it starts with a number".to_owned())?;
    Ok((number, unit.trim_start()))
}

fn byte_factor(unit: &str) -> Option<f64> {
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    Some(factor as f64)
}

/// Whole bytes; what a file cannot hold is refused.
fn scaled(number: f64, factor: f64) -> Result<u64, String> {
    let value = number * factor;
    if value >= i64::MAX as f64 {
        return Err("too large".to_owned());
    }
    Ok(value as u64)
}

/// Bytes for people: `512 B`, `1.5 MiB`.
pub(crate) fn show_len(len: u64) -> String {
    let mut value = len as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{len} B") } else { format!("{value:.1} {unit}") }
}

/// Bytes per second for people.
pub(crate) fn show_rate(rate: u64) -> String {
    format!("{}/s", show_len(rate))
}

/// A span of time for people, in its two largest units: `3 h 20 m`, `45 s`.
pub(crate) fn show_duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_know_decimal_and_binary_units() {
        assert_eq!(parse_len("1048576"), Ok(1 << 20));
        assert_eq!(parse_len("1MiB"), Ok(1 << 20));
        assert_eq!(parse_len("1.5 KiB"), Ok(1_536));
        assert_eq!(parse_len("500KB"), Ok(500_000));
        for wrong in ["", "MiB", "1 parsec", "1.2.3", "-1", "99999999999TiB"] {
            assert!(parse_len(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_count_bits_too_and_zero_is_no_limit() {
        assert_eq!(parse_rate("8mbit"), Ok(Rate(Some(1_000_000))));
        assert_eq!(parse_rate("1MiB/s"), Ok(Rate(Some(1 << 20))));
        assert_eq!(parse_rate("100000"), Ok(Rate(Some(100_000))));
        assert_eq!(parse_rate("0"), Ok(Rate(None)));
        assert!(parse_rate("1bit").is_err() && parse_rate("fast").is_err());
    }

    #[test]
    fn pieces_are_powers_of_two() {
        assert_eq!(parse_piece_len("262144"), Ok(PieceLen(262_144)));
        assert_eq!(parse_piece_len("1MiB"), Ok(PieceLen(1 << 20)));
        assert_eq!(parse_piece_len("auto"), Ok(PieceLen(0)));
        for wrong in ["8KiB", "1MB", "2GiB", "0", "some"] {
            assert!(parse_piece_len(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_duration("1 week").is_err() && parse_duration("soon").is_err());
    }

    #[test]
    fn what_is_shown_is_short() {
        assert_eq!(show_len(1_023), "1023 B");
        assert_eq!(show_len(3 << 19), "1.5 MiB");
        assert_eq!(show_duration(Duration::from_secs(12_000)), "3 h 20 m");
    }
}
