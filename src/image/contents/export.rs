//! The archive that an engine makes of an image: its layouts, its layers, its configuration.
//!
//! `manifest.json` names the configuration and the layers, lowest first. Layers lie in `<id>/layer.tar`, or, from Docker 25 on, in
//! `blobs/sha256/<digest>`, where they may be compressed; one that occurs twice may be a link. The manifest often comes last, so that
//! every member that is an archive is read as a layer.
//!
//! Source: the image specification of Docker, version 1.2, and of the Open Container Initiative, version 1.0 (layer media types and
//! whiteouts).

use std::collections::HashMap;
use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use super::paths::Paths;

/// The largest configuration or manifest that is read, in bytes.
const MOST_JSON: u64 = 8 << 20;
/// All of them together.
const MOST_JSONS: u64 = 64 << 20;
/// 128 MiB, what `zstd` itself grants without being asked.
const MAX_WINDOW_LOG: u32 = 27;
/// A header of a tar.
const BLOCK: usize = 512;

/// What a layer does to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// There is a file of so many bytes.
    File,
    /// There is something without bytes of its own: a link, a device.
    Other,
    /// There is a directory.
    Directory,
    /// What lower layers have there is deleted.
    Whiteout,
    /// What lower layers have in this directory is deleted.
    Opaque,
}

/// An entry of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) bytes: u64,
    pub(super) node: u32,
    pub(super) deed: Deed,
}

/// A layer.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) puts: Vec<Put>,
    /// The sum of its files' lengths.
    pub(super) bytes: u64,
    pub(super) files: u64,
    /// Names that lead out of the image, which no engine unpacks.
    pub(super) outside: u64,
}

/// A layer as the configuration tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Told {
    pub(super) instruction: String,
    pub(super) diff_id: String,
}

/// An image.
#[derive(Debug)]
pub(super) struct Export {
    pub(super) paths: Paths,
    /// Lowest first.
    pub(super) layers: Vec<(Told, Scanned)>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    config: String,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, Default)]
struct Config {
    #[serde(default)]
    history: Vec<History>,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Debug, Deserialize, Default)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct History {
    #[serde(default)]
    created_by: String,
    #[serde(default)]
    empty_layer: bool,
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Reads the archive of an image from front to back.
pub(super) fn read(stream: impl Read) -> io::Result<Export> {
    let mut paths = Paths::new();
    let mut layers: HashMap<String, Scanned> = HashMap::new();
    let mut links: HashMap<String, String> = HashMap::new();
    let mut jsons: HashMap<String, Vec<u8>> = HashMap::new();
    let mut jsons_bytes = 0;
    let mut archive = tar::Archive::new(BufReader::with_capacity(256 << 10, stream));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        if let Some(link) = entry.link_name_bytes() {
            let link = String::from_utf8_lossy(&link).into_owned();
            let target = if entry.header().entry_type().is_symlink() { beside(&name, &link) } else { link };
            links.insert(name, target);
            continue;
        }
        let size = entry.size();
        let (head, mut whole) = peek(&mut entry)?;
        match sniff(&head) {
            Looks::Layer(packed) => {
                let scanned = scan(packed, &mut whole, &mut paths)?;
                layers.insert(name, scanned);
            }
            Looks::Json if size <= MOST_JSON && jsons_bytes + size <= MOST_JSONS => {
                let mut bytes = Vec::new();
                whole.read_to_end(&mut bytes)?;
                jsons_bytes += size;
                jsons.insert(name, bytes);
            }
            Looks::Json | Looks::Other => {}
        }
    }
    let manifest = jsons.get("manifest.json").ok_or_else(|| wrong("it has no manifest.json"))?;
    let manifests: Vec<Manifest> =
        serde_json::from_slice(manifest).map_err(|error| wrong(format!("manifest.json: {error}")))?;
    let [manifest] = &manifests[..] else {
        return Err(wrong(format!("it holds {} images, and not one", manifests.len())));
    };
    let config = jsons.get(&manifest.config).ok_or_else(|| wrong("it has no configuration"))?;
    let config: Config =
        serde_json::from_slice(config).map_err(|error| wrong(format!("the configuration: {error}")))?;
    let told = told(&config);
    let mut found = Vec::new();
    for (number, name) in manifest.layers.iter().flatten().enumerate() {
        let target = followed(name, &links);
        // A layer that occurs twice adds nothing the second time, but it is there.
        let scanned = layers.remove(&target);
        if scanned.is_none() && !found.iter().any(|(_, _, earlier)| *earlier == target) {
            return Err(wrong(format!("its layer {} is not in it", number + 1)));
        }
        found.push((told.get(number).cloned().unwrap_or_default(), scanned.unwrap_or_default(), target));
    }
    let layers = found.into_iter().map(|(told, scanned, _)| (told, scanned)).collect();
    Ok(Export { paths, layers })
}

/// Returns the layers as the configuration tells them.
fn told(config: &Config) -> Vec<Told> {
    let instructions: Vec<&str> = config
        .history
        .iter()
        .filter(|history| !history.empty_layer)
        .map(|history| &*history.created_by)
        .collect();
    let ids = &config.rootfs.diff_ids;
    let instruction = |number: usize| {
        // Without a history for each layer nobody knows which is whose.
        let is_known = instructions.len() == ids.len();
        instructions.get(number).filter(|_| is_known).map_or_else(String::new, |text| plain(text))
    };
    ids.iter()
        .enumerate()
        .map(|(number, id)| Told { instruction: instruction(number), diff_id: id.clone() })
        .collect()
}

