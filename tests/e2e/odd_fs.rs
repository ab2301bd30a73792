//! A file system that folds the case of names, drops trailing dots and spaces, takes names of up to
//! 143 bytes and no `:` or `?`: in memory, served through /dev/fuse by a thread of the test. It
//! answers what sprat asks, no more.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Longest name, bytes.
const NAME_LEN_MAX: usize = 143;
/// Room for the largest request: a write of 128 KiB with its headers.
const REQUEST_LEN_MAX: usize = 1 << 20;
/// Bytes of the header before each request.
const HEADER_LEN: usize = 40;

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EEXIST: i32 = 17;
const ENOTDIR: i32 = 20;
const EINVAL: i32 = 22;
const ENAMETOOLONG: i32 = 36;
const ENOSYS: i32 = 38;

/// One, taken down when dropped.
pub(crate) struct OddFs {
    at: PathBuf,
    is_failing: Arc<AtomicBool>,
}

impl OddFs {
    /// Makes the folder `at` with an empty file system in its place; None: this is not for us,
    /// which is said, and with `SPRAT_INTEROP=require` is a failure.
    pub(crate) fn mount(at: &Path) -> Option<Self> {
        let mounted = Self::try_mount(at);
        if mounted.is_none() {
            let what = "a file system of our own is not possible here: not tried";
            assert_ne!(std::env::var("SPRAT_INTEROP").as_deref(), Ok("require"), "{what}");
            eprintln!("{what}");
        }
        mounted
    }

    fn try_mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let fuse = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        // The mount command finds the connection as its standard input.
        let mount = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "odd"])
            .arg(at)
            .stdin(Stdio::from(fuse.try_clone().ok()?))
            .stderr(Stdio::null())
            .status();
        if !mount.is_ok_and(|status| status.success()) {
            return None;
        }
        let is_failing = Arc::new(AtomicBool::new(false));
        let failing = Arc::clone(&is_failing);
        std::thread::spawn(move || serve(fuse, &failing));
        Some(Self { at: at.to_owned(), is_failing })
    }

    /// From now on everything fails (EIO), or works again.
    pub(crate) fn fail(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::Relaxed);
    }
}

impl Drop for OddFs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// A file or folder.
#[derive(Default)]
struct Node {
    is_folder: bool,
    children: BTreeMap<String, u64>,
    bytes: Vec<u8>,
    /// Sequence number of the last change to this node, which stands for its times.
    changed: u64,
}

/// All of it; the root is number 1.
struct Disk {
    nodes: Vec<Node>,
    change_count: u64,
}

