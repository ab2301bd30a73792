//! `sprat dht get` and `put`: items of BEP 44, and the file of the key that mutable ones are signed
//! with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use bytes::Bytes;
use serde_json::json;

use super::dht::{Asker, effort, require_stored};
use super::dht_args::{GetArgs, ItemName, PutArgs, parse_hex};
use super::failure::Failure;
use super::report::Report;
use super::text::{counted, printable};
use crate::engine::dht::{DhtRequest, Found, Item, ItemKey, NodeId, Outcome, SecretKey, generate_key};

/// Prints the newest version of an item.
pub(super) async fn find(args: &GetArgs, asker: &Asker, report: &Report) -> Result<(), Failure> {
    let key = match &args.name {
        ItemName::Hash(hash) => ItemKey::Immutable(NodeId(*hash)),
        ItemName::Key(public_key, salt) => {
            ItemKey::Mutable { public_key: *public_key, salt: salt.clone().into() }
        }
    };
    let (item, outcome) = newest(key, asker).await?;
    let Some(item) = item else {
        return Err(Failure::Failed(format!("no node has this item: {}", effort(&outcome))));
    };
    let seq = item.mutable().map(|mutable| mutable.seq);
    report.event(&json!({
        "event": "item", "text": string(item.value()).and_then(text), "bencoded": hex(item.value()), "seq": seq,
    }));
    if let (Some(seq), true) = (seq, args.seq) {
        report.say(&format!("seq {seq}"));
    }
    report.say(&shown(item.value()));
    Ok(())
}

async fn newest(key: ItemKey, asker: &Asker) -> Result<(Option<Item>, Outcome), Failure> {
    let mut newest = None;
    let keep = |found| {
        if let Found::Item(item) = found {
            newest = Some(item);
        }
    };
    let outcome = asker.ask(DhtRequest::Get(key), keep).await?;
    Ok((newest, outcome))
}

/// An item to be stored, as far as it is known before anybody is asked.
pub(super) enum Draft {
    /// Done.
    Immutable(Item),
    /// To be signed, with a number that may depend on what is there.
    Mutable(SecretKey),
}

/// Refuses what no node would take, reads the key, and makes one if there is none.
pub(super) fn draft(args: &PutArgs, report: &Report) -> Result<Draft, Failure> {
    let Some(path) = &args.key_file else {
        let item = Item::immutable(bencoded(&args.value)).map_err(refused)?;
        return Ok(Draft::Immutable(item));
    };
    let key = load_key(path, report)?;
    // Whether value and salt fit does not depend on the number.
    key.sign(salt(args), 0, bencoded(&args.value)).map_err(refused)?;
    Ok(Draft::Mutable(key))
}

/// Stores it at the nodes closest to its name.
pub(super) async fn store(
    args: &PutArgs,
    draft: Draft,
    asker: &Asker,
    report: &Report,
) -> Result<(), Failure> {
    let item = match draft {
        Draft::Immutable(item) => item,
        Draft::Mutable(key) => {
            let seq = match args.seq {
                Some(seq) => seq,
                None => next_seq(&key, args, asker).await?,
            };
            key.sign(salt(args), seq, bencoded(&args.value)).map_err(refused)?
        }
    };
    let (key, mutable) = (item.key(), item.mutable().cloned());
    let outcome = asker.ask(DhtRequest::Put { item, cas: args.cas }, drop).await?;
    require_stored(&outcome)?;
    let seq = mutable.as_ref().map(|mutable| mutable.seq);
    let public_key = mutable.map(|mutable| hex(&mutable.public_key));
    report.event(&json!({
        "event": "stored", "target": key.target().to_string(), "public_key": public_key, "salt": args.salt,
        "seq": seq, "nodes": outcome.stored,
    }));
    let salt = if args.salt.is_empty() { String::new() } else { format!(":{}", printable(&args.salt)) };
    report.say(&public_key.map_or_else(|| key.target().to_string(), |key| format!("{key}{salt}")));
    let version = seq.map(|seq| format!("version {seq}, ")).unwrap_or_default();
    report.note(&format!("{version}stored by {}", counted(outcome.stored as usize, "node")));
    Ok(())
}