/// Returns an instruction as a Dockerfile has it.
fn plain(created_by: &str) -> String {
    let text = created_by.trim();
    let text = text.strip_suffix("# buildkit").unwrap_or(text).trim_end();
    if let Some(instruction) = text.strip_prefix("/bin/sh -c #(nop)") {
        return instruction.trim().to_owned();
    }
    let command = text.strip_prefix("RUN ").unwrap_or(text);
    match command.find("/bin/sh -c ") {
        // Build arguments stand before it: `|1 name=value /bin/sh -c command`.
        Some(at) if at == 0 || command.starts_with('|') => {
            let words: Vec<&str> =
                command[at..].trim_start_matches("/bin/sh -c ").split_whitespace().collect();
            format!("RUN {}", words.join(" "))
        }
        _ => text.to_owned(),
    }
}

/// Returns what a relative link in a member's directory leads to.
fn beside(name: &str, link: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn followed(name: &str, links: &HashMap<String, String>) -> String {
    let mut at = name;
    for _ in 0..8 {
        let Some(next) = links.get(at) else { break };
        at = next;
    }
    at.to_owned()
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packed {
    Plain,
    Gzip,
    Zstd,
}

/// What a member looks like.
#[derive(Debug, PartialEq, Eq)]
enum Looks {
    Layer(Packed),
    Json,
    Other,
}

/// Reads the first block of a member; returns it, and the member from its beginning.
fn peek<R: Read>(member: R) -> io::Result<(Vec<u8>, impl Read)> {
    let mut member = member;
    let mut head = Vec::with_capacity(BLOCK);
    (&mut member).take(BLOCK as u64).read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(member)))
}

fn sniff(head: &[u8]) -> Looks {
    match head {
        [0x1f, 0x8b, ..] => Looks::Layer(Packed::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Looks::Layer(Packed::Zstd),
        _ if is_tar(head) => Looks::Layer(Packed::Plain),
        [b'{' | b'[', ..] => Looks::Json,
        _ => Looks::Other,
    }
}

/// Whether a block begins a tar: a header whose checksum is right, or the end of an empty one.
fn is_tar(head: &[u8]) -> bool {
    let Ok(block) = <&[u8; BLOCK]>::try_from(head) else { return false };
    if block.iter().all(|byte| *byte == 0) {
        return true;
    }
    let header = tar::Header::from_byte_slice(block);
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(*byte) })
        .sum();
    header.cksum().is_ok_and(|expected| expected == sum)
}

fn scan(packed: Packed, stream: &mut dyn Read, paths: &mut Paths) -> io::Result<Scanned> {
    match packed {
        Packed::Plain => scan_tar(stream, paths),
        Packed::Gzip => scan_packed(MultiGzDecoder::new(stream), paths),
        Packed::Zstd => {
            let mut decoder = zstd::Decoder::new(stream)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            scan_packed(decoder, paths)
        }
    }
}

/// Whatever is packed and is no archive is no layer.
fn scan_packed(stream: impl Read, paths: &mut Paths) -> io::Result<Scanned> {
    let (head, whole) = peek(stream)?;
    if is_tar(&head) { scan_tar(whole, paths) } else { Ok(Scanned::default()) }
}

fn scan_tar(stream: impl Read, paths: &mut Paths) -> io::Result<Scanned> {
    let mut scanned = Scanned::default();
    let mut archive = tar::Archive::new(BufReader::with_capacity(64 << 10, stream));
    for entry in archive.entries()? {
        let entry = entry?;
        let kind = entry.header().entry_type();
        let path = entry.path_bytes();
        let path = path.strip_suffix(b"/").unwrap_or(&path);
        let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
            None => (&b""[..], path),
        };
        let deed = match name.strip_prefix(b".wh.") {
            Some(b".wh..opq") => Deed::Opaque,
            // What AUFS kept for itself.
            Some(own) if own.starts_with(b".wh.") => continue,
            Some(_) => Deed::Whiteout,
            None if kind.is_dir() => Deed::Directory,
            None if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() => Deed::File,
            None => Deed::Other,
        };
        let node = match (deed, name.strip_prefix(b".wh.")) {
            (Deed::Opaque, _) => paths.node(directory)?,
            (Deed::Whiteout, Some(hidden)) => match paths.node(directory)? {
                Some(directory) => Some(paths.child(directory, hidden)?),
                None => None,
            },
            _ => paths.node(path)?,
        };
        let Some(node) = node else {
            scanned.outside += 1;
            continue;
        };
        let bytes = if deed == Deed::File { entry.size() } else { 0 };
        scanned.bytes += bytes;
        scanned.files += u64::from(deed == Deed::File);
        scanned.puts.push(Put { bytes, node, deed });
    }
    scanned.puts.shrink_to_fit();
    Ok(scanned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_as_the_dockerfile_has_it() {
        for (created_by, expected) in [
            ("/bin/sh -c #(nop)  COPY file:ab in / ", "COPY file:ab in /"),
            ("/bin/sh -c apt-get  \t update", "RUN apt-get update"),
            ("RUN /bin/sh -c apt-get update # buildkit", "RUN apt-get update"),
            ("RUN |1 a=b /bin/sh -c make # buildkit", "RUN make"),
            ("|1 a=b /bin/sh -c make", "RUN make"),
            ("COPY a /b # buildkit", "COPY a /b"),
            ("RUN [\"make\"]", "RUN [\"make\"]"),
            ("debootstrap", "debootstrap"),
        ] {
            assert_eq!(plain(created_by), expected);
        }
    }
}
