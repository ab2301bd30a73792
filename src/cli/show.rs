//! `sprat show`: what a torrent or a magnet link says, for people or as one JSON object.

use serde_json::{Value, json};

use super::args::{LeaveArgs, ShowArgs};
use super::describe;
use super::failure::Failure;
use super::interrupt::Interrupts;
use super::out_file;
use super::plan::Plan;
use super::report::{Report, print_out};
use super::runtime;
use super::size::show_len;
use super::source::Source;
use super::text::{json as json_text, printable};
use crate::engine::{Attributes, Info, Magnet, Metainfo, TorrentSource};

/// Prints it.
pub(crate) fn run(args: &ShowArgs, report: &Report) -> Result<(), Failure> {
    let report = &out_file::report(args.output.as_deref(), report)?;
    let source = Source::parse(&args.torrent)?;
    if args.offline && matches!(source, Source::Url(_)) {
        return Err(Failure::Usage(
            "--offline uses no network, and this torrent has to be downloaded from its URL".to_owned(),
        ));
    }
    let (object, text) = runtime::block_on(async {
        match source.open().await? {
            TorrentSource::Magnet(_) if args.offline && args.output.is_some() => Err(Failure::Usage(
                "a magnet link only names a torrent: leave out --offline to have something to write"
                    .to_owned(),
            )),
            TorrentSource::Magnet(magnet) if args.offline => {
                Ok((magnet_object(&magnet), magnet_text(&magnet)))
            }
            TorrentSource::Magnet(magnet) => {
                // Before signals are caught: looking up the names of peers may take long.
                let plan = Plan::new(&args.swarm, LeaveArgs::default(), report);
                let mut interrupts = Interrupts::catch()?;
                let limit = Some(args.timeout);
                let metainfo = describe::fetch(&plan, magnet, limit, report, &mut interrupts).await?;
                if let Some(target) = &args.output {
                    out_file::save(target, metainfo.encode(), "-o", &mut interrupts).await?;
                }
                Ok((torrent_object(&metainfo), torrent_text(&metainfo)))
            }
            TorrentSource::Metainfo(metainfo) => {
                if let Some(target) = &args.output {
                    out_file::write(target, &metainfo.encode(), "-o")?;
                }
                Ok((torrent_object(&metainfo), torrent_text(&metainfo)))
            }
        }
    })?;
    if report.is_json() {
        print_out(&json_text(&object));
    } else {
        report.say(&text);
    }
    Ok(())
}