/// One more than the number of the version that is there; 1 if there is none.
async fn next_seq(key: &SecretKey, args: &PutArgs, asker: &Asker) -> Result<i64, Failure> {
    let name = ItemKey::Mutable { public_key: key.public_key(), salt: salt(args) };
    let (item, _) = newest(name, asker).await?;
    let seq = item.as_ref().and_then(|item| item.mutable()).map_or(0, |mutable| mutable.seq);
    seq.checked_add(1).ok_or_else(|| Failure::Failed("the version there has the last number".to_owned()))
}

fn salt(args: &PutArgs) -> Bytes {
    args.salt.clone().into()
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}

/// The key in a file of 64 hexadecimal digits; a new one if there is no file.
fn load_key(path: &Path, report: &Report) -> Result<SecretKey, Failure> {
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return make_key(path, report),
        Err(error) => return Err(Failure::io(path, &error, "")),
    };
    let fault = |error| Failure::io(path, &error, "");
    let shown = printable(&path.to_string_lossy());
    let is_open = file.metadata().map_err(fault)?.permissions().mode() & 0o077 != 0;
    let mut bytes = Vec::new();
    file.take(KEY_FILE_LEN_MAX).read_to_end(&mut bytes).map_err(fault)?;
    let Some(seed) = std::str::from_utf8(&bytes).ok().and_then(|text| parse_hex(text.trim())) else {
        let what = "a key file holds 64 hexadecimal digits; name another to have it made";
        return Err(Failure::Bad(format!("{shown}: {what}")));
    };
    if is_open {
        report.warn(&format!("{shown} can be read by others: chmod 600 it"));
    }
    Ok(SecretKey::from_bytes(seed))
}

/// Longest key file that is read, bytes: the digits and some white space; the rest of a longer one
/// is not looked at.
const KEY_FILE_LEN_MAX: u64 = 128;

fn make_key(path: &Path, report: &Report) -> Result<SecretKey, Failure> {
    let fault = |error| Failure::io(path, &error, "");
    let key = generate_key().map_err(fault)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fault)?;
    file.write_all(format!("{}\n", hex(&key.to_bytes())).as_bytes()).map_err(fault)?;
    file.sync_all().map_err(fault)?;
    report.note(&format!("made a new key in {}", printable(&path.to_string_lossy())));
    Ok(key)
}

/// A text as a bencoded string.
fn bencoded(text: &str) -> Bytes {
    format!("{}:{text}", text.len()).into()
}

/// The bytes of a bencoded string; None: a value of another kind.
fn string(bencoded: &[u8]) -> Option<&[u8]> {
    let colon = bencoded.iter().position(|&byte| byte == b':')?;
    let is_string = bencoded[..colon].iter().all(u8::is_ascii_digit);
    is_string.then(|| &bencoded[colon + 1..])
}

/// Bytes that people can read; line ends and tabs among them.
fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_readable = text.split(['\n', '\t']).all(|part| printable(part) == part);
    is_readable.then_some(text)
}

/// A value for people: a string as it is, another kind as bencode, and what cannot be read in
/// hexadecimal digits.
fn shown(bencoded: &[u8]) -> String {
    let bytes = string(bencoded).unwrap_or(bencoded);
    text(bytes).map_or_else(|| hex(bytes), str::to_owned)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_text_where_they_are_text() {
        assert_eq!(shown(&bencoded("Grüße\n🐟")), "Grüße\n🐟");
        assert_eq!(shown(b"3:\x1b[m"), "1b5b6d");
        assert_eq!(shown(b"2:\xff\x00"), "ff00");
        assert_eq!(shown(b"d1:ai5ee"), "d1:ai5ee");
        assert_eq!(shown(b"i5e"), "i5e");
        assert_eq!(shown(b"l1:\x00e"), "6c313a0065");
        assert_eq!(string(b"0:"), Some(&b""[..]));
    }
}
