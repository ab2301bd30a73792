//! The data that the demo distributes, and the comparison of copies with it.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::text::printable;

/// Bytes that are made or compared at a time.
const STEP_LEN: usize = 1 << 20;

/// Makes a folder with a large file, a small one (a sixteenth) and an empty one, `size` bytes
/// together, that look random and are the same each time. `going` is asked now and then; false: it
/// ends early.
pub(crate) fn generate(folder: &Path, size: u64, going: &dyn Fn() -> bool) -> Result<PathBuf, Failure> {
    let path = folder.join("original").join("sprat-demo");
    let small = size / 16;
    let mut state = 1;
    for (name, len) in [("large.bin", size - small), ("small/small.bin", small), ("small/empty", 0)] {
        let file = path.join(name);
        let mut write = || -> std::io::Result<()> {
            std::fs::create_dir_all(file.parent().unwrap_or(&path))?;
            let mut out = BufWriter::with_capacity(STEP_LEN, File::create(&file)?);
            let mut left = len;
            while left > 0 && going() {
                let step = left.min(STEP_LEN as u64);
                for at in (0..step).step_by(8) {
                    let word = next_word(&mut state).to_le_bytes();
                    out.write_all(&word[..(step - at).min(8) as usize])?;
                }
                left -= step;
            }
            out.flush()
        };
        write().map_err(|error| Failure::io(&file, &error, "; choose less with --size, or set TMPDIR"))?;
    }
    Ok(path)
}

/// SplitMix64 (Steele, Lea, Flood 2014): fast, and no two pieces alike.
fn next_word(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Fails unless both files have the same bytes.
pub(crate) fn require_equal(original: &Path, copy: &Path) -> Result<(), Failure> {
    let open = |path: &Path| File::open(path).map_err(|error| Failure::io(path, &error, ""));
    let (mut original_file, mut copy_file) = (open(original)?, open(copy)?);
    let (mut ours, mut theirs) = (vec![0; STEP_LEN], vec![0; STEP_LEN]);
    loop {
        let our_len =
            fill(&mut original_file, &mut ours).map_err(|error| Failure::io(original, &error, ""))?;
        let their_len = fill(&mut copy_file, &mut theirs).map_err(|error| Failure::io(copy, &error, ""))?;
        if ours[..our_len] != theirs[..their_len] {
            return Err(Failure::Bad(format!(
                "{} differs from the original",
                printable(&copy.to_string_lossy())
            )));
        }
        if our_len == 0 {
            return Ok(());
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..])? {
            0 => break,
            read => len += read,
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_data_has_the_size_and_a_changed_byte_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = generate(folder.path(), 100_003, &|| true).unwrap();
        let (large, small) = (path.join("large.bin"), path.join("small/small.bin"));
        assert_eq!(large.metadata().unwrap().len() + small.metadata().unwrap().len(), 100_003);
        let copy = folder.path().join("copy");
        std::fs::copy(&large, &copy).unwrap();
        assert!(require_equal(&large, &copy).is_ok());
        let mut bytes = std::fs::read(&copy).unwrap();
        bytes[50_000] ^= 1;
        std::fs::write(&copy, &bytes).unwrap();
        assert!(matches!(require_equal(&large, &copy), Err(Failure::Bad(_))));
        std::fs::write(&copy, &bytes[..50_000]).unwrap();
        assert!(require_equal(&large, &copy).is_err());
    }
}