/// The torrent as one object; its keys are what scripts rely on.
fn torrent_object(metainfo: &Metainfo) -> Value {
    let info = &metainfo.info;
    let files: Vec<Value> = info
        .files
        .iter()
        .map(|file| {
            json!({
                "path": file.path.join("/"), "length": file.len,
                "attributes": attribute_letters(file.attributes),
            })
        })
        .collect();
    let renamed: Vec<Value> =
        info.renamed.iter().map(|(given, used)| json!({"given": given, "used": used})).collect();
    json!({
        "name": info.name,
        "version": version(info),
        "infohash_v1": info.infohash.to_string(),
        "infohash_v2": info.infohash_v2.map(|hash| hex(&hash)),
        "piece_length": info.geometry.piece_len(),
        "piece_count": info.geometry.piece_count(),
        "total_size": info.content_len(),
        "private": info.private,
        "trackers": metainfo.trackers,
        "web_seeds": metainfo.web_seeds,
        "files": files,
        "renamed": renamed,
        "renamed_count": info.renamed_count,
        "oddities": metainfo.oddities.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn version(info: &Info) -> &'static str {
    if info.infohash_v2.is_some() { "hybrid" } else { "v1" }
}

/// As BEP 47 writes them: `p` pad, `x` executable, `h` hidden.
fn attribute_letters(attributes: Attributes) -> String {
    let letters = [(attributes.pad, 'p'), (attributes.executable, 'x'), (attributes.hidden, 'h')];
    letters.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The line about web seeds where neither a tracker nor a peer is named.
const ONLY_WEB_SEEDS: &str = "note       the torrent names only web seeds, which are not used yet";

fn torrent_text(metainfo: &Metainfo) -> String {
    let info = &metainfo.info;
    let mut lines = vec![
        format!("name       {}", printable(&info.name)),
        format!("version    {}", version(info)),
        format!("infohash   {}", info.infohash),
    ];
    if let Some(hash) = info.infohash_v2 {
        lines.push(format!("v2         {}", hex(&hash)));
    }
    lines.push(format!("size       {} ({} bytes)", show_len(info.content_len()), info.content_len()));
    lines.push(format!(
        "pieces     {} of {}",
        info.geometry.piece_count(),
        show_len(u64::from(info.geometry.piece_len()))
    ));
    if info.private {
        lines.push("private    yes: peers only from its trackers".to_owned());
    }
    let tiers = metainfo.trackers.iter().enumerate();
    lines.extend(tiers.map(|(tier, urls)| format!("tracker    tier {tier}: {}", printable(&urls.join(" ")))));
    lines.extend(metainfo.web_seeds.iter().map(|url| format!("web seed   {}", printable(url))));
    if !metainfo.web_seeds.is_empty() && metainfo.trackers.is_empty() {
        lines.push(ONLY_WEB_SEEDS.to_owned());
    }
    let notes = [("comment", &metainfo.comment), ("made by", &metainfo.created_by), ("source", &info.source)];
    for (key, value) in notes {
        lines.extend(value.iter().map(|value| format!("{key:<10} {}", printable(value))));
    }
    let oddities = metainfo.oddities.iter().map(|oddity| printable(&oddity.to_string()));
    lines.extend(oddities.map(|oddity| format!("odd        {oddity}")));
    lines.push(String::new());
    for (number, file) in info.files.iter().enumerate().filter(|(_, file)| !file.attributes.pad) {
        let path = printable(&file.path.join("/"));
        lines.push(format!("{number:>5}  {:>10}  {path}", show_len(file.len)));
    }
    for (given, used) in &info.renamed {
        lines.push(format!("renamed    {} to {}", printable(given), printable(used)));
    }
    if info.renamed_count > info.renamed.len() {
        lines.push(format!("renamed    {} more", info.renamed_count - info.renamed.len()));
    }
    lines.join("\n")
}

/// What the link carries, under the same keys; null: the link does not say.
fn magnet_object(magnet: &Magnet) -> Value {
    let version = match (&magnet.infohash, &magnet.infohash_v2) {
        (Some(_), Some(_)) => Some("hybrid"),
        (Some(_), None) => Some("v1"),
        (None, Some(_)) => Some("v2"),
        (None, None) => None,
    };
    let tiers: Vec<[&String; 1]> = magnet.trackers.iter().map(|url| [url]).collect();
    json!({
        "name": magnet.name,
        "version": version,
        "infohash_v1": magnet.infohash.map(|hash| hash.to_string()),
        "infohash_v2": magnet.infohash_v2.map(|hash| hex(&hash)),
        "piece_length": null,
        "piece_count": null,
        "total_size": null,
        "private": null,
        "trackers": tiers,
        "web_seeds": magnet.web_seeds,
        "files": null,
        "renamed": [],
        "renamed_count": 0,
        "peers": magnet.peers,
        "select": magnet.select,
        "ignored": magnet.ignored,
    })
}

fn magnet_text(magnet: &Magnet) -> String {
    let mut lines = Vec::new();
    lines.extend(magnet.name.iter().map(|name| format!("name       {}", printable(name))));
    lines.extend(magnet.infohash.iter().map(|hash| format!("infohash   {hash}")));
    lines.extend(magnet.infohash_v2.iter().map(|hash| format!("v2         {}", hex(hash))));
    lines.extend(magnet.trackers.iter().map(|url| format!("tracker    {}", printable(url))));
    lines.extend(magnet.web_seeds.iter().map(|url| format!("web seed   {}", printable(url))));
    lines.extend(magnet.peers.iter().map(|peer| format!("peer       {}", printable(peer))));
    if !magnet.web_seeds.is_empty() && magnet.trackers.is_empty() && magnet.peers.is_empty() {
        lines.push(ONLY_WEB_SEEDS.to_owned());
    }
    let ranges: Vec<String> = magnet.select.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    if !ranges.is_empty() {
        lines.push(format!("files      {}", ranges.join(",")));
    }
    lines.extend(magnet.ignored.iter().map(|part| format!("ignored    {}", printable(part))));
    lines.push(
        "A magnet link only names a torrent; without --offline size and files are asked of peers.".to_owned(),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_written_as_torrents_write_them() {
        let attributes = Attributes { pad: false, executable: true, hidden: true };
        assert_eq!(attribute_letters(attributes), "xh");
        assert_eq!(attribute_letters(Attributes::default()), "");
    }

    #[test]
    fn a_magnet_says_what_it_carries_and_null_for_the_rest() {
        let magnet = Magnet {
            infohash_v2: Some([0xab; 32]),
            trackers: vec!["udp://a:1".to_owned(), "http://b".to_owned()],
            ..Magnet::default()
        };
        let object = magnet_object(&magnet);
        assert_eq!(object["version"], "v2");
        assert_eq!(object["infohash_v2"], "ab".repeat(32));
        assert_eq!(object["trackers"], json!([["udp://a:1"], ["http://b"]]));
        assert!(object["infohash_v1"].is_null() && object["files"].is_null());
    }
}