fn serve(mut fuse: File, is_failing: &AtomicBool) {
    let root = Node { is_folder: true, ..Node::default() };
    let mut disk = Disk { nodes: vec![root], change_count: 0 };
    let mut request = vec![0; REQUEST_LEN_MAX];
    // Unmounted: the read fails.
    while let Ok(len) = fuse.read(&mut request) {
        let request = &request[..len];
        let (code, unique, node) = (u32_at(request, 4), u64_at(request, 8), u64_at(request, 16));
        let Some(answer) = disk.answer(code, node, &request[HEADER_LEN..]) else { continue };
        let answer = if is_failing.load(Ordering::Relaxed) { Err(EIO) } else { answer };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut reply = ((16 + body.len()) as u32).to_le_bytes().to_vec();
        reply.extend(error.to_le_bytes());
        reply.extend(unique.to_le_bytes());
        reply.extend(body);
        if fuse.write(&reply).is_err() && error == 0 {
            eprintln!("the reply to request {code} was not taken");
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes.split(|byte| *byte == 0).next().unwrap()).unwrap()
}

impl Disk {
    /// The reply, or the error's number; None: there is none.
    fn answer(&mut self, code: u32, node: u64, body: &[u8]) -> Option<Result<Vec<u8>, i32>> {
        Some(match code {
            // Forget.
            2 | 42 => return None,
            1 => self.look_up(node, text(body)),
            3 => Ok(self.attributes(node)),
            4 => {
                if u32_at(body, 0) & 1 << 3 != 0 {
                    let len = u64_at(body, 16) as usize;
                    self.change(node).bytes.resize(len, 0);
                }
                Ok(self.attributes(node))
            }
            8 => self.make(node, text(&body[16..]), false),
            9 => self.make(node, text(&body[8..]), true),
            10 | 11 => self.remove(node, text(body)),
            // Opening: a handle that no request uses, and no caching.
            14 | 27 => Ok([0_u32, 0, 1, 0].iter().flat_map(|word| word.to_le_bytes()).collect()),
            15 => Ok(self.read(node, u64_at(body, 8) as usize, u32_at(body, 16) as usize)),
            16 => {
                let (offset, len) = (u64_at(body, 8) as usize, u32_at(body, 16));
                let bytes = &mut self.change(node).bytes;
                let end = offset + len as usize;
                bytes.resize(bytes.len().max(end), 0);
                bytes[offset..end].copy_from_slice(&body[40..40 + len as usize]);
                Ok([len, 0].iter().flat_map(|word| word.to_le_bytes()).collect())
            }
            17 => Ok(room()),
            // Closing and syncing.
            18 | 20 | 25 | 29 | 30 | 50 => Ok(Vec::new()),
            26 => Ok(greeting(body)),
            _ => Err(ENOSYS),
        })
    }

    fn node(&self, node: u64) -> &Node {
        &self.nodes[node as usize - 1]
    }

    fn change(&mut self, node: u64) -> &mut Node {
        self.change_count += 1;
        let node = &mut self.nodes[node as usize - 1];
        node.changed = self.change_count;
        node
    }

    fn folded(name: &str) -> Result<String, i32> {
        if name.len() > NAME_LEN_MAX {
            return Err(ENAMETOOLONG);
        }
        Ok(name.trim_end_matches(['.', ' ']).to_lowercase())
    }

    fn look_up(&self, folder: u64, name: &str) -> Result<Vec<u8>, i32> {
        let name = Self::folded(name)?;
        let folder = self.node(folder);
        if !folder.is_folder {
            return Err(ENOTDIR);
        }
        folder.children.get(&name).map(|&node| self.entry(node)).ok_or(ENOENT)
    }

    fn make(&mut self, folder: u64, name: &str, is_folder: bool) -> Result<Vec<u8>, i32> {
        if name.contains([':', '?']) {
            return Err(EINVAL);
        }
        let name = Self::folded(name)?;
        if self.node(folder).children.contains_key(&name) {
            return Err(EEXIST);
        }
        self.nodes.push(Node { is_folder, ..Node::default() });
        let node = self.nodes.len() as u64;
        self.change(node);
        self.change(folder).children.insert(name, node);
        Ok(self.entry(node))
    }

    fn remove(&mut self, folder: u64, name: &str) -> Result<Vec<u8>, i32> {
        let name = Self::folded(name)?;
        self.change(folder).children.remove(&name).map(|_| Vec::new()).ok_or(ENOENT)
    }

    fn read(&self, node: u64, offset: usize, len: usize) -> Vec<u8> {
        let bytes = &self.node(node).bytes;
        let start = offset.min(bytes.len());
        bytes[start..bytes.len().min(start + len)].to_vec()
    }

    /// Number, generation, how long name and attributes are good for (not at all), attributes.
    fn entry(&self, node: u64) -> Vec<u8> {
        let mut entry: Vec<u8> = [node, 0, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
        entry.extend(self.look(node));
        entry
    }

    fn attributes(&self, node: u64) -> Vec<u8> {
        let mut attributes = vec![0; 16];
        attributes.extend(self.look(node));
        attributes
    }

    fn look(&self, number: u64) -> Vec<u8> {
        let node = self.node(number);
        let mode = if node.is_folder { 0o40_755 } else { 0o100_644 };
        let (len, changed) = (node.bytes.len() as u64, node.changed);
        let long = [number, len, len.div_ceil(512), changed, changed, changed];
        let short: [u32; 10] = [0, 0, 0, mode, 1, 0, 0, 0, 4_096, 0];
        let long = long.iter().flat_map(|word| word.to_le_bytes());
        long.chain(short.iter().flat_map(|word| word.to_le_bytes())).collect()
    }
}

/// Version 7.31, writes of up to 128 KiB.
fn greeting(body: &[u8]) -> Vec<u8> {
    let words = [7, 31, u32_at(body, 8), 0, 0, 128 << 10, 1];
    let mut greeting: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    greeting.resize(64, 0);
    greeting
}

fn room() -> Vec<u8> {
    let long = [1_u64 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20];
    let short = [4_096_u32, NAME_LEN_MAX as u32, 4_096, 0];
    let mut room: Vec<u8> = long.iter().flat_map(|word| word.to_le_bytes()).collect();
    room.extend(short.iter().flat_map(|word| word.to_le_bytes()));
    room.resize(80, 0);
    room
}
